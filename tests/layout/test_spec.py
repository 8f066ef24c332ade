"""Layout files: what they mean, what is refused and in which words, and that no text at all gets past as anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagellm.errors import LayoutError
from pagellm.layout.reading import parse_layout
from pagellm.layout.spec import Layout

ROW = '[[rows]]\nid = "picks"\ncapacity = 4\n'
HEAD = 'id = "home"\n'


def test_examples_parse(root: Path) -> None:
    files = sorted((root / "tests" / "examples").glob("*.toml"))
    assert len(files) >= 3
    for file in files:
        layout = Layout.load(file)
        assert layout == parse_layout(file.read_text())


def test_home(root: Path) -> None:
    home = Layout.load(root / "tests" / "examples" / "home.toml")
    assert [row.capacity for row in home.rows] == [1, 10, 8, 6]
    assert home.place("picks.c3") == home.place("r1c3") == (1, 3)
    assert home.ad_limit == 3  # .15 of 25 slots
    assert home.rows[1].titles == ("Top picks", "For you")
    assert home.rules.pin[0].ends == 1_827_619_200  # 2027-12-01, its first second, UTC
    assert home.rules.pin[0].active(1_827_619_199)
    assert not home.rules.pin[0].active(1_827_619_200)


def test_share_counts_from_the_smallest_page() -> None:
    text = (
        HEAD + 'order = "policy"\nrows_shown = 2\n'
        'rows = [{id = "a", capacity = 5}, {id = "b", capacity = 9, optional = true}, {id = "c", capacity = 3, optional = true}]\n'
        "[rules.ads]\nmax_share = 0.25\n"
    )
    layout = parse_layout(text)
    assert (layout.fewest_slots, layout.ad_limit) == (8, 2)


REFUSED = [
    ("idd = 3", "Unknown key 'idd'. Did you mean 'id'?"),
    (HEAD + ROW + "capacitty = 3", "Unknown key 'capacitty' in rows[0]. Did you mean 'capacity'?"),
    (HEAD + ROW + 'source = { theem = "x" }', "Unknown key 'theem' in rows[0].source. Did you mean 'theme'?"),
    (HEAD + ROW + "[rules]\nmax_pr = []", "Unknown key 'max_pr' in rules. Did you mean 'max_per'?"),
    (HEAD + ROW + '[[rules.max_per]]\nfild = "a"', "Unknown key 'fild' in rules.max_per[0]. Did you mean 'field'?"),
    (HEAD + ROW + '[[rules.max_per]]\nfield = "brand"', "rules.max_per[0].limit is missing. Add it."),
    (
        HEAD + ROW + '[[rules.max_per]]\nfield = "brand"\nlimit = "2"',
        "rules.max_per[0].limit: Input should be a valid integer. Got '2'.",
    ),
    (HEAD + ROW + '[[rules.max_per]]\nfield = "brand"\nlimit = 2\nsoft = true', "Unknown key 'soft' in rules.max_per[0]"),
    (HEAD + ROW + '[[rules.max_per]]\nfield = "b"\nlimit = 2\nrows = ["picks"]', '`rows` goes with window = "row"'),
    (HEAD + ROW + '[[rules.min_per]]\nfield = "b"\nlimit = 1\nwindow = "row"\nrows = ["pick"]', "'pick' is no row"),
    (HEAD + ROW + "[[rules.exclude]]", "exclude needs `where` or `items`"),
    (HEAD + ROW + '[[rules.exclude]]\nwhere = "price = 3"', "Write == to compare"),
    (HEAD + ROW + '[[rules.boost]]\nwhere = "new"\nfactor = 0.5', "the factor of boost is 1 or more, got 0.5"),
    (HEAD + ROW + '[[rules.bury]]\nwhere = "new"\nfactor = 2.0', "the factor of bury is 1 or less, got 2"),
    (HEAD + ROW + '[[rules.boost]]\nwhere = "new"\nfactor = inf', "factor"),
    (HEAD + ROW + '[[rules.pin]]\nitem = "a"\nslot = "r1c0"', "slot 'r1c0' names no row: the layout has picks"),
    (HEAD + ROW + '[[rules.pin]]\nitem = "a"\nslot = "picks.c4"', "lies outside row 'picks', which has 4 slots"),
    (HEAD + ROW + '[[rules.pin]]\nitem = "a"\nslot = "first"', "a slot is written r0c3"),
    (HEAD + ROW + '[rules.ads]\nslots = ["r0c1", "picks.c1"]', "names a slot twice"),
    (HEAD + ROW + "[rules.ads]\nmax_share = 1.5", "max_share"),
    (HEAD + ROW + ROW, "two rows have the id 'picks'"),
    (HEAD + ROW + "optional = true", '`optional` and `rows_shown` go with order = "policy"'),
    (HEAD + 'order = "policy"\nrows_shown = 2\n' + ROW, "rows_shown lies between"),
    (HEAD + 'order = "policy"\n' + ROW + '[[rules.pin]]\nitem = "a"\nslot = "r0c0"', "a slot names its row by id"),
    (HEAD, "rows is missing. Add it."),
    (HEAD + "rows = []", "a page needs at least one row"),
    (HEAD + '[[rows]]\nid = "<b>"', "rows[0].id"),
    (HEAD + '[[rows]]\nid = "a"\nsource = "editorial"', 'a source is "model"'),
    (HEAD + '[[rows]]\nid = "a"\ncapacity = 3000', "a page may have 2,000 slots"),
    ("x", "not valid TOML"),
    ("a = " + "[" * 5000 + "]" * 5000, "not valid TOML"),
    ("a = " + "9" * 5000, "TOML"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(LayoutError) as caught:
        parse_layout(text)
    assert message in str(caught.value)


def test_optional_rows_need_room() -> None:
    rows = 'rows = [{id = "a"}, {id = "b", optional = true}]\n'
    with pytest.raises(LayoutError, match="optional rows could never stand"):
        parse_layout(HEAD + 'order = "policy"\nrows_shown = 1\n' + rows)
    with pytest.raises(LayoutError, match="A pin needs a required row"):
        parse_layout(HEAD + 'order = "policy"\n' + rows + '[[rules.pin]]\nitem = "x"\nslot = "b.c0"\n')


def test_files(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="cannot be read"):
        Layout.load(tmp_path / "none.toml")
    with pytest.raises(LayoutError, match="cannot be read"):
        Layout.load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'id = "\xe9"')
    with pytest.raises(LayoutError, match="not UTF-8 at byte 6"):
        Layout.load(tmp_path / "latin.toml")
    (tmp_path / "big.toml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(LayoutError, match="1,000,001 bytes"):
        Layout.load(tmp_path / "big.toml")


WORDS = st.sampled_from(
    [
        *"=[]{}\",.'\n# ",
        "id",
        "rows",
        "[[rows]]",
        "[rules]",
        "rules",
        "pin",
        "max_per",
        "limit",
        "true",
        "1",
        "-1",
        "1e999",
        "nan",
    ]
    + ["'a'", '"""', "2026-01-01", "capacity", "source", "where", "\x00", "\ud800", "é", "field", "slot", "until", "value"]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=80), st.lists(WORDS, max_size=30).map(" ".join)))
