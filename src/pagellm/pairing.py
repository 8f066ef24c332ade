"""Pairs from a shop or a run, and back from their file: what `pagellm pairs` does, without the command line.

Takes folders and files, gives pairs. Knows no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pagellm.catalog import Catalog
from pagellm.config import RunConfig, adjust, resolve
from pagellm.data.bucket_reader import bucket_count, read_buckets
from pagellm.data.content import content_vectors
from pagellm.data.contexts import ALWAYS, contexts_at, cut_time
from pagellm.data.findings import rejected_lines
from pagellm.data.likeness import likeness_of
from pagellm.data.preferences.mining import MiningReport
from pagellm.data.preferences.pair_parts import PairParts
from pagellm.data.preferences.pairs import Family, Pairs, pairs_notes, preference_rows, read_pairs, write_pairs
from pagellm.data.quarantine import Quarantine
from pagellm.data.readers import read_log
from pagellm.errors import DataError, UsageError
from pagellm.models.run import load_run, make_evidence, make_run_split
from pagellm.models.threads import set_threads
from pagellm.training.bucket_pairs import mine_buckets
from pagellm.training.pair_sources import PairSource, channel_candidates, known_since, mine_source, policy_candidates
from pagellm.types import F32, I64, Impressions, Interactions


@dataclass(frozen=True)
class Window:
    """Shares of the log's events between which feedback is mined; None for what is usual."""

    first: float | None = None
    last: float | None = None

    def shares(self, learned: float) -> tuple[float, float]:
        """(first, last). Without a policy .7 to .8, with one the tenth that follows what it has learned from.

        Raises UsageError for a window that is empty, or in which the policy already knows the answers.
        """
        first = self.first if self.first is not None else learned or 0.7
        last = self.last if self.last is not None else min(first + 0.1, 1.0)
        if not 0 <= first < last <= 1:
            raise UsageError(
                f"The window must satisfy 0 <= from < to <= 1. Got {first:g} and {last:g}. Name another --from or --to; a run that has "
                "learned from all of its log leaves nothing to mine."
            )
        if first < learned and (learned == 1 or first < 0.1):
            raise UsageError(
                f"The run's policy has learned from the first {learned:.0%} of the events, so it knows the answers of a window that "
                f"begins at {first:.0%}. Train one that stops earlier: --set sft.refresh=test and earlier cuts of the split"
            )
        if first < learned:
            raise UsageError(
                f"The run's policy has learned from the first {learned:.0%} of the events, so it knows the answers of a window that "
                f"begins at {first:.0%}. Begin at {learned:g}, or train a run that stops earlier, for instance with "
                f"--set split.valid_at={first * 7 / 8:.2f} --set split.test_at={first:g}"
            )
        return first, last


@dataclass(frozen=True)
class Shop:
    """What mining takes from a data folder or a run."""

    catalog: Catalog
    log: Interactions
    impressions: Impressions | None
    content: F32  # [item, dim]
    candidates: Callable[..., Any]
    since: I64  # [item] unix seconds, see `known_since`
    config: RunConfig  # the run's, or the defaults
    fingerprint: str  # of the data
    learned: float  # share of the events that the policy has learned from, 0 without one


def open_shop(source: Path, tell: Callable[[str], None] = print) -> Shop:
    """A run with its policy, or a data folder with its channels."""
    if (source / "config.json").exists():
        run = load_run(source)
        set_threads(run.config)
        if not run.split.point_in_time:
            raise UsageError(
                f"The run {source} was split by {run.split.protocol}, which does not part past and future, so its policy knows every "
                "window. Mine from a run with split.protocol=temporal, or from the data folder."
            )
        cuts = run.config.split
        learned = 1.0 if run.config.sft.refresh == "end" else cuts.reward_at or cuts.test_at
        since, known = known_since(run.split.log, run.impressions, run.catalog), str(run.facts["fingerprint"])
        candidates = policy_candidates(run, since)
        return Shop(run.catalog, run.split.log, run.impressions, run.content, candidates, since, run.config, known, learned)
    data, config = read_log(source, tell=tell), resolve("small")
    set_threads(config)
    content = content_vectors(data.catalog, config.candidates.content_dims)
    split = make_run_split(data.interactions, len(data.catalog), config)
    since = known_since(data.interactions, data.impressions, data.catalog)
    candidates = channel_candidates(make_evidence(data.catalog, split, content, config), data.catalog, config, since)
    return Shop(data.catalog, data.interactions, data.impressions, content, candidates, since, config, data.fingerprint, 0.0)


