"""Every setting: a name, a default, a bound and a sentence. Loads without torch; an unknown key is an error.

Comes in: a profile's name and `key=value` texts. Goes out: one frozen `RunConfig`, which is saved with the run as resolved.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pagellm.errors import UsageError

STAGES = ("sft", "reward", "ppo", "renew")
"""What a training may go until, in order."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitConfig(_Section):
    """Which past is learned from and which future is judged."""

    protocol: Literal["temporal", "last-out", "multivae"] = "temporal"
    valid_at: float = Field(0.8, gt=0, lt=1, description="share of events before validation begins (temporal)")
    test_at: float = Field(0.9, gt=0, lt=1, description="share of events before the test begins (temporal)")
    reward_at: float = Field(
        0,
        ge=0,
        lt=1,
        description="share of events that the policy learns from where rewards are learned too, from what lies between this and valid_at; "
        "0 leaves the policy all that precedes the test. Training until a stage after sft sets it to .7",
    )
    held_out: float = Field(
        0.2, ge=0, lt=1, description="share of users that rewards and reinforcement learning never learn from"
    )
    repeats: bool = Field(False, description="whether a page may hold what its user already took")


class CandidateConfig(_Section):
    """How many items each channel brings into a context's pool, and what is known of them there."""

    popular_1d: int = Field(50, ge=0, le=5_000, description="most taken in the day before the context")
    popular_7d: int = Field(150, ge=0, le=5_000, description="most taken in the 7 days before the context")
    popular_30d: int = Field(150, ge=0, le=5_000, description="most taken in the 30 days before the context")
    popular_90d: int = Field(50, ge=0, le=5_000, description="most taken in the 90 days before the context")
    popular_all: int = Field(50, ge=0, le=5_000, description="most taken in all of the past: what is left where a log has gaps")
    pairs: int = Field(200, ge=0, le=5_000, description="taken by the same users as the history")
    text: int = Field(100, ge=0, le=5_000, description="most alike in text to the history")
    policy: int = Field(150, ge=0, le=5_000, description="most probable under the language model")
    content_dims: int = Field(256, ge=8, le=1_024, description="size of an item's content vector")
    impressions: bool = Field(
        False,
        description="whether click rates from the pages of a log are evidence too; they made the policy of a small shop worse",
    )
    drop: tuple[str, ...] = Field(
        (), description="evidence left out, for ablations: pairs, popularity, text, profile, impressions, policy"
    )


class ModelConfig(_Section):
    """The language model."""

    backbone: str = Field("small", description="'small', or a folder or hub id of a Hugging Face causal LM")
    dims: int = Field(128, ge=16, le=2_048, multiple_of=2, description="hidden size of the small backbone")
    layers: int = Field(2, ge=1, le=48, description="blocks of the small backbone")
    heads: int = Field(4, ge=1, le=64, description="attention heads of the small backbone")
    ffn_dims: int = Field(352, ge=16, le=16_384, description="inner size of the small backbone's feed-forward part")
    dropout: float = Field(0.1, ge=0, lt=1, description="on embeddings and block outputs while training")
    max_history: int = Field(50, ge=1, le=1_000, description="newest events of a history that the model reads")
    adapter: Literal["full", "lora"] = Field("full", description="what of a Hugging Face backbone is trained")
    lora_rank: int = Field(8, ge=1, le=256, description="rank of the LoRA matrices")
    evidence_dims: int = Field(64, ge=4, le=1_024, description="hidden size of the evidence head")
    page_dims: int = Field(32, ge=4, le=1_024, description="hidden size of the page evidence")


