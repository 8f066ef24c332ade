"""`pagellm layout check` as a user types it, in-process."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagellm.cli.main import run

ITEMS = "item_id,title,brand,availability\n" + "\n".join(f"i{n},Item {n},b{n % 3},in_stock" for n in range(12))
EVENTS = "user_id,item_id,timestamp\nu1,i1,2024-01-01T00:00:00Z\nu1,i2,2024-01-02T00:00:00Z\nu2,i3,2024-01-03T00:00:00Z\n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "items.csv").write_text(ITEMS)
    (folder / "interactions.csv").write_text(EVENTS)
    return folder


def write(tmp_path: Path, limit: int) -> Path:
    file = tmp_path / "x.toml"
    file.write_text(
        'id = "x"\nrows = [{ id = "picks", capacity = 9, title = "[bold]Top[/bold]" }]\n'
        f'[rules]\nmax_per = [{{ field = "brand", limit = {limit}, window = "row" }}]\n'
        "boost = [{ where = \"brand == 'b1'\", factor = 1.5 }]\n"
    )
    return file


def test_examples(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in sorted((root / "tests" / "examples").glob("*.toml")):
        assert run(["layout", "check", str(file)]) == 0
        out = capsys.readouterr().out
        assert f"Next: pagellm compose RUN --layout {file}" in out.replace("\n", " ")
        assert "--data DATA" in out


def test_a_layout_that_the_catalog_can_fill(tmp_path: Path, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["layout", "check", str(write(tmp_path, 3)), "--data", str(shop)]) == 0
    out = capsys.readouterr().out
    assert "[bold]Top[/bold]" in out
    assert "brand ≤ 3 (row)" in out
    assert "× 1.5 where brand == 'b1'" in out
    assert "the 12 items" in out


def test_a_layout_that_it_cannot_fill(tmp_path: Path, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["layout", "check", str(write(tmp_path, 2)), "--data", str(shop)]) == 2
    said = capsys.readouterr().err
    assert "max_per brand ≤ 2 (row) leaves 6 items for the 9 slots of row 'picks'" in said


def test_no_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["layout", "check", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
