"""A run folder is whole or refused: cut files, flipped bits, full disks and foreign manifests never give a crash or another policy."""

from __future__ import annotations

import builtins
import errno
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from pagellm.composition import compose_for
from pagellm.errors import RunError
from pagellm.models import storage
from pagellm.models.run import FILES, METRICS, finish, load_run, save_policy
from pagellm.models.storage import read_json, read_tensors, write_bytes, write_json, write_manifest, write_tensors
from pagellm.training.cost import COST

PAGE_USER = "u3"


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> Path:
    """A run that may be broken."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture(scope="module")
def sound(tiny_run: Path) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Weights and a page of the unharmed run."""
    run = load_run(tiny_run)
    return dict(run.net.state_dict()), compose_for(run, user=PAGE_USER).pages[0].items.tolist()


def refused_or_same(folder: Path, sound: tuple[dict[str, torch.Tensor], list[int]]) -> bool:
    """Whether the folder was refused; fails where it loads as anything but the same policy."""
    try:
        run = load_run(folder)
    except RunError:
        return True
    weights = run.net.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in sound[0].items())
    assert compose_for(run, user=PAGE_USER).pages[0].items.tolist() == sound[1]
    return False


def test_a_run_holds_data_and_nothing_else(tiny_run: Path) -> None:
    assert {path.name for path in tiny_run.iterdir()} == {*FILES, METRICS, COST, "manifest.json"}


