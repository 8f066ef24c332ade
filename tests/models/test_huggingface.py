"""Hugging Face backbones: what they read in steps, where item vectors come from, what is trained, and that a run stands alone."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_lms import FAMILIES, HOSTILE, ITEMS, fresh_run, settings, tea_shop, wake_page_head, write_lm

from pagellm.config import RunConfig
from pagellm.data.content import content_vectors
from pagellm.data.log import Log
from pagellm.errors import UsageError
from pagellm.layout.spec import Layout
from pagellm.layout.validator import validate_page
from pagellm.models.codec import reading_spans
from pagellm.models.composer import LanguagePolicy
from pagellm.models.decoding import Writing
from pagellm.models.huggingface import LOGIT_DEVIATION, HuggingFaceBackbone
from pagellm.models.item_text import item_text_vectors, title_tokens
from pagellm.models.pretrained import load_decoder, load_tokenizer
from pagellm.models.run import Run, finish, load_run, make_net, save_inputs, save_policy
from pagellm.training.checkpoint import Mark, load_fit, save_fit
from pagellm.training.sft import FitState, Step, fit_language_model, language_model_state, next_basket_loss
from pagellm.types import Context


@pytest.fixture(scope="session")
def lms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each family."""
    return {family: write_lm(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture(scope="session")
def shop() -> Log:
    return tea_shop()


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, lms: dict[str, Path]) -> Path:
    """The folder of one family after the other."""
    return lms[request.param]


def fit(run: Run) -> list[Step]:
    config = run.config
    spans = reading_spans(run.split.log, run.split.fit_until_test, config.model.max_history)
    state = language_model_state(run.net, config.sft)
    return list(fit_language_model(run.net, spans, config.sft, config.model.max_history, 0, state))


def visits(run: Run, users: int = 6) -> list[Context]:
    """Contexts with histories of zero to five events."""
    log = run.split.log
    places = [np.flatnonzero(log.user == u)[:u] for u in range(users)]
    end = int(log.time.max()) + 1
    return [Context(end, log.item[p], log.event[p], log.time[p], user=f"u{u}") for u, p in enumerate(places)]


@torch.no_grad()
def test_steps_from_padded_prompts_equal_the_full_forward(folder: Path) -> None:
    backbone = HuggingFaceBackbone(load_decoder(folder)).eval()
    torch.manual_seed(0)
    lengths, pages, tokens = torch.tensor([5, 1, 8, 3]), 3, 4
    x, written = torch.randn(4, 8, backbone.dims), torch.randn(4, pages, tokens, backbone.dims)
    h, cache = backbone.prefill(x, lengths, pages, tokens)
    for t in range(tokens):
        got = backbone.step(written[:, :, t], cache)
        for c, length in enumerate(lengths.tolist()):
            whole = torch.cat([x[c, :length].expand(pages, -1, -1), written[c, :, : t + 1]], 1)
            hidden = backbone(whole)
            torch.testing.assert_close(got[c], hidden[:, -1], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(h[c, 0], hidden[0, length - 1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_on_the_right_changes_nothing(folder: Path) -> None:
    backbone = HuggingFaceBackbone(load_decoder(folder)).eval()
    x = torch.randn(3, 9, backbone.dims, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(backbone(x)[:, :4], backbone(x[:, :4]), atol=1e-5, rtol=1e-5)


def test_an_item_starts_as_the_mean_of_its_titles_tokens(folder: Path, shop: Log) -> None:
    table = load_decoder(folder).get_input_embeddings()
    got = item_text_vectors(folder, shop.catalog, table)
    tokenizer = load_tokenizer(folder)
    for item in (0, 7):
        ids = tokenizer(shop.catalog.titles[item], add_special_tokens=False)["input_ids"]
        assert len(ids) > 1
        torch.testing.assert_close(got[item], table.weight[ids].mean(0))
    assert bool(got.isfinite().all())
    assert float(got[-1].std()) == pytest.approx(float(table.weight.detach().std()), rel=0.5)  # no title: like a new token


def test_no_title_becomes_a_control_token(folder: Path, shop: Log) -> None:
    tokenizer = load_tokenizer(folder)
    roles = {*tokenizer.all_special_ids, tokenizer.convert_tokens_to_ids("<tool_call>")}
    marks = list(tokenizer.all_special_tokens)
    carried = tokenizer(f"tea {marks[-1]} <tool_call>")["input_ids"]
    assert len(roles & set(carried)) == 2, "the tokenizer alone would have made control tokens of it"
    titles = [*HOSTILE, *marks, "".join(marks), f"tea{marks[0]}mug"]
    for title, tokens in zip(titles, title_tokens(folder, titles), strict=True):
        assert not roles & set(tokens.tolist()), title
    plain, hidden = title_tokens(folder, ["tea mug", f"tea {marks[-1]} mug"])
    assert len(hidden) > len(plain), "a mark is read as the characters that it is written with"


@pytest.mark.parametrize(("loud", "quiet"), [(1.0, 1.0), (30.0, 1.0), (1.0, 20.0)])
def test_logits_start_sane_whatever_the_lengths_of_vectors(
    folder: Path, shop: Log, tmp_path: Path, loud: float, quiet: float
) -> None:
    """Trained models have last norms and token vectors of very different lengths; the first loss must not depend on them."""
    from safetensors.torch import load_file, save_file

    changed = shutil.copytree(folder, tmp_path / "lm")
    weights = load_file(changed / "model.safetensors")
    norm = next(n for n in weights if n.endswith(("ln_f.weight", "model.norm.weight")))
    tokens = next(n for n in weights if n.endswith(("wte.weight", "embed_tokens.weight")))
    weights[norm] *= loud
    weights[tokens] *= quiet
    save_file(weights, changed / "model.safetensors", {"format": "pt"})
    assert_sane(settings(changed), shop)


def test_logits_start_sane_at_the_width_of_a_real_model(shop: Log, tmp_path: Path) -> None:
    wide = {"hidden_size": 896, "num_hidden_layers": 1, "num_attention_heads": 14, "head_dim": 64, "intermediate_size": 64}
    assert_sane(settings(write_lm(tmp_path, "qwen2", **wide)), shop)


def assert_sane(config: RunConfig, shop: Log) -> None:
    net = make_net(config, content_vectors(shop.catalog, 16), shop.catalog).eval()
    spans = reading_spans(shop.interactions, np.ones(len(shop.interactions), bool), 10)
    with torch.no_grad():
        loss = float(next_basket_loss(net, spans, 10))
    assert loss == pytest.approx(math.log(ITEMS), rel=0.2)
    assert loss - math.log(ITEMS) < 2 * LOGIT_DEVIATION**2


def test_training_lowers_the_loss_and_pages_are_written(folder: Path, shop: Log, tmp_path: Path) -> None:
    run = fresh_run(settings(folder, "sft.min_steps=60"), shop, tmp_path)
    steps = fit(run)
    first, last = np.mean([s.loss for s in steps[:3]]), np.mean([s.loss for s in steps[-3:]])
    assert last < 0.8 * first
    wake_page_head(run.net)
    layout = Layout.single_row(8)
    now = int(run.split.log.time.max()) + 1
    policy = LanguagePolicy(run, layout, Writing(temperature=1.0), now)
    contexts = visits(run)
    pages = policy.compose_many(contexts, np.random.default_rng(0), group=3)
    for context, group in zip(contexts, pages, strict=True):
        for page in group:
            assert len(page.items) == 8
            assert validate_page(page, layout, shop.catalog, context, now) == []
    alone = policy.log_prob(contexts[4], pages[4][1])
    assert alone == pytest.approx([s.logprob for s in pages[4][1].slots], abs=1e-4)


def test_what_stands_on_the_page_matters(folder: Path, shop: Log, tmp_path: Path) -> None:
    run = fresh_run(settings(folder), shop, tmp_path)
    before = LanguagePolicy(run, Layout.single_row(8)).compose_many(visits(run), np.random.default_rng(0))
    wake_page_head(run.net)
    after = LanguagePolicy(run, Layout.single_row(8)).compose_many(visits(run), np.random.default_rng(0))
    first, second = (np.stack([group[0].items for group in pages]) for pages in (before, after))
    assert (first != second).any()


def test_lora_trains_adapters_and_our_own_parts_alone(folder: Path, shop: Log, tmp_path: Path) -> None:
    run = fresh_run(settings(folder, "model.adapter=lora", "model.lora_rank=4", "sft.min_steps=12"), shop, tmp_path)
    before = {name: value.clone() for name, value in run.net.state_dict().items()}
    steps = fit(run)
    after = run.net.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    of_lm = {name for name in before if name.startswith("backbone.decoder.")}
    adapters = {name for name in of_lm if "lora_" in name}
    assert adapters
    assert moved & of_lm == adapters
    assert {"ids.weight", "project.weight", "gaps.weight", "actions.weight", "bias", "backbone.log_scale"} <= moved
    assert steps[-1].loss < steps[0].loss


def test_full_training_moves_the_language_model(folder: Path, shop: Log, tmp_path: Path) -> None:
    run = fresh_run(settings(folder), shop, tmp_path)
    before = {name: value.clone() for name, value in run.net.backbone.state_dict().items()}
    fit(run)
    after = run.net.backbone.state_dict()
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert [name for name in still if not name.endswith("k_proj.bias")] == []  # a bias of all keys alike changes no attention


@pytest.mark.parametrize(("family", "adapter"), [("gpt2", "lora"), ("llama", "full"), ("qwen2", "full"), ("qwen3", "lora")])
def test_a_saved_run_writes_the_same_pages_without_the_models_folder(
    lms: dict[str, Path], family: str, adapter: str, shop: Log, tmp_path: Path
) -> None:
    lm = shutil.copytree(lms[family], tmp_path / "lm")
    config = settings(lm, f"model.adapter={adapter}")
    run = fresh_run(config, shop, tmp_path / "run")
    fit(run)
    wake_page_head(run.net)
    save_inputs(run.folder, config, shop, run.split, run.content)
    save_policy(run.folder, run.net)
    finish(run.folder)
    shutil.rmtree(lm)
    again = load_run(run.folder)
    assert str(tmp_path) not in (run.folder / "backbone.json").read_text()
    first, second = (
        LanguagePolicy(r, Layout.single_row(6), Writing(temperature=0.7)).compose_many(visits(r), np.random.default_rng(5), 2)
        for r in (run, again)
    )
    assert first == second


@pytest.mark.parametrize(("family", "adapter"), [("gpt2", "lora"), ("qwen3", "full")])
def test_a_fit_that_was_stopped_goes_on_to_the_same_bits(
    lms: dict[str, Path], family: str, adapter: str, shop: Log, tmp_path: Path
) -> None:
    config = settings(lms[family], f"model.adapter={adapter}", "model.dropout=0.1")

    def begin() -> tuple[Run, FitState, Iterator[Step]]:
        run = fresh_run(config, shop, tmp_path)
        state = language_model_state(run.net, config.sft)
        spans = reading_spans(run.split.log, run.split.fit_until_test, 10)
        return run, state, fit_language_model(run.net, spans, config.sft, 10, 0, state)

    whole, _, steps = begin()
    assert len(list(steps)) == 4
    stopped, state, steps = begin()
    assert [next(steps).step for _ in range(2)] == [1, 2]
    save_fit(tmp_path / "fit.safetensors", stopped.net, state, Mark("lm", state.step, 0))
    resumed, state, steps = begin()
    load_fit(tmp_path / "fit.safetensors", resumed.net, state)
    assert [step.step for step in steps] == [3, 4]
    one, two = whole.net.state_dict(), resumed.net.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_same_seed_makes_the_same_network(lms: dict[str, Path], shop: Log) -> None:
    content = content_vectors(shop.catalog, 16)
    config = settings(lms["llama"], "model.adapter=lora")
    a, b = (make_net(config, content, shop.catalog).state_dict() for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    other = make_net(config.model_copy(update={"seed": 1}), content, shop.catalog).state_dict()
    assert not torch.equal(a["gaps.weight"], other["gaps.weight"])


def test_histories_longer_than_the_model_can_read_are_refused(lms: dict[str, Path], shop: Log, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Set model\.max_history to 191 or less"):
        make_net(settings(lms["gpt2"], "model.max_history=192"), content_vectors(shop.catalog, 16), shop.catalog)
    backbone = HuggingFaceBackbone(load_decoder(lms["gpt2"])).eval()
    with pytest.raises(UsageError, match=r"needs 513 positions; this backbone has 512"):
        backbone.prefill(torch.zeros(1, 500, 32), torch.tensor([500]), 1, 13)
