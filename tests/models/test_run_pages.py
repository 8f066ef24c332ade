"""Pages that were shown: kept in the run folder to the bit, checked on the way back, counted by a frequency cap when a page is composed,
evidence for a policy that has learned from them and for no other."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models.small_shop import small_catalog, small_log
from pagellm.composition import Composed, compose_for, make_context
from pagellm.config import RunConfig, resolve
from pagellm.data.content import content_vectors
from pagellm.data.contexts import contexts_of
from pagellm.data.evidence import IMPRESSIONS, NAMES
from pagellm.data.log import Log
from pagellm.data.shown import recently_shown
from pagellm.errors import RunError
from pagellm.layout.spec import Layout
from pagellm.models.run import finish, load_run, make_evidence, make_net, make_run_split, save_inputs, save_policy
from pagellm.models.run_tables import (
    as_parquet,
    events_frame,
    pages_frame,
    read_events,
    read_impressions,
    slots_frame,
    users_frame,
)
from pagellm.types import DAY, Impressions, Interactions
from tiny_run import SETTINGS, fresh_run, wake

CATALOG, LOG = small_catalog(), small_log()
NOW = int(LOG.time.max()) + 1
SHOWN = [(3, NOW - 2 * DAY, [4, 5, 6]), (3, NOW - DAY, [4, 7]), (3, NOW - 30 * DAY, [8]), (5, NOW - DAY, [9]), (3, NOW + 5, [1])]


def impressions(viewed: dict[int, int] | None = None) -> Impressions:
    """Three recent pages and an old one, and one page without slots."""
    pages = [*SHOWN, (2, NOW - DAY, [])]
    item = np.array([i for _, _, items in pages for i in items], np.int32)
    seen = np.full(len(item), -1, np.int8)
    for slot, value in (viewed or {}).items():
        seen[slot] = value
    sizes = [len(items) for _, _, items in pages]
    col = np.concatenate([np.arange(n) for n in sizes]).astype(np.int16)
    marks = np.random.default_rng(0).random((3, len(item))) < 0.5
    return Impressions(
        np.array([f"p{n}" for n in range(len(pages))]),
        np.array([user for user, _, _ in pages], np.int32),
        np.array([time for _, time, _ in pages], np.int64),
        np.array(["logging"] * len(pages)),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        item,
        np.zeros(len(item), np.int16),
        col,
        np.where(col > 0, 0.5, np.nan).astype(np.float32),
        seen,
        *marks,
        np.arange(len(item), dtype=np.float32),
        np.array([time + 5 for _, time, _ in pages], np.int64),
    )


def written(folder: Path, shown: Impressions, log: Interactions = LOG) -> tuple[Path, Path]:
    paths = folder / "pages.parquet", folder / "slots.parquet"
    for path, frame in zip(paths, (pages_frame(shown), slots_frame(shown)), strict=True):
        path.write_bytes(as_parquet(frame))
    return paths


def test_pages_come_back_as_they_were(tmp_path: Path) -> None:
    before = impressions()
    after = read_impressions(*written(tmp_path, before), LOG, len(CATALOG))
    for field in dataclasses.fields(Impressions):
        ours, theirs = getattr(before, field.name), getattr(after, field.name)
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype.kind == theirs.dtype.kind, field.name


def test_users_without_events_keep_their_ids(tmp_path: Path) -> None:
    log = dataclasses.replace(LOG, user_ids=np.append(LOG.user_ids, ["visitor", "zoe"]))
    for name, frame in (("users", users_frame(log)), ("events", events_frame(log))):
        (tmp_path / name).write_bytes(as_parquet(frame))
    after = read_events(tmp_path / "users", tmp_path / "events", len(CATALOG))
    for field in dataclasses.fields(Interactions):
        np.testing.assert_array_equal(getattr(log, field.name), getattr(after, field.name))


@pytest.mark.parametrize(("table", "column", "value"), [(1, "item", 40), (1, "item", -1), (0, "user", 60), (0, "slots", 3)])
def test_pages_that_do_not_fit_are_refused(tmp_path: Path, table: int, column: str, value: int) -> None:
    paths = written(tmp_path, impressions())
    frame = pl.read_parquet(paths[table])
    frame[0, column] = value + (1 if column == "slots" else 0)
    frame.write_parquet(paths[table])
    with pytest.raises(RunError, match="do not fit"):
        read_impressions(*paths, LOG, len(CATALOG))


def test_what_was_shown_lately_is_counted_once_a_showing() -> None:
    run = dataclasses.replace(fresh_run(CATALOG, LOG), impressions=impressions())
    assert sorted(recently_shown(run.impressions, 3, NOW, 7)) == [4, 4, 5, 6, 7]
    assert sorted(recently_shown(run.impressions, 3, NOW, 1)) == [4, 7]
    assert sorted(recently_shown(run.impressions, 3, NOW, 40)) == [4, 4, 5, 6, 7, 8]
    assert recently_shown(run.impressions, 3, NOW, 0).size == recently_shown(run.impressions, 1, NOW, 7).size == 0
    unseen = dataclasses.replace(run, impressions=impressions({0: 0}))
    assert sorted(recently_shown(unseen.impressions, 3, NOW, 7)) == [4, 5, 6, 7]


def test_a_capped_item_is_not_composed_again() -> None:
    layout = Layout.model_validate(
        {
            "id": "capped",
            "rows": [{"id": "picks", "capacity": 40}],
            "rules": {"frequency_cap": {"shown": 2, "days": 7}},
        }
    )
    run = dataclasses.replace(fresh_run(CATALOG, LOG), impressions=impressions())
    free = compose_for(run, user="u3", layout=Layout.single_row(40)).pages[0].items
    capped = compose_for(run, user="u3", layout=layout).pages[0].items
    assert set(free) - set(capped) == {4}, "the others were shown once at most"
    blind = compose_for(fresh_run(CATALOG, LOG), user="u3", layout=layout)
    assert any("nobody knows what was shown" in note for note in blind.notes)


def test_a_user_of_the_log_keeps_its_baskets() -> None:
    run = fresh_run(CATALOG, LOG)
    user = int(np.argmax(np.bincount(LOG.user)))
    context = make_context(run, str(LOG.user_ids[user]), (), None, NOW)[0]
    mine = LOG.user == user
    whole_day = dataclasses.replace(context, baskets=np.zeros(mine.sum(), np.int32))
    same = contexts_of([context]).log.basket
    assert (np.diff(same) != 0).tolist() == (np.diff(LOG.basket[mine]) != 0).tolist()
    assert len(set(contexts_of([whole_day]).log.basket)) == 1


def unfinished(folder: Path, config: RunConfig, shown: Impressions | None, reads: bool) -> Path:
    """A run folder with drawn weights, but for its manifest; `reads` says whether the networks have columns for the pages."""
    split, content = make_run_split(LOG, len(CATALOG), config), content_vectors(CATALOG, config.candidates.content_dims)
    save_inputs(folder, config, Log("shop", CATALOG, LOG, shown, None, "0" * 64), split, content)
    evidence = make_evidence(CATALOG, split, content, config, shown if reads else None)
    net = make_net(config, content, CATALOG, len(evidence.names))
    wake(net)
    save_policy(folder, net)
    return folder


READS = (*SETTINGS, "candidates.impressions=true")


def parts(composed: Composed) -> set[str]:
    return set().union(*(slot for page in composed.explained for slot in page.values()))


def test_a_run_on_pages_reads_them_for_whoever_asks(tmp_path: Path) -> None:
    folder = unfinished(tmp_path / "run", resolve("tiny", READS), impressions(), reads=True)
    finish(folder)
    run = load_run(folder)
    assert run.evidence.names[: len(NAMES)] == NAMES
    assert run.evidence.groups[-1] == IMPRESSIONS
    pool = np.arange(len(CATALOG), dtype=np.int32)[None]
    own = [k for k, name in enumerate(run.evidence.names) if name.startswith("own_")]
    for who, known in (({"user": "u3"}, True), ({"user": "stranger"}, False), ({"history": ["i4", "i9"]}, False)):
        composed = compose_for(run, explain=True, at=NOW, **who)  # type: ignore[arg-type]
        assert len(composed.pages[0].items) == 10
        assert IMPRESSIONS in parts(composed)
        read = run.evidence.features(contexts_of([composed.context]), pool)
        assert read[..., own].any() == known, who


def test_a_run_without_pages_or_without_a_past_reads_none(tmp_path: Path) -> None:
    plain = unfinished(tmp_path / "plain", resolve("tiny", READS), None, reads=True)
    mixed = unfinished(tmp_path / "mixed", resolve("tiny", [*READS, "split.protocol=last-out"]), impressions(), reads=True)
    for folder in (plain, mixed):
        finish(folder)
        run = load_run(folder)
        assert run.evidence.names == NAMES
        assert IMPRESSIONS not in run.facts["evidence"]
        assert IMPRESSIONS not in parts(compose_for(run, user="u3", explain=True))


def test_a_run_from_before_there_was_such_evidence_loads_with_its_own_columns(tmp_path: Path) -> None:
    folder = unfinished(tmp_path / "run", resolve("tiny", SETTINGS), impressions(), reads=False)
    facts = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps({name: value for name, value in facts.items() if name != "evidence"}))
    pl.read_parquet(folder / "pages.parquet").drop("settled").write_parquet(folder / "pages.parquet")
    finish(folder)
    run = load_run(folder)
    assert run.evidence.names == NAMES
    assert run.impressions is not None
    assert IMPRESSIONS not in parts(compose_for(run, user="u3", explain=True))


def test_pages_are_read_only_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = unfinished(tmp_path / "run", resolve("tiny", SETTINGS), impressions(), reads=False)
    finish(folder)
    run = load_run(folder)
    assert run.impressions is not None
    assert run.evidence.names == NAMES


def test_weights_with_other_columns_than_the_run_names_are_refused(tmp_path: Path) -> None:
    folder = unfinished(tmp_path / "run", resolve("tiny", READS), impressions(), reads=False)
    finish(folder)
    with pytest.raises(RunError, match="do not fit"):
        load_run(folder)


def test_some_of_the_pages_keep_their_slots() -> None:
    shown = impressions()
    keep = np.array([False, True, False, True, False, True])
    some = shown.where(keep)
    assert some.page_ids.tolist() == ["p1", "p3", "p5"]
    assert some.offsets.tolist() == [0, 2, 3, 3]
    assert some.item.tolist() == [4, 7, 9]
    assert some.settled.tolist() == shown.settled[keep].tolist()
    assert (some.clicked == shown.clicked[[3, 4, 6]]).all()