class SFTConfig(_Section):
    """Supervised training on the next basket: first the language model, then the evidence head on later feedback."""

    epochs: int = Field(5, ge=1, le=500, description="passes over the histories")
    min_steps: int = Field(200, ge=0, description="steps of the language model at least, however small the log: epochs are added")
    batch: int = Field(64, ge=1, le=4_096, description="histories a step")
    lr: float = Field(1e-3, gt=0, le=1, description="peak learning rate of the language model")
    weight_decay: float = Field(0.01, ge=0, le=1, description="of matrices; vectors have none")
    warmup_steps: int = Field(100, ge=0, description="steps until the peak learning rate")
    clip: float = Field(1.0, gt=0, description="largest norm of a step's gradient")
    head_epochs: int = Field(8, ge=1, le=500, description="passes over the contexts that the evidence head learns from")
    head_min_steps: int = Field(400, ge=0, description="steps of the evidence head at least: passes are added, up to the most")
    head_max_epochs: int = Field(80, ge=1, le=500, description="passes at most, since more overfit a shop of a hundred contexts")
    head_batch: int = Field(128, ge=1, le=4_096, description="contexts a step of the evidence head")
    head_lr: float = Field(2e-3, gt=0, le=1, description="peak learning rate of the evidence head")
    head_contexts: int = Field(40_000, ge=100, description="newest contexts that the evidence head learns from")
    refresh: Literal["off", "test", "end"] = Field(
        "test",
        description="fit the language model again once the head is fitted, on what precedes the test cut or on all of the log; "
        "a run refreshed to the end is for serving and can no longer be judged on its test part",
    )
    renew: Literal["test", "end"] = Field(
        "test",
        description="what the stage renew fits the policy on to once rewards and pages are learned: what precedes the test cut, or all of "
        "the log; a run renewed to the end is for serving and can no longer be judged on its test part",
    )
    checkpoint_s: float = Field(20.0, ge=0, description="seconds between checkpoints")

    def head_passes(self, examples: int) -> int:
        """Passes over this many examples of the evidence head: enough for `head_min_steps`, no more than `head_max_epochs` for it."""
        wanted = -(-self.head_min_steps * self.head_batch // max(examples, 1))
        return max(self.head_epochs, min(wanted, self.head_max_epochs))


class PairConfig(_Section):
    """Preference pairs: how large their pages are and how much one user or item may say."""

    slots: int = Field(10, ge=2, le=100, description="slots of the pages that are put together where a log has none")
    swaps: int = Field(3, ge=1, le=50, description="swaps a page at most")
    alike: float = Field(0.6, gt=0, lt=1, description="cosine of title vectors above which two items are near-duplicates")
    near: int = Field(8, ge=1, le=100, description="near-duplicates that are looked up for an item")
    per_user: int = Field(50, ge=1, description="pairs of one family that one user may bring")
    per_item: int = Field(500, ge=1, description="pairs of one family that may rest on one engaged item")


class RewardConfig(_Section):
    """Page reward and item reward, learned from the pairs."""

    hidden: int = Field(48, ge=4, le=1_024, description="size of the shared trunk's vectors")
    head_hidden: int = Field(16, ge=2, le=512, description="inner size of a head of one member")
    members: int = Field(4, ge=1, le=16, description="members of the ensemble")
    epochs: int = Field(3, ge=1, le=500, description="passes over the pairs")
    min_steps: int = Field(200, ge=0, description="steps at least, however few the pairs: passes are added")
    batch: int = Field(512, ge=2, le=65_536, description="pairs a step")
    lr: float = Field(1e-3, gt=0, le=1, description="peak learning rate")
    weight_decay: float = Field(1e-2, ge=0, le=1, description="of matrices")
    margin: float = Field(0.5, ge=0, le=10, description="by how much a pair of severity 1 must be told apart, in log-odds")
    relevance: float = Field(1.0, ge=0, le=100, description="weight of the family in the page reward")
    ranking: float = Field(1.0, ge=0, le=100, description="weight of the family in the page reward")
    diversity: float = Field(1.0, ge=0, le=100, description="weight of the family in the page reward")
    redundancy: float = Field(3.0, ge=0, le=100, description="weight of the family in the page reward")
    alpha: float = Field(
        0.5, ge=0, le=1, description="share of the page reward in the multi-grained reward; the rest is the item reward's"
    )
    contexts: int = Field(1_500, ge=10, description="contexts that calibration looks at")
    pairs: int = Field(300_000, ge=100, description="pairs that are learned from at most; of more, so many are drawn")
    noise: float = Field(
        0.0, ge=0, le=1, description="share of the pairs whose sides are exchanged first, to study noisy feedback"
    )


class PPOConfig(_Section):
    """Reinforcement learning on the multi-grained reward."""

    algorithm: Literal["ppo", "grpo", "grpo-slot", "rloo"] = Field(
        "ppo",
        description="where advantages come from: a value head, or the other pages of the context (whole pages, or slot by slot)",
    )
    learn: Literal["repetition", "evidence", "page", "all"] = Field(
        "repetition",
        description="what is trained: what a candidate would repeat of the page so far; also the evidence head; or also the language "
        "model's view of that page; or all of the policy",
    )
    iterations: int = Field(20, ge=1, le=100_000, description="rounds of writing pages and learning from them")
    contexts: int = Field(48, ge=1, le=65_536, description="contexts a round")
    group: int = Field(8, ge=2, le=256, description="pages a context, which share its prompt")
    candidates: int = Field(
        100, ge=2, le=5_000, description="the reference policy's favorites that pages are written from while learning"
    )
    most_contexts: int = Field(6_000, ge=1, description="different contexts at most, drawn from the reward window")
    temperature: float = Field(
        0.3, gt=0, le=10, description="of the softmax that pages are drawn from while learning; served pages take the likeliest"
    )
    ppo_epochs: int = Field(2, ge=1, le=100, description="passes over the pages of a round")
    minibatch: int = Field(16, ge=1, le=65_536, description="contexts an update, with all of their pages")
    lr: float = Field(3e-3, gt=0, le=1, description="learning rate at the start, of all but the language model")
    context_lr: float = Field(1e-5, gt=0, le=1, description="learning rate at the start of the language model, where learn = all")
    warmup: int = Field(5, ge=0, le=100_000, description="rounds in which the learning rates rise to these")
    clip: float = Field(1.0, gt=0, description="largest norm of an update's gradient")
    gamma: float = Field(1.0, gt=0, le=1, description="discount from slot to slot")
    gae_lambda: float = Field(1.0, ge=0, le=1, description="of generalized advantage estimation")
    center_groups: bool = Field(True, description="take the mean of the context's other pages off the advantages")
    clip_coef: float = Field(0.2, gt=0, le=10, description="by how much a ratio of probabilities may pay")
    value_clip: float = Field(0.2, gt=0, description="by how much a value may move in one round")
    vf_coef: float = Field(0.5, ge=0, le=100, description="weight of the value loss")
    ent_coef: float = Field(0.0, ge=0, le=10, description="weight of the entropy")
    kl_coef: float = Field(0.05, ge=0, le=100, description="price of a nat of distance from the reference policy at the start")
    kl_target: float = Field(6.0, ge=0, description="nats a page that the price steers to; 0 keeps the price")
    kl_gain: float = Field(0.5, ge=0, le=10, description="how fast the price follows")
    kl_budget: float = Field(20.0, gt=0, description="nats a page at which learning stops")
    stepwise: bool = Field(
        True,
        description="whether each slot has what it adds to the page reward of the slots before, instead of the last slot all of it",
    )
    caution: float = Field(0.5, ge=0, le=10, description="deviations of the reward ensemble that are taken off the page reward")
    verifiable: float = Field(
        0.0,
        ge=0,
        le=100,
        description="weight of a reward that is checked against what the user did next, beside the learned ones",
    )
    canary_every: int = Field(5, ge=1, description="rounds between looks at held-out users")
    canary_contexts: int = Field(2_500, ge=10, description="contexts of held-out users at most")
    patience: int = Field(
        4,
        ge=1,
        description="looks in a row at a page value below the best, by more than a standard error, after which learning stops",
    )
    duplicate_cost: float = Field(
        0.1, ge=0, le=1, description="share of a page's value that near-duplicates in every slot would cost, for the canary"
    )
    collapse: float = Field(
        0.05, ge=0, le=1, description="share of different pages among users below which the policy has collapsed"
    )


class RunConfig(_Section):
    """Everything that a run was made with."""

    profile: str = "small"
    seed: int = Field(0, ge=0, lt=2**31, description="of all randomness")
    threads: int = Field(
        0, ge=0, le=1_024, description="CPU threads, 0 for all cores; weights are bit-identical for equal threads"
    )
    device: str = Field(
        "cpu", max_length=40, description="where networks are trained and write: cpu, cuda, or cuda:1 for the second GPU"
    )
    split: SplitConfig = SplitConfig()
    candidates: CandidateConfig = CandidateConfig()
    model: ModelConfig = ModelConfig()
    sft: SFTConfig = SFTConfig()
    pairs: PairConfig = PairConfig()
    reward: RewardConfig = RewardConfig()
    ppo: PPOConfig = PPOConfig()


PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {
        "model": {"dims": 64, "heads": 2, "layers": 1, "ffn_dims": 176, "max_history": 30},
        "sft": {"epochs": 3, "head_epochs": 4, "head_contexts": 10_000},
        "ppo": {
            "iterations": 25,
            "contexts": 24,
            "candidates": 60,
            "canary_contexts": 400,
            "kl_coef": 0.03,
            "lr": 5e-3,
        },
        "candidates": {
            "content_dims": 64,
            "popular_1d": 30,
            "popular_7d": 60,
            "popular_30d": 60,
            "popular_90d": 30,
            "popular_all": 30,
            "pairs": 100,
            "text": 60,
            "policy": 80,
        },
    },
    "small": {},
    "base": {"model": {"dims": 256, "heads": 8, "layers": 4, "ffn_dims": 704, "max_history": 100}},
}
"""What each profile sets apart from the defaults: tiny for demos and tests, small for a laptop, base for a GPU."""


