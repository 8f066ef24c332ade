"""What a preference pair is, how many one user or item may bring, and pairs as a file.

A pair holds no text and no prompt: who asked, when, two pages as catalog indexes, and why one is better. Knows neither how pairs are
made nor who learns from them.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pagellm.catalog import Catalog
from pagellm.data.lots import draw_lots, first_by_lot
from pagellm.data.whole_files import write_bytes
from pagellm.errors import DataError
from pagellm.types import F32, I8, I16, I32, I64, NO_ITEM, U64, Bool, Contexts, Event


class Family(IntEnum):
    """Which defect the rejected page has. The first four compare whole pages, a swap two slots of one page."""

    RELEVANCE = 0
    RANKING = 1
    DIVERSITY = 2
    REDUNDANCY = 3
    SWAP = 4


class Operator(IntEnum):
    """What made the rejected page out of the chosen one."""

    POLICY = 0  # relevance: an engaged item gave way to one that the policy itself would show
    MATCHED = 1  # relevance: to one that the policy finds about as good as the engaged one
    CHANNEL = 2  # relevance: to any candidate of any channel
    FOREIGN = 3  # relevance: to what another user engaged with
    DOWN = 4  # ranking: engaged items changed places with worse ones further down
    THEME = 5  # diversity: other slots filled with items of one theme
    NEAR_DUPLICATE = 6  # redundancy: a slot filled with a near-duplicate of another slot's item
    REPEAT = 7  # redundancy: with the very item of another slot
    CONSUMED = 8  # redundancy: with an item of the user's own history
    EXCHANGE = 9  # swap: two slots exchanged their items
    ALIKE = 10  # redundancy: as NEAR_DUPLICATE, beside a page whose slots are filled with what is merely alike


class HeldOut(IntEnum):
    """Defects that rewards are judged on and never learn from: pairs files hold none of them."""

    FOREIGN_BLOCK = 32  # relevance: a block of the page filled with items of a theme that the user never took from
    FLOOD = 33  # relevance: engaged and other slots filled with the best-sellers of all time
    ROTATION = 34  # ranking: the rows, or the slots of a single one, turned round until engaged items stand worse
    BRAND_WALL = 35  # diversity: slots without engagement filled with one brand
    PARAPHRASE = 36  # redundancy: slots filled with what is alike in text to another slot and has another title


@dataclass(frozen=True, slots=True)
class Pairs:
    """Preference pairs. Pages are padded with NO_ITEM to the widest; chosen and rejected share their places."""

    user: I32  # [pair] index into the log's `user_ids`
    time: I64  # [pair] unix seconds; a context knows what is strictly older
    page: I64  # [pair] index of the logged page, -1 where the log has no pages
    chosen: I32  # [pair, slot] catalog indexes in reading order
    rejected: I32  # [pair, slot]
    row: I16  # [pair, slot] row on the page, from 0
    col: I16  # [pair, slot] column in the row, from 0
    family: I8  # [pair] code of `Family`
    operator: I8  # [pair] code of `Operator`, or of `HeldOut`
    severity: F32  # [pair] in (0, 1]: how bad the defect is, as the family measures it
    weight: F32  # [pair] how much the pair counts: inverse chance that its feedback was seen, clipped; of swaps |gain| · |examination|
    item: I32  # [pair] the engaged item that the pair rests on
    event: I8  # [pair] code of the `Event` behind it
    gain: F32  # [pair] engagement behind it
    offset: F32  # [pair] log of how much likelier the rejected items were drawn than the chosen ones, 0 where both were equally likely

    def __len__(self) -> int:
        return len(self.user)

    def take(self, places: np.ndarray) -> Pairs:
        """The pairs at these places, in this order."""
        return Pairs(*(getattr(self, f.name)[places] for f in fields(self)))

    def of(self, family: Family) -> Pairs:
        """The pairs of one family."""
        return self.take(np.flatnonzero(self.family == family))


def join_pairs(parts: Sequence[Pairs]) -> Pairs:
    """All pairs in one record, pages padded to the widest."""
    if not parts:
        return empty_pairs()
    width = max(part.chosen.shape[1] for part in parts)
    columns = []
    for field in fields(Pairs):
        arrays = [getattr(part, field.name) for part in parts]
        if arrays[0].ndim == 2:
            arrays = [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=NO_ITEM) for a in arrays]
        columns.append(np.concatenate(arrays))
    return Pairs(*columns)


def empty_pairs() -> Pairs:
    """No pairs."""
    one, page = np.empty(0, np.int64), np.empty((0, 1), np.int32)
    narrow, wide, small = one.astype(np.int8), one.astype(np.float32), page.astype(np.int16)
    return Pairs(
        one.astype(np.int32),
        one,
        one,
        page,
        page,
        small,
        small,
        narrow,
        narrow,
        wide,
        wide,
        one.astype(np.int32),
        narrow,
        wide,
        wide,
    )


def lots_of(pairs: Pairs, who: U64, seed: int) -> U64:
    """[pair] numbers that put pairs into an order of chance, from all that a pair says. `who` [user] are the keys of the users' ids.

    The same pair has the same lot whatever else was mined, so that caps leave the same pairs however a log is cut.
    """
    head = (pairs.family, pairs.operator, pairs.item, pairs.time, np.full(len(pairs), seed))
    numbers = np.stack([who[pairs.user], *(column.astype(np.uint64) for column in head)], 1)
    pages = [draw_lots(page.astype(np.uint64), ends=np.uint64(2**64 - 1)) for page in (pairs.chosen, pairs.rejected)]
    return draw_lots(np.concatenate((numbers, np.stack(pages, 1)), 1))


def capped(pairs: Pairs, per_user: int, per_item: int, lots: U64) -> Bool:
    """[pair] True for those that stay when no user and no engaged item may bring more pairs of a family than these numbers.

    Whoever writes a thousand false events gets no more say than a regular. Those with the lowest lots stay: first of each user, then of
    what is left of each item.
    """
    out = np.zeros(len(pairs), bool)
    kept = np.flatnonzero(first_by_lot(user_keys(pairs), lots, per_user))
    out[kept[first_by_lot(item_keys(pairs)[kept], lots[kept], per_item)]] = True
    return out


def user_keys(pairs: Pairs) -> I64:
    """[pair] equal for pairs of one family and user."""
    return pairs.family.astype(np.int64) << 32 | pairs.user


def item_keys(pairs: Pairs) -> I64:
    """[pair] equal for pairs of one family that rest on one item."""
    return pairs.family.astype(np.int64) << 32 | pairs.item


def effective_size(weight: F32) -> float:
    """How many equal pairs would say as much: (sum of weights)^2 / sum of squares (Kish 1965)."""
    squares = float((weight.astype(np.float64) ** 2).sum())
    return float(weight.astype(np.float64).sum()) ** 2 / squares if squares else 0.0


def write_pairs(
    path: Path,
    pairs: Pairs,
    catalog: Catalog,
    user_ids: np.ndarray,
    page_ids: np.ndarray | None = None,
    notes: dict[str, str] | None = None,
) -> None:
    """Parquet with ids in the place of indexes, one row a pair: readable without the run, and by any tool.

    `notes` go into the file's metadata. The file appears whole or not at all.
    """
    table, buffer = pair_table(pairs, catalog, user_ids, page_ids), io.BytesIO()
    table.write_parquet(buffer, compression="zstd", metadata=notes_as_metadata(notes or {}))
    write_bytes(path, buffer.getvalue())


def notes_as_metadata(notes: dict[str, str]) -> dict[str, str]:
    """Notes under the names that `pairs_notes` looks for."""
    return {f"pagellm.{key}": value for key, value in notes.items()}


def pair_table(pairs: Pairs, catalog: Catalog, user_ids: np.ndarray, page_ids: np.ndarray | None = None) -> pl.DataFrame:
    """[pair] the table of a pairs file."""
    ids, real = pl.Series(catalog.item_ids.tolist(), dtype=pl.String), pairs.chosen != NO_ITEM
    pair = np.nonzero(real)[0]
    return pl.DataFrame(
        {
            "user_id": user_ids[pairs.user].tolist(),
            "time": pairs.time,
            "page_id": [None if page_ids is None or p < 0 else str(page_ids[p]) for p in pairs.page],
            "family": [Family(f).name.lower() for f in pairs.family],
            "operator": [Operator(o).name.lower() for o in pairs.operator],
            "chosen": _lists(ids[pairs.chosen[real]], pair),
            "rejected": _lists(ids[pairs.rejected[real]], pair),
            "row": _lists(pairs.row[real], pair),
            "col": _lists(pairs.col[real], pair),
            "severity": pairs.severity,
            "weight": pairs.weight,
            "item_id": ids[pairs.item],
            "event": [Event(e).name.lower() for e in pairs.event],
            "gain": pairs.gain,
            "offset": pairs.offset,
        },
        schema_overrides=_KINDS,
    )


def read_pairs(path: Path, catalog: Catalog, user_ids: np.ndarray, page_ids: np.ndarray | None = None) -> Pairs:
    """The pairs of a file, on this catalog, these users and these logged pages.

    Raises DataError where the file is no table of pairs, or names items, users or pages that are not there.
    """
    frame = pairs_frame(path)
    users = _find(frame["user_id"], user_ids, "User", path)
    logged = frame["page_id"].is_not_null().to_numpy()
    pages = np.full(len(frame), -1, np.int64)
    pages[logged] = _find(frame["page_id"].drop_nulls(), () if page_ids is None else page_ids, "Page", path)
    lengths = frame["chosen"].list.len().to_numpy().astype(np.int64)
    width = max(int(lengths.max(initial=1)), 1)

    def filled(column: str, kind: type) -> np.ndarray:
        out: np.ndarray = np.full((len(frame), width), NO_ITEM, kind)
        flat = frame[column].explode(empty_as_null=False).to_list() if len(frame) else []
        values = catalog.indexes(flat) if column in ("chosen", "rejected") else np.array(flat, kind)
        out[np.arange(width) < lengths[:, None]] = values
        return out

    return Pairs(
        users.astype(np.int32),
        frame["time"].to_numpy().astype(np.int64),
        pages,
        filled("chosen", np.int32),
        filled("rejected", np.int32),
        filled("row", np.int16),
        filled("col", np.int16),
        np.array([Family[f.upper()] for f in frame["family"]], np.int8),
        np.array([Operator[o.upper()] for o in frame["operator"]], np.int8),
        frame["severity"].to_numpy().astype(np.float32),
        frame["weight"].to_numpy().astype(np.float32),
        catalog.indexes(frame["item_id"].to_list()),
        np.array([Event[e.upper()] for e in frame["event"]], np.int8),
        frame["gain"].to_numpy().astype(np.float32),
        frame["offset"].to_numpy().astype(np.float32),
    )


_TEXT, _PAGE, _PLACES = pl.String(), pl.List(pl.String), pl.List(pl.Int16)
_KINDS: dict[str, pl.DataType] = {
    **dict.fromkeys(("user_id", "page_id", "family", "operator", "item_id", "event"), _TEXT),
    **dict.fromkeys(("chosen", "rejected"), _PAGE),
    **dict.fromkeys(("row", "col"), _PLACES),
    "time": pl.Int64(),
    **dict.fromkeys(("severity", "weight", "gain", "offset"), pl.Float32()),
}
"""Types of the columns of a pairs file; numbers may be of any width."""

COLUMNS = tuple(_KINDS)


def pairs_frame(path: Path) -> pl.DataFrame:
    """The table of a pairs file, checked for its columns and for pages of equal length. Raises DataError."""
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as problem:
        raise DataError(f"The file {path} cannot be read as Parquet ({problem}). Make it with: pagellm pairs mine") from problem
    lacking = [name for name in COLUMNS if name not in frame.columns]
    if lacking:
        raise DataError(f"The file {path} has no column {lacking[0]!r}, so it holds no pairs. Make it with: pagellm pairs mine")
    odd = [
        n for n in COLUMNS if not frame.schema[n].is_(_KINDS[n]) and not (_KINDS[n].is_numeric() and frame.schema[n].is_numeric())
    ]
    if odd:
        raise DataError(
            f"Column {odd[0]!r} of {path} must be {_KINDS[odd[0]]}. Got {frame.schema[odd[0]]}. Mine the pairs again."
        )
    gaps = [name for name in COLUMNS if name != "page_id" and frame[name].null_count()]
    if gaps:
        raise DataError(f"Column {gaps[0]!r} of {path} misses {frame[gaps[0]].null_count():,} values. Mine the pairs again.")
    known = {
        "family": [f.name.lower() for f in Family],
        "operator": [o.name.lower() for o in Operator],
        "event": [e.name.lower() for e in Event],
    }
    for name, values in known.items():
        strange = frame.filter(~pl.col(name).is_in(values))
        if len(strange):
            raise DataError(f"The file {path} names {name} {strange[name][0]!r}. Known are: {', '.join(values)}.")
    uneven = frame.filter(
        pl.any_horizontal(pl.col(c).list.len() != pl.col("chosen").list.len() for c in ("rejected", "row", "col"))
    )
    if len(uneven):
        raise DataError(f"In {path} {len(uneven):,} pairs have pages of unequal length. Mine the pairs again.")
    return frame


def pairs_notes(path: Path) -> dict[str, str]:
    """What `write_pairs` noted in a file's metadata."""
    try:
        found = pl.read_parquet_metadata(path)
    except (pl.exceptions.PolarsError, OSError) as problem:
        raise DataError(f"The file {path} cannot be read as Parquet ({problem}). Make it with: pagellm pairs mine") from problem
    return {key.removeprefix("pagellm."): value for key, value in found.items() if key.startswith("pagellm.")}