def test_any_cut_is_noticed(copy: Path, sound: tuple[dict[str, torch.Tensor], list[int]]) -> None:
    for path in sorted(path for path in copy.iterdir() if path.name != COST):  # what it took is no part of a run
        content = path.read_bytes()
        for length in {0, 1, 7, 8, len(content) // 2, len(content) - 2}:
            path.write_bytes(content[:length])
            assert refused_or_same(copy, sound), f"{path.name} cut to {length} bytes"
        path.write_bytes(content)
    assert not refused_or_same(copy, sound)


def flip(folder: Path, bits: int, seed: int, sound: tuple[dict[str, torch.Tensor], list[int]]) -> None:
    """Flips one bit at a time, half of them in the manifest, where nothing but its own form guards it."""
    rng = np.random.default_rng(seed)
    files = sorted(path for path in folder.iterdir() if path.name not in ("manifest.json", COST))
    for number in range(bits):
        path = folder / "manifest.json" if number % 2 else files[rng.integers(len(files))]
        content = bytearray(path.read_bytes())
        place = int(rng.integers(len(content) * 8))
        content[place // 8] ^= 1 << place % 8
        before = path.read_bytes()
        path.write_bytes(content)
        refused = refused_or_same(folder, sound)
        assert refused or path.name == "manifest.json", f"bit {place} of {path.name}"
        path.write_bytes(before)


def test_two_hundred_flipped_bits(copy: Path, sound: tuple[dict[str, torch.Tensor], list[int]]) -> None:
    flip(copy, 200, 1, sound)


@pytest.mark.slow
def test_a_thousand_flipped_bits(copy: Path, sound: tuple[dict[str, torch.Tensor], list[int]]) -> None:
    flip(copy, 1_000, 2, sound)


def entries(folder: Path) -> dict[str, dict[str, object]]:
    return dict(read_json(folder / "manifest.json")["files"])


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "..", ".", "", "x" * 5000, "nul\u0000", "\ud800"])
def test_a_manifest_that_names_something_outside_is_refused(copy: Path, name: str) -> None:
    (copy.parent / "x").write_bytes(b"")
    files = entries(copy) | {name: {"sha256": storage.sha256(copy.parent / "x"), "bytes": 0}}
    (copy / "manifest.json").write_text(json.dumps({"files": files}))
    with pytest.raises(RunError):
        load_run(copy)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": 3}', '{"files": {"config.json": 1}}', "[" * 100_000, "\xff"])
def test_a_manifest_of_another_form_is_refused(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(RunError):
        load_run(copy)


@pytest.mark.parametrize("name", FILES)
def test_nothing_that_the_manifest_leaves_out_is_read(copy: Path, name: str) -> None:
    files = {key: value for key, value in entries(copy).items() if key != name}
    write_json(copy / "manifest.json", {"files": files})
    with pytest.raises(RunError, match=f"does not name '{name}'"):
        load_run(copy)


def test_a_layout_that_was_put_in_later_is_refused(copy: Path) -> None:
    (copy / "layout.toml").write_text('id = "x"')
    with pytest.raises(RunError, match=r"does not name 'layout\.toml'"):
        load_run(copy)


def test_an_unfinished_run_says_how_to_go_on(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    with pytest.raises(RunError, match="--resume"):
        load_run(copy)
    with pytest.raises(RunError, match="There is no run folder"):
        load_run(copy / "nowhere")


def changed(folder: Path, change: Callable[[Path], None]) -> None:
    """Changes a run and writes a manifest that agrees with the change, as an attacker would."""
    change(folder)
    write_manifest(folder, list(entries(folder)))


def _foreign_items(folder: Path) -> None:
    frame = pl.read_parquet(folder / "events.parquet")
    frame.with_columns(pl.lit(10**6, pl.Int32).alias("item")).write_parquet(folder / "events.parquet")


def _other_shapes(folder: Path) -> None:
    weights, _ = read_tensors(folder / "policy.safetensors")
    write_tensors(folder / "policy.safetensors", weights | {"bias": torch.zeros(3)})


def _fewer_weights(folder: Path) -> None:
    weights, _ = read_tensors(folder / "policy.safetensors")
    write_tensors(folder / "policy.safetensors", {name: value for name, value in weights.items() if name != "bias"})


def _no_table(folder: Path) -> None:
    (folder / "catalog.parquet").write_bytes(b"PAR1 nothing PAR1")


def _new_setting(folder: Path) -> None:
    write_json(folder / "config.json", read_json(folder / "config.json") | {"backdoor": True})


@pytest.mark.parametrize("change", [_foreign_items, _other_shapes, _fewer_weights, _no_table, _new_setting])
def test_a_forged_folder_with_a_right_manifest_is_refused(copy: Path, change: Callable[[Path], None]) -> None:
    changed(copy, change)
    with pytest.raises(RunError):
        load_run(copy)


def test_a_pickle_under_the_name_of_weights_is_not_opened(copy: Path) -> None:
    canary = copy.parent / "canary"
    code = b"cbuiltins\nopen\n(V" + str(canary).encode() + b"\nVw\ntR."  # opens the canary for writing when unpickled
    changed(copy, lambda folder: (folder / "policy.safetensors").write_bytes(code))
    with pytest.raises(RunError, match="cannot be read"):
        load_run(copy)
    assert not canary.exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_saved(copy: Path, bad: float) -> None:
    run = load_run(copy)
    before = (copy / "policy.safetensors").read_bytes()
    with torch.no_grad():
        run.net.bias[3] = bad
    with pytest.raises(RunError, match="not finite"):
        save_policy(copy, run.net)
    assert (copy / "policy.safetensors").read_bytes() == before


class Failing:
    """Stands in for a call of the operating system and fails at the n-th use."""

    def __init__(self, real: Callable[..., object], at: int, code: int) -> None:
        self.real, self.left, self.code = real, at, code

    def __call__(self, *args: object, **options: object) -> object:
        self.left -= 1
        if self.left == 0:
            raise OSError(self.code, os.strerror(self.code))
        return self.real(*args, **options)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_failing_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    path = tmp_path / "artifact.json"
    write_bytes(path, b"old")
    with monkeypatch.context() as patch:
        if call == "open":
            patch.setattr(builtins, "open", Failing(open, 1, code))
        else:
            patch.setattr(os, call, Failing(getattr(os, call), 1, code))
        with pytest.raises(RunError, match="cannot be written"):
            write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["artifact.json"]


def test_a_write_that_breaks_off_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"a": torch.ones(3)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))  # the kernel takes the first 1,000 bytes and refuses the rest
    try:
        with pytest.raises(RunError, match="File too large"):
            write_tensors(path, {"a": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(read_tensors(path)[0]["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_run_is_whole_or_unfinished_whichever_write_of_it_fails(
    copy: Path, monkeypatch: pytest.MonkeyPatch, call: str, sound: tuple[dict[str, torch.Tensor], list[int]]
) -> None:
    net, failed = load_run(copy).net, 0
    for at in range(1, 9):
        (copy / "manifest.json").unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, Failing(getattr(os, call), at, errno.ENOSPC))
            try:
                save_policy(copy, net)
                finish(copy)
            except RunError:
                failed += 1
        done = (copy / "manifest.json").exists()
        assert refused_or_same(copy, sound) is not done
    assert failed == (4 if call == "fsync" else 2)  # weights and manifest; a sync of the file and one of its folder each
