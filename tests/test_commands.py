"""The commands as people type them, in this process: what they print, where, and with which exit code."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pagellm.cli.demo import free_folder
from pagellm.cli.evaluate import ACCURACY, PAGE, _columns_that_fit
from pagellm.cli.main import app, run
from tiny_run import SETTINGS

TRAIN = [part for setting in (*SETTINGS, "sft.epochs=2", "sft.refresh=off") for part in ("--set", setting)]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("command", ["train", "compose", "evaluate", "demo"])
def test_help_names_the_options(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    options = {
        "train": ("--run", "--profile", "--until", "--seed", "--resume", "--set"),
        "compose": ("--user", "--history", "--layout", "--k", "--query", "--explain", "--json", "--html"),
        "evaluate": ("--against", "--json"),
        "demo": ("--run", "--seed"),
    }
    assert all(option in shown.output for option in options[command])


def test_train_says_what_it_does_and_what_comes_next(tiny_shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert run(["train", str(tiny_shop), "--run", str(folder), "--profile", "tiny", *TRAIN]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"Run: {folder}",
        f"Next: pagellm compose {folder} --user ID    or    pagellm evaluate {folder}",
    ]
    first, *lines = err.splitlines()
    assert first.startswith("Data: shop: 40 items, 240 users,")
    steps = [json.loads(line) for line in lines]
    assert all(set(step) == {"stage", "step", "steps", "loss", "eta_s"} for step in steps)
    assert {step["stage"] for step in steps if step["step"] == step["steps"]} == {"lm", "head"}
    assert (folder / "manifest.json").exists()
    assert run(["train", str(tiny_shop), "--run", str(folder), "--profile", "tiny", *TRAIN]) == 2
    assert "already holds a finished run" in capsys.readouterr().err
    assert run(["train", str(tiny_shop), "--run", str(folder), "--profile", "tiny", *TRAIN, "--resume"]) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_train_shows_its_configuration_without_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["train", "nowhere", "--run", str(tmp_path / "run"), "--profile", "tiny", "--show-config", "--seed", "9"]
    assert run([*asked, "--set", "sft.epochs=4"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["profile"], told["seed"], told["sft"]["epochs"]) == ("tiny", 9, 4)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "SHOP", "--run", "NEW", "--set", "sft.epoch=3"], 2, "Did you mean sft.epochs?"),
        (["train", "SHOP", "--run", "NEW", "--profile", "huge"], 2, "one of tiny, small, base"),
        (["train", "SHOP", "--run", "NEW", "--until", "dpo"], 2, "--until must be one of sft, reward, ppo"),
        (["train", "SHOP", "--run", "FULL"], 2, "is not empty"),
        (["train", "MISSING", "--run", "NEW"], 3, "MISSING"),
        (["compose", "RUN", "--user", "u1", "--history", "i1"], 2, "not both"),
        (["compose", "RUN", "--history", "i1,i999"], 3, "Item 'i999' is not in the catalog"),
        (["compose", "RUN", "--at", "tomorrow"], 2, "RFC 3339"),
        (["compose", "RUN", "--layout", "MISSING"], 2, "MISSING"),
        (["compose", "RUN", "--policy", "dpo"], 2, "The policy must be sft or ppo. Got 'dpo'."),
        (["compose", "RUN", "--policy", "ppo"], 1, "has no policy of the stage ppo"),
        (["compose", "RUN", "--beside", "sft"], 2, "Add --html FILE"),
        (["compose", "MISSING"], 1, "There is no run folder"),
        (["compose", "SHOP"], 1, "is not finished"),
        (["compose", "RUN", "--html", "MISSING/page.html"], 1, "No such file or directory"),
        (["evaluate", "RUN", "--against", "popularty"], 2, "Did you mean 'popularity'?"),
        (["evaluate", "MISSING"], 1, "There is no run folder"),
        (["demo", "--run", "FULL"], 2, "is not empty"),
    ],
)
def test_a_mistake_is_one_message_and_its_code(
    arguments: list[str], code: int, words: str, tiny_shop: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("keep")
    places = {"SHOP": tiny_shop, "RUN": tiny_run, "FULL": full, "NEW": tmp_path / "new", "MISSING": tmp_path / "MISSING"}
    assert run([str(places.get(a, a)) if "/" not in a else str(tmp_path / a) for a in arguments]) == code
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert words in err.replace("\n", " ")
    assert "Traceback" not in err
    assert [p.name for p in full.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("arguments", [["--k", "0"], ["--temperature", "-1"], ["--group", "x"], ["--nothing"]])
def test_an_option_out_of_bounds_is_a_usage_error(
    arguments: list[str], tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compose", str(tiny_run), *arguments]) == 2
    assert "Usage" in capsys.readouterr().err


def test_compose_prints_a_grid(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compose", str(tiny_run), "--user", "u3", "--k", "5"]) == 0
    out = capsys.readouterr().out
    assert "5 of 5 slots" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80
    assert out.rstrip().endswith("--html page.html")


def test_compose_prints_json(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["compose", str(tiny_run), "--history", "i1, i5,i1", "--k", "6", "--json", "--explain", "--temperature", "1"]
    assert run([*asked, "--seed", "3"]) == 0
    page = json.loads(capsys.readouterr().out)
    (row,) = page["rows"]
    assert [slot["slot_id"] for slot in row["items"]] == [f"r0c{n}" for n in range(6)]
    assert not {"i1", "i5"} & {slot["item_id"] for slot in row["items"]}
    assert all(0 < slot["propensity"] <= 1 and slot["explain"] for slot in row["items"])
    assert run([*asked, "--seed", "3"]) == 0
    assert json.loads(capsys.readouterr().out) == page
    assert run([*asked, "--group", "3"]) == 0
    group = json.loads(capsys.readouterr().out)
    assert len(group) == 3
    assert len({tuple(slot["item_id"] for slot in p["rows"][0]["items"]) for p in group}) == 3


def test_compose_keeps_to_a_layout_file(tiny_run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = tmp_path / "layout.toml"
    layout.write_text(
        'id = "two"\n[[rows]]\nid = "tea"\ncapacity = 3\nsource = { theme = "tea" }\n[[rows]]\nid = "any"\ncapacity = 2\n'
    )
    assert run(["compose", str(tiny_run), "--layout", str(layout), "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert page["template"]["id"] == "two"
    assert [len(row["items"]) for row in page["rows"]] == [3, 2]
    assert all(" tea " in slot["title"] for slot in page["rows"][0]["items"])


def test_compose_writes_a_preview_that_needs_nothing_else(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "page.html"
    assert run(["compose", str(tiny_run), "--query", "<script>cheese</script>", "--html", str(target)]) == 0
    out = capsys.readouterr().out
    assert f"Preview: {target}" in out
    assert out.rstrip().endswith(f"Next: pagellm evaluate {tiny_run}")
    found: list[tuple[str, str | None]] = []
    reader = HTMLParser()
    reader.handle_starttag = lambda tag, attrs: found.extend([("tag", tag), *attrs])  # type: ignore[method-assign,assignment]
    text = target.read_text(encoding="utf-8")
    reader.feed(text)
    assert not {("tag", tag) for tag in ("script", "iframe", "object", "base")} & set(found)
    assert all((value or "").startswith(("#", "data:")) for name, value in found if name in ("src", "href", "srcset", "action"))
    assert "cheese" in text


def test_evaluate_fits_eighty_columns(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(tiny_run), "--against", "popularity,popularity-30d"]) == 0
    out, err = capsys.readouterr()
    assert "fitting popularity-30d" in err
    *lines, last = out.splitlines()
    assert last == f"Next: pagellm compose {tiny_run} --user ID --explain"
    assert max(map(len, lines)) <= 80
    assert "…" not in out
    assert all(metric in out for metric in (*ACCURACY, *PAGE))


def test_evaluate_writes_json(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "figures.json"
    assert run(["evaluate", str(tiny_run), "--against", "popularity", "--json", str(target)]) == 0
    assert set(json.loads(target.read_text())["methods"]) == {"pagellm", "popularity"}


@pytest.mark.parametrize("width", [20, 40, 80, 120, 300])
def test_tables_share_the_metrics_out(width: int) -> None:
    parts = _columns_that_fit(ACCURACY, width)
    assert [metric for part in parts for metric in part] == list(ACCURACY)
    assert len(parts) == {20: 6, 40: 6, 80: 2, 120: 2, 300: 1}[width]


def test_a_second_demo_takes_the_next_folder(tmp_path: Path) -> None:
    wanted = tmp_path / "demo"
    assert free_folder(wanted) == wanted
    wanted.mkdir()
    assert free_folder(wanted) == wanted
    (wanted / "page.html").write_text("")
    assert free_folder(wanted) == tmp_path / "demo-2"
    (tmp_path / "demo-2").write_text("a file")
    assert free_folder(wanted) == tmp_path / "demo-3"


@pytest.mark.slow
def test_demo_plays_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["demo", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    for stage in ("shop", "data check", "train", "ppo", "rewards", "compose", "evaluate", "true value", "report"):
        assert f"{stage} " in out
    folder = tmp_path / "runs" / "demo"
    assert {"shop", "run", "page.html", "report.html", "report.json"} <= {path.name for path in folder.iterdir()}
    value = json.loads((folder / "report.json").read_text())["true_value"]["clicks"]
    assert value["pagellm"][0] > value["random"][0]
    shutil.rmtree(folder)
