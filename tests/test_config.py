"""Settings: unknown keys name the nearest, bounds hold, values are TOML, what is resolved comes back from its own JSON."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from pagellm.config import PROFILES, RunConfig, known_keys, resolve
from pagellm.errors import UsageError


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_resolves_to_what_it_sets(profile: str) -> None:
    config = resolve(profile)
    assert config.profile == profile
    for section, values in PROFILES[profile].items():
        for key, value in values.items():
            assert getattr(getattr(config, section), key) == value
    assert resolve().profile == "small"


def test_settings_go_over_the_profile_and_the_last_one_wins() -> None:
    config = resolve("tiny", ["model.dims=96", "sft.epochs=4", "sft.epochs=5", "seed=3"])
    assert (config.model.dims, config.sft.epochs, config.seed) == (96, 5, 3)
    assert config.model.layers == resolve("tiny").model.layers
    assert PROFILES["tiny"]["model"]["dims"] == 64  # the profile itself stays


@pytest.mark.parametrize(
    ("text", "section", "key", "value"),
    [
        ("sft.lr=5e-4", "sft", "lr", 5e-4),
        ("split.repeats=true", "split", "repeats", True),
        ('candidates.drop=["text", "pairs"]', "candidates", "drop", ("text", "pairs")),
        ("model.backbone=./models/gpt2", "model", "backbone", "./models/gpt2"),
        ('model.backbone="small"', "model", "backbone", "small"),
        (" sft.epochs = 7 ", "sft", "epochs", 7),
        ("split.protocol=last-out", "split", "protocol", "last-out"),
        ("model.backbone=a=b", "model", "backbone", "a=b"),
    ],
)
def test_values_are_toml_or_plain_text(text: str, section: str, key: str, value: object) -> None:
    assert getattr(getattr(resolve("small", [text]), section), key) == value


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("sft.epoch=3", "sft.epochs"),
        ("model.dim=64", "model.dims"),
        ("sft.learning=1", "sft."),
        ("sed=1", "seed"),
        ("epochs=2", "sft.epochs"),
    ],
)
def test_an_unknown_key_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean {near}"):
        resolve("small", [wrong])


@pytest.mark.parametrize("text", ["sft", "=3", "model={}", "model.dims.x=3", "sft.=1", "__class__=1", "model.__init__=1"])
def test_what_is_no_setting_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        resolve("small", [text])


@pytest.mark.parametrize(
    "text",
    [
        "sft.epochs=0",
        "sft.epochs=1.5",
        "sft.lr=0",
        "sft.lr=nan",
        "sft.lr=inf",
        "sft.lr=fast",
        "model.dims=17",
        "model.dropout=1",
        "split.valid_at=1",
        "seed=-1",
        "seed=2147483648",
        "split.protocol=random",
        "candidates.drop=text",
        "sft.epochs=[3]",
    ],
)
def test_bounds_and_kinds_hold_and_the_message_names_key_and_value(text: str) -> None:
    key, _, value = text.partition("=")
    with pytest.raises(UsageError, match=rf"The setting {key}.* is not accepted: .* Got .*{value.strip('[]')[:3]}"):
        resolve("small", [text])


def test_an_unknown_profile_names_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"one of tiny, small, base\. Got 'huge'"):
        resolve("huge")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_configuration_comes_back_from_its_json(profile: str) -> None:
    config = resolve(profile, ['candidates.drop=["text"]', "sft.lr=0.123456789012345"])
    assert RunConfig.model_validate(json.loads(config.model_dump_json())) == config
    assert RunConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_a_saved_configuration_with_something_more_is_refused() -> None:
    with pytest.raises(ValidationError):
        RunConfig.model_validate(resolve().model_dump() | {"more": 1})


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        resolve().sft.epochs = 3  # type: ignore[misc]


def test_every_key_is_settable_to_its_default_and_says_what_it_is() -> None:
    defaults = resolve().model_dump(mode="json")
    for key in known_keys():
        value: object = defaults
        for part in key.split("."):
            value = value[part]  # type: ignore[index]
        assert resolve("small", [f"{key}={json.dumps(value)}"]) == resolve()
    for section in ("split", "candidates", "model", "sft"):
        model = RunConfig.model_fields[section].annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        unsaid = [name for name, info in model.model_fields.items() if not info.description]
        assert set(unsaid) <= {"protocol"}


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_text_crashes_it(key: str, value: str) -> None:
    with contextlib.suppress(UsageError):
        resolve("tiny", [f"{key}={value}", f"sft.lr={value}"])


@pytest.mark.parametrize(("examples", "passes"), [(0, 80), (80, 80), (500, 80), (1_000, 52), (6_400, 8), (40_000, 8)])
def test_small_shops_get_more_passes_but_not_without_end(examples: int, passes: int) -> None:
    assert resolve("small").sft.head_passes(examples) == passes
