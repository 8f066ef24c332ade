"""The look-ahead's shortcuts against the exact question, on pools too large for brute force; the solver against brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import NOW, context, page_of

from pagellm.catalog import Catalog
from pagellm.layout.compiled import compile_layout
from pagellm.layout.masks import PageMasks
from pagellm.layout.outlook import Outlook
from pagellm.layout.puzzle import PAGE, Limit, Puzzle, Want, solve
from pagellm.layout.spec import Layout
from pagellm.layout.validator import Validator

OPTIONS = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


def shop(rng: np.random.Generator, size: int) -> Catalog:
    return Catalog(
        pl.DataFrame(
            {
                "item_id": [f"i{n}" for n in range(size)],
                "title": [f"Item {n}" for n in range(size)],
                "brand": rng.choice(["a", "b", "c", "d", "e"], size),
                "group_id": rng.choice([f"g{n}" for n in range(size // 2)], size),
                "kind": rng.choice(["x", "y", "z"], size),
                "new": rng.random(size) < 0.35,
                "far": rng.random(size) < 0.3,
                "sponsored": rng.random(size) < 0.25,
            }
        )
    )


def layout(rng: np.random.Generator) -> Layout:
    sizes = rng.integers(2, 5, rng.integers(2, 4))
    rows = [{"id": f"w{n}", "capacity": int(size)} for n, size in enumerate(sizes)]
    rows[-1]["source"] = {"filter": "kind != 'x'"} if rng.random() < 0.5 else "model"
    windows = ["row", "page"]
    rules: dict[str, object] = {
        "max_per": [{"field": "brand", "limit": int(rng.integers(1, 3)), "window": "row"}, {"field": "kind", "limit": 4}],
        "min_per": [
            {"field": "new", "limit": int(rng.integers(1, 4)), "window": str(rng.choice(windows))},
            {"field": "far", "limit": int(rng.integers(1, 3)), "window": str(rng.choice(windows))},
            {"field": "kind", "value": "y", "limit": 2},
        ][: rng.integers(1, 4)],
        "dedup": [{"unit": "group_id", "soft": bool(rng.random() < 0.3)}],
    }
    if rng.random() < 0.4:
        rules["ads"] = {"slots": ["w0.c1"], "max_share": 0.3}
    content: dict[str, object] = {"id": "mid", "rows": rows, "rules": rules}
    if len(rows) > 2 and rng.random() < 0.5:
        content |= {"order": "policy", "rows_shown": len(rows) - 1}
        for row in rows:
            row["optional"] = row["id"] != "w0"
    return Layout.model_validate(content)


def exact(outlook: Outlook, page: int, open_: np.ndarray) -> np.ndarray:
    good = [pick for pick in np.flatnonzero(open_) if solve(outlook.needs.puzzle(page, spent=True, pick=int(pick))) is not None]
    return np.isin(np.arange(len(open_)), good)


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=[pytest.mark.slow] if n == 6 else []) for n in range(12)]
)  # 6 has many ways
def test_shortcuts_equal_the_exact_answer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    catalog, asked = shop(rng, 24), layout(rng)
    rules = compile_layout(asked, catalog, NOW)
    pool = np.stack([rng.permutation(24)[:16] for _ in range(4)]).astype(np.int32)
    masks = PageMasks(rules, pool)
    assert masks.outlook is not None
    taste = rng.random(pool.shape) - rules.needs[0].members[pool]  # the policy shuns what a rule asks for: slots get tight
    while not masks.done.all():
        if masks.between.any():
            rows = masks.rows_allowed()
            masks.place_row(np.where(rows.any(1), np.argmax(rows * rng.random(rows.shape), 1), -1))
        allowed, plain = masks.allowed(), masks.state.open()
        for page in np.flatnonzero(masks.layout_row >= 0):
            assert (allowed[page] & plain[page] == exact(masks.outlook, int(page), plain[page])).all()
        masks.place(np.where(allowed.any(1), np.argmax(np.where(allowed, taste, -9), 1), -1))
    validator = Validator(asked, catalog, NOW)
    for page, written in enumerate(masks.pages()):
        assert validator.check(written, context(), pool[page]) == []


@st.composite
def puzzles(draw: st.DrawFn) -> Puzzle:
    rng = np.random.default_rng(draw(st.integers(0, 10**9)))
    items, kinds, rows = rng.integers(1, 5), rng.integers(1, 4), rng.integers(1, 4)
    must = rng.random(rows) < 0.5
    may = ~must & (rng.random(rows) < 0.8)
    limits = tuple(
        Limit(rng.integers(-1, 2, items).astype(np.int32), np.full(items, rng.integers(0, 3)), int(rng.integers(-1, rows)))
        for _ in range(rng.integers(0, 3))
    )
    wants = tuple(
        Want(rng.random(items) < 0.6, int(rng.integers(1, 3)), int(rng.integers(-1, rows))) for _ in range(rng.integers(1, 4))
    )
    return Puzzle(
        item=np.arange(items),
        room=rng.integers(1, 3, kinds),
        row=rng.integers(0, rows, kinds),
        ad=np.zeros(kinds, np.bool_),
        fits=rng.random((items, kinds)) < 0.8,
        must=must,
        may=may,
        picks=int(rng.integers(0, may.sum() + 1)),
        limits=limits,
        wants=wants,
    )


def possible(puzzle: Puzzle) -> bool:
    """Every subset of rows, every item in every kind or nowhere."""
    items, kinds = puzzle.fits.shape
    for chosen in product([False, True], repeat=len(puzzle.must)):
        rows = np.array(chosen)
        if (rows & ~puzzle.must & ~puzzle.may).any() or (puzzle.must & ~rows).any() or (rows & puzzle.may).sum() != puzzle.picks:
            continue
        for places in product(range(-1, kinds), repeat=items):
            if keeps(puzzle, rows, np.array(places)):
                return True
    return False


def keeps(puzzle: Puzzle, rows: np.ndarray, places: np.ndarray) -> bool:
    put = np.flatnonzero(places >= 0)
    at = places[put]
    if not puzzle.fits[put, at].all() or not rows[puzzle.row[at]].all():
        return False
    if any((at == kind).sum() > puzzle.room[kind] for kind in range(len(puzzle.room))):
        return False
    for limit in puzzle.limits:
        inside = put[(limit.row == PAGE) | (puzzle.row[at] == limit.row)]
        if any((limit.codes[inside] == limit.codes[i]).sum() > limit.left[i] for i in inside if limit.codes[i] >= 0):
            return False
    return all(
        (want.row != PAGE and not rows[want.row])
        or want.members[put[(want.row == PAGE) | (puzzle.row[at] == want.row)]].sum() >= want.amount
        for want in puzzle.wants
    )


@settings(max_examples=300, **OPTIONS)
@given(puzzles())
def test_solver_equals_brute_force(puzzle: Puzzle) -> None:
    plan = solve(puzzle)
    assert (plan is not None) == possible(puzzle)
    if plan is not None:
        places = np.full(len(puzzle.item), -1)
        places[plan.item] = plan.kind
        assert keeps(puzzle, plan.rows, places)


@pytest.mark.parametrize("forced", [True, False])
def test_a_forced_choice_is_put_and_noted(forced: bool) -> None:
    catalog = Catalog(pl.DataFrame({"item_id": ["i0", "i1"], "title": ["a", "b"], "new": [True, False]}))
    asked = Layout.model_validate({"id": "x", "rows": [{"id": "r"}], "rules": {"min_per": [{"field": "new", "limit": 1}]}})
    masks = PageMasks(compile_layout(asked, catalog, NOW), np.array([[0, 1]], np.int32))
    assert masks.allowed().tolist() == [[True, False]]
    if forced:
        masks.place(np.array([1]), strict=False)
        assert "outside the mask" in masks.reasons(0)[0]
        found = Validator(asked, catalog, NOW).check(page_of(asked, ("r",), (1,)), context())
        assert {violation.rule for violation in found} == {"min_per new ≥ 1 (page)"}
    else:
        with pytest.raises(ValueError, match="Candidate 1 is not allowed in slot r0c0"):
            masks.place(np.array([1]))