def mine_pairs(
    folder: Path, out: Path, settings: Sequence[str], window: Window, seed: int, tell: Callable[[str], None] = print
) -> MiningReport:
    """Mines preference pairs from a run or a data folder into a Parquet file.

    With a run the policy itself brings the hard negatives, so the window must lie after all that the policy has learned from.
    Raises UsageError for a window that cannot be, DataError where it holds nothing to mine.
    """
    _check_call(out, settings)
    shop = open_shop(folder, tell)
    config = adjust(shop.config, settings).pairs
    first, last = window.shares(shop.learned)
    begin, end = cut_time(shop.log, first), cut_time(shop.log, last) if last < 1 else ALWAYS
    _tell_window(first, last, tell)
    source = PairSource(shop.log, shop.impressions, shop.candidates, begin, end, shop.since)
    likeness = likeness_of(shop.catalog, shop.content, config.alike)
    pairs, report, _ = mine_source(source, likeness, config, seed, shop.config.split.repeats)
    page_ids = None if shop.impressions is None else shop.impressions.page_ids
    write_pairs(out, pairs, shop.catalog, shop.log.user_ids, page_ids, {"source": str(folder), "data": shop.fingerprint})
    return report


def mine_large(
    folder: Path,
    out: Path,
    settings: Sequence[str],
    window: Window,
    seed: int,
    disk: Disk,
    tell: Callable[[str], None] = print,
) -> MiningReport:
    """As `mine_pairs` from a data folder of logged pages, with the log in buckets on disk, so that memory does not follow its length.

    In a log of up to `EVIDENCE_EVENTS` events the pairs are those of `mine_pairs`; in a longer one candidates are drawn by the popularity
    and co-occurrence of a sample of users. Raises UsageError for a window that cannot be or a folder that cannot be written, DataError
    where the log cannot be accepted or holds nothing to mine.
    """
    _check_call(out, settings)
    if (folder / "config.json").exists():
        raise UsageError(f"{folder} is a run. Large logs are mined without a policy: name a data folder, or leave --large out.")
    config = resolve("small", settings)
    set_threads(config)
    first, last = window.shares(0.0)
    with disk.scratch(out) as scratch:
        tell("Reading the log into buckets of users")
        with Quarantine(disk.quarantine) as store:
            buckets = read_buckets(folder, scratch, disk.buckets or bucket_count(folder), store)
            for file in store.files.values():
                tell(f"{file.file}: {file.rows:,} rows, {file.accepted:,} accepted, {file.quarantined:,} quarantined")
            for line in rejected_lines(store.files.values()):
                tell(line)
        begin, end = buckets.cut_time(first), buckets.cut_time(last) if last < 1 else ALWAYS
        _tell_window(first, last, tell)
        content = content_vectors(buckets.catalog, config.candidates.content_dims)
        likeness = likeness_of(buckets.catalog, content, config.pairs.alike)
        parts = PairParts(scratch, buckets.catalog, buckets.count, config.pairs.per_user, config.pairs.per_item, seed)
        report = mine_buckets(buckets, (begin, end), content, likeness, config, seed, parts)
        buckets.close()
        parts.write(out, {"source": str(folder)}, report)
    return report