def test_any_text_is_a_layout_or_a_layout_error(text: str) -> None:
    try:
        parse_layout(text)
    except LayoutError as error:
        said = str(error)
    else:
        return
    assert said.startswith("Layout ")


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.dates(), st.datetimes()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=4,
)
PLACES = st.sampled_from(
    [
        ("id",),
        ("order",),
        ("rows",),
        ("rows", 0),
        ("rows", 0, "title"),
        ("rows", 0, "source"),
        ("rows", 0, "capacity"),
        ("rules",),
    ]
    + [("rules", kind) for kind in ("exclude", "pin", "ads", "max_per", "min_per", "dedup", "frequency_cap", "boost", "bury")]
    + [("rules", kind, 0) for kind in ("exclude", "pin", "max_per", "min_per", "dedup", "boost")]
    + [("rules", "pin", 0, "until"), ("rules", "max_per", 0, "value"), ("rules", "exclude", 0, "where")]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(PLACES, VALUES)
def test_any_value_anywhere_is_taken_or_refused(place: tuple[str | int, ...], value: object) -> None:
    from pagellm.layout import reading

    content: dict[str, object] = {
        "id": "x",
        "rows": [{"id": "r", "capacity": 2}],
        "rules": {
            "exclude": [{"where": "new"}],
            "pin": [{"item": "a", "slot": "r0c0"}],
            "max_per": [{"field": "brand", "limit": 1}],
            "min_per": [{"field": "new", "limit": 1}],
            "dedup": [{"unit": "title"}],
            "boost": [{"where": "new", "factor": 2.0}],
        },
    }
    inner: object = content
    for part in place[:-1]:
        inner = inner[part]  # type: ignore[index]
    inner[place[-1]] = value  # type: ignore[index]
    try:
        reading.layout_of(content, "fuzz")
    except LayoutError as error:
        said = str(error)
    else:
        return
    assert "Layout fuzz cannot be used" in said