def resolve(profile: str = "small", settings: Iterable[str] = (), **top: Any) -> RunConfig:
    """The configuration of a profile with `section.key=value` texts on top. Values are read as TOML, else as plain text.

    Raises UsageError for an unknown profile or key (with the nearest known one) and for a value out of bounds.
    """
    if profile not in PROFILES:
        raise UsageError(f"The profile must be one of {', '.join(PROFILES)}. Got {profile!r}.")
    return _validated({"profile": profile, **top, **{k: dict(v) for k, v in PROFILES[profile].items()}}, settings)


def adjust(config: RunConfig, settings: Iterable[str]) -> RunConfig:
    """A configuration with `section.key=value` texts on top. Raises UsageError as `resolve` does."""
    return _validated(config.model_dump(), settings)


def known_keys(model: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """Every key that `--set` takes, as section.key."""
    keys = []
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += known_keys(kind, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _validated(tree: dict[str, Any], settings: Iterable[str]) -> RunConfig:
    for text in settings:
        path, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"A setting must look like section.key=value. Got {text!r}. Example: --set sft.epochs=4")
        _put(tree, path.strip(), _value(value.strip()))
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise UsageError("; ".join(_words(e) for e in error.errors())) from error


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    if path not in known_keys():
        near = difflib.get_close_matches(path, known_keys(), 1, 0.3)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"The setting {path!r} is not known.{hint} `pagellm train DATA --show-config` prints all of them.")
    *sections, key = path.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[key] = value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _words(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"The setting {where} is not accepted: {error['msg']}. Got {error.get('input')!r}."