@dataclass(frozen=True)
class Disk:
    """Where a large log is kept while it is mined."""

    folder: Path | None = None  # for the buckets; beside the output where None
    buckets: int | None = None  # a power of two; by the size of the log where None
    quarantine: Path | None = None  # where bad rows are written

    @contextmanager
    def scratch(self, out: Path) -> Iterator[Path]:
        """An empty folder that is gone afterwards. Raises UsageError where none can be made."""
        if self.buckets is not None and (self.buckets < 1 or self.buckets & (self.buckets - 1)):
            raise UsageError(f"The number of buckets must be a power of two. Got {self.buckets}. Example: --buckets 64")
        place = self.folder or out.absolute().parent
        try:
            made = TemporaryDirectory(prefix=".pagellm-buckets-", dir=place)
        except OSError as problem:
            raise UsageError(
                f"No folder for the buckets of the log can be made in {place} ({problem.strerror}). Name one that can be written: "
                "--scratch FOLDER"
            ) from problem
        with made as name:
            yield Path(name)


def _check_call(out: Path, settings: Sequence[str]) -> None:
    """A mistake is told before anything is read."""
    foreign = [text for text in settings if not text.strip().startswith("pairs.")]
    if foreign:
        raise UsageError(f"Mining takes settings of pairs alone. Got {foreign[0]!r}. Example: --set pairs.slots=20")
    resolve("small", settings)
    if not out.absolute().parent.is_dir():
        raise UsageError(f"The folder {out.absolute().parent} for --out is not there. Create it, or name another file.")


def _tell_window(first: float, last: float, tell: Callable[[str], None]) -> None:
    tell(f"Mining feedback between {first:.0%} and {last:.0%} of the events")
    if last > 0.9:
        tell("These events are the test part of the default split: whoever learns from their pairs cannot be judged on it.")


@dataclass(frozen=True)
class OpenedPairs:
    """Pairs of a file, with what is needed to show them."""

    pairs: Pairs
    catalog: Catalog
    log: Interactions

    def draw(self, n: int, seed: int) -> I64:
        """Places of n drawn pairs, in the file's order."""
        size = len(self.pairs)
        return np.sort(np.random.default_rng(seed).choice(size, min(n, size), replace=False))

    def rows(self) -> Iterator[dict[str, Any]]:
        """The pairs as texts for preference trainers."""
        contexts = contexts_at(self.log, self.pairs.user, self.pairs.time)
        return preference_rows(self.pairs, contexts, self.catalog)


def open_pairs(file: Path, source: Path | None, family: str | None) -> OpenedPairs:
    """The pairs of a file, of one family or all, on the shop or run that they were mined from.

    Raises DataError where file and shop do not fit, UsageError for an unknown family.
    """
    names = [f.name.lower() for f in Family]
    if family is not None and family not in names:
        raise UsageError(f"The family must be one of {', '.join(names)}. Got {family!r}.")
    notes = pairs_notes(file)
    noted = notes.get("source")
    own = file.parent if (file.parent / "config.json").exists() else None  # a run keeps its own pairs
    folder = source or (Path(noted) if noted else own)
    if folder is None or not folder.is_dir():
        raise DataError(
            f"The folder from which {file} was mined ({noted[:100] if noted else 'not noted in it'}) is not here. "
            "Name the data folder or run with --source."
        )
    if (folder / "config.json").exists():
        run = load_run(folder)
        catalog, log, shown, known = run.catalog, run.split.log, run.impressions, str(run.facts["fingerprint"])
    else:
        data = read_log(folder)
        catalog, log, shown, known = data.catalog, data.interactions, data.impressions, data.fingerprint
    if notes.get("data", known) != known:
        raise DataError(
            f"The pairs of {file} were mined from data with fingerprint {notes['data'][:12]}…, and {folder} has {known[:12]}…. "
            "Name the data folder or run that they come from with --source, or mine them again."
        )
    pairs = read_pairs(file, catalog, log.user_ids, None if shown is None else shown.page_ids)
    pairs = pairs if family is None else pairs.of(Family[family.upper()])
    if not len(pairs):
        raise DataError(f"The file {file} holds no pair{f' of family {family}' if family else ''}. Mine with a wider window.")
    return OpenedPairs(pairs, catalog, log)