def preference_rows(pairs: Pairs, contexts: Contexts, catalog: Catalog, newest: int = 20) -> Iterator[dict[str, Any]]:
    """The pairs in the form that preference trainers read: prompt, chosen, rejected, margin (TRL's "explicit prompt" form).

    `contexts` are those of the pairs, one each; the prompt tells the titles of their `newest` last items. Titles are cleaned as everywhere
    and stand one a line: text like any other, never an instruction to whoever reads it as one.
    """
    titles = catalog.titles

    def listed(items: I32) -> str:
        return "".join(f"- {titles[item]}\n" for item in items if item != NO_ITEM)

    for place in range(len(pairs)):
        yield {
            "prompt": f"History:\n{listed(contexts.history(place)[-newest:])}Page:\n",
            "chosen": listed(pairs.chosen[place]),
            "rejected": listed(pairs.rejected[place]),
            "margin": float(pairs.severity[place]),
        }


def _find(names: pl.Series, known: Iterable[object], kind: str, path: Path) -> I64:
    """[name] places of the names among the known ones. Raises DataError for one that is not there."""
    places = {str(name): place for place, name in enumerate(known)}
    found = [places.get(name, -1) for name in names.to_list()]
    if -1 in found:
        raise DataError(
            f"{kind} {str(names[found.index(-1)])[:60]!r} of {path} is not in the log. Mine the pairs from this log again."
        )
    return np.array(found, np.int64)


def _lists(values: pl.Series | np.ndarray, pair: I64) -> pl.Series:
    """[pair] the values [filled slot] of each page as a list, from the pair of each, rising; no page is without one."""
    flat = pl.DataFrame({"pair": pair, "value": values})
    return flat.group_by("pair", maintain_order=True).agg("value")["value"]
