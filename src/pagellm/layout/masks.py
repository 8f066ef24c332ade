"""Which items may follow, for a batch of pages written slot by slot. Candidates in, masks out; the caller chooses.

    masks = PageMasks(rules, candidates)
    while not masks.done.all():
        if masks.between.any():
            masks.place_row(choose(masks.rows_allowed()))
        masks.place(choose(masks.allowed()))
    pages = masks.pages()

A page that is written inside the masks is one that `validator` accepts, and each page that it accepts can be written.
Knows no probabilities, no torch.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from pagellm.layout.compiled import CompiledLayout
from pagellm.layout.outlook import Outlook
from pagellm.layout.state import NONE, PageState
from pagellm.types import F32, F64, I32, I64, NO_ITEM, Bool, Origin, Page, Slot

_SOFT_LEVELS = ((False, True), (True, False), (False, False))
"""What gives way in a slot that would stay empty, in this order: (frequency cap holds, dedup holds)."""


class PageMasks:
    """The state of a batch of pages under one compiled layout."""

    def __init__(
        self, rules: CompiledLayout, candidates: I32 | I64, exclude: Bool | None = None, shown: I32 | None = None
    ) -> None:
        """Starts a batch.

        Args:
            rules: of `compile_layout`.
            candidates: [page, candidate] catalog indexes, NO_ITEM pads; `rules.required_items` are among them.
            exclude: [page, candidate] items that this page may not hold.
            shown: [page, candidate] impressions of the item by the page's user in the days of the frequency cap.

        Raises UsageError for a pool without a required item.
        """
        self.rules = rules
        self._pool = candidates.shape[1]
        if not self._pool:  # a pool of nothing is a pool of padding
            candidates, exclude, shown = np.full((len(candidates), 1), NO_ITEM, np.int32), None, None
        self.state = PageState(rules, candidates, exclude, shown)
        self.outlook = Outlook(self.state) if rules.needs else None
        self._notes: list[list[str]] = [list(rules.notes) for _ in range(len(candidates))]
        self._allowed: Bool | None = None  # of the current slots, until the next move
        self._note_pins()
        self._start_fixed_rows()

    # Where the pages stand

    @property
    def bias(self) -> F32:
        """Boost and bury as an addition to the logits, log scale. Shape [page, candidate]."""
        return np.where(self.state.items >= 0, self.rules.bias[self.state.items], np.float32(0))[:, : self._pool]

    @property
    def done(self) -> Bool:
        """Whether all slots of a page have been passed. Shape [page]."""
        return self.state.done

    @property
    def between(self) -> Bool:
        """Whether a page waits for `place_row`. Shape [page]."""
        return self.state.between

    @property
    def slot(self) -> tuple[I64, I64]:
        """Row on the page and column of the current slots, both from 0. Shapes [page]; meaningless where between or done."""
        return self.state.number, self.state.col

    @property
    def layout_row(self) -> I64:
        """Layout row of the current slots, -1 where between or done. Shape [page]."""
        return self.state.row

    # Rows

    def rows_allowed(self) -> Bool:
        """Layout rows that may come next; all False for pages inside a row or done. Shape [page, layout_row]."""
        state = self.state
        ahead = ~state.standing
        required = (ahead & ~self.rules.optional).sum(1)
        open_ = ahead & (~self.rules.optional | (state.left > required)[:, None]) & state.between[:, None]
        return self.outlook.keep_rows(open_) if self.outlook is not None else open_

    def place_row(self, row: I64) -> None:
        """Starts this layout row on each page that is between rows; -1 lets the page wait. Shape [page]."""
        pages = np.flatnonzero(self.state.between & (row >= 0))
        bad = ~self.rows_allowed()[pages, row[pages]]
        if bad.any():
            raise ValueError(f"Page {pages[bad][0]} cannot go on with row {row[pages[bad][0]]}. Choose among rows_allowed().")
        self._start_rows(pages, row[pages])

    def _start_fixed_rows(self) -> None:
        if self.rules.layout.order == "fixed":
            pages = np.flatnonzero(self.state.between)
            self._start_rows(pages, self.state.number[pages] + 1)

    def _start_rows(self, pages: I64, rows: I64) -> None:
        if len(pages):
            self.state.start_row(pages, rows)
            self._allowed = None
            if self.outlook is not None:
                self.outlook.rows_started(pages)

    # Slots

    def allowed(self) -> Bool:
        """Candidates for the current slot of each page; a page with none leaves the slot empty. Shape [page, candidate]."""
        return self._marks()[:, : self._pool]

    def _marks(self) -> Bool:
        if self._allowed is None:
            self._allowed = self._compute_allowed()
        return self._allowed

    def _compute_allowed(self) -> Bool:
        state, pinned = self.state, self.state.pin_here()
        free = (state.row != NONE) & (pinned == NONE)
        allowed = self._keep(state.open() & free[:, None])
        for fresh, unique in self._levels():
            stuck = free & ~allowed.any(1)
            if not stuck.any():
                break
            allowed |= self._keep(state.open(fresh, unique) & stuck[:, None])
        allowed[np.flatnonzero(pinned != NONE), pinned[pinned != NONE]] = True
        return allowed

    def _keep(self, open_: Bool) -> Bool:
        return self.outlook.keep(open_) if self.outlook is not None else open_

    def _levels(self) -> list[tuple[bool, bool]]:
        frequency = self.rules.frequency is not None and self.rules.frequency.soft
        dedup = any(cap.soft for cap in self.rules.caps)
        return [(fresh, unique) for fresh, unique in _SOFT_LEVELS if (fresh or frequency) and (unique or dedup)]

    def place(self, choice: I64, strict: bool = True) -> None:
        """Puts a candidate into the current slot of each page and moves to the next slot. Shape [page].

        -1 leaves a slot empty, as it must where nothing is allowed; entries of pages that are between rows or done are ignored.
        With `strict=False` a choice outside the mask is put as well, to score a page that was written elsewhere.
        Raises ValueError for a choice outside the mask.
        """
        choice = np.where(self.state.row == NONE, NONE, choice).astype(np.int64)
        allowed = self._marks()
        if strict:
            self._check(choice, allowed)
        self._note_slot(choice)
        if self.outlook is not None:
            self.outlook.put(choice)
        else:
            self.state.put(choice)
        self._allowed = None
        self._start_fixed_rows()
        if self.rules.trivial and self.state.unique and (self.state.row != NONE).all():
            taken = np.flatnonzero(choice != NONE)  # nothing else is lost, so there is no need to look again
            allowed[taken, choice[taken]] = False
            self._allowed = allowed

    def place_rest(self, choices: I64) -> None:
        """Fills the rest of each page at once, under trivial rules only. Shape [page, slot], -1 once a page's candidates are used up.

        Raises ValueError for a choice outside the mask and for one that comes twice.
        """
        allowed, real = self._marks(), choices != NONE
        ordered = np.sort(np.where(real, choices, -1 - np.arange(choices.shape[1])), axis=1)
        good = np.take_along_axis(allowed, np.maximum(choices, 0), 1) | ~real
        if not self.rules.trivial or not good.all() or (ordered[:, 1:] == ordered[:, :-1]).any():
            raise ValueError("The rest of a page takes different allowed candidates, and no rules. Use place() slot by slot.")
        if real.all():
            self.state.put_rest(choices)
        else:  # an empty slot is noted together with what stood before it
            for choice in choices.T:
                self._note_slot(choice)
                self.state.put(choice)
                self._start_fixed_rows()
        self._allowed = None

    def _check(self, choice: I64, allowed: Bool) -> None:
        good, empty = allowed[np.arange(len(choice)), choice], choice == NONE
        if empty.any():
            good = np.where(empty, ~allowed.any(1), good)
        if not good.all():
            page = int(np.flatnonzero(~good)[0])
            raise ValueError(
                f"Candidate {choice[page]} is not allowed in slot {self._slot_id(page)} of page {page}. "
                "Choose one that allowed() marks, or -1 where it marks none."
            )

    # What was written

    @property
    def items(self) -> I64:
        """Catalog indexes in reading order, NO_ITEM where a slot is empty or not reached. Shape [page, slot]."""
        picked = np.take_along_axis(self.state.items, np.maximum(self.state.chosen, 0), 1)
        return np.where(self.state.chosen == NONE, NO_ITEM, picked)

    def pages(self, logprobs: F64 | None = None, scores: NDArray[np.floating] | None = None) -> list[Page]:
        """The finished pages; `logprobs` and `scores` [page, slot] go into their slots."""
        return [
            self._page(page, None if logprobs is None else logprobs[page], None if scores is None else scores[page])
            for page in range(len(self.state.items))
        ]

    def _page(self, page: int, logprobs: F64 | None, scores: NDArray[np.floating] | None) -> Page:
        state = self.state
        slots: list[Slot] = []
        for number, row in enumerate(state.rows[page]):
            for col in range(self.rules.capacity[row] if row != NONE else 0):
                place = len(slots)
                item = state.slot_item(page, place)
                pinned = item != NO_ITEM and state.pinned[page, row, col] == state.chosen[page, place]
                origin = self.rules.origin(item, pinned) if item != NO_ITEM else Origin.ORGANIC
                nan = float("nan")
                logprob = nan if logprobs is None or item == NO_ITEM else float(logprobs[place])
                score = nan if scores is None or item == NO_ITEM else float(scores[place])
                slots.append(Slot(number, col, item, origin, logprob, score))
        names = tuple(self.rules.layout.rows[row].id for row in state.rows[page] if row != NONE)
        return Page(self.rules.layout.id, names, tuple(slots), tuple(self.reasons(page)))

    def reasons(self, page: int) -> list[str]:
        """Notes of one page: pins and soft rules that gave way, needs that could not be met, why slots stayed empty."""
        ahead = self.outlook.notes[page] if self.outlook is not None else []
        return [*dict.fromkeys([*ahead, *self._notes[page]])]

    # Reasons

    def _note_pins(self) -> None:
        for pin in self.rules.pins:
            for page in np.flatnonzero(self.state.pinned[:, pin.row, pin.col] == NONE):
                self._notes[page].append(f"{pin.name} gives way: the item is excluded for this context")

    def _note_slot(self, choice: I64) -> None:
        state = self.state
        for page in np.flatnonzero((state.row != NONE) & (choice == NONE)).tolist():
            self._notes[page].append(f"{self._slot_id(page)}: {self._why_empty(page)}")
        if self._levels():
            bent = (state.row != NONE) & (choice != NONE) & (state.pin_here() == NONE)
            bent &= ~state.open()[np.arange(len(choice)), choice]
            for page in np.flatnonzero(bent).tolist():
                names = " and ".join(self._gave_way(page, int(choice[page])))
                self._notes[page].append(f"{self._slot_id(page)}: {names} gave way, the slot would have stayed empty")

    def _slot_id(self, page: int) -> str:
        return f"r{self.state.number[page]}c{self.state.col[page]}"

    def _gave_way(self, page: int, pick: int) -> list[str]:
        state, rules = self.state, self.rules
        names = []
        if rules.frequency is not None and rules.frequency.soft and state.fresh_on[page] and not state.fresh[page, pick]:
            names.append(rules.frequency.name)
        for place, cap in enumerate(rules.caps):
            full = state.count[page, place, pick] >= state.limits[state.row[page], place]
            if cap.soft and full and state.cap_on[page, place]:
                names.append(cap.name)
        return names

    def _why_empty(self, page: int) -> str:
        """Counts the candidates by the first rule, in order of precedence, that keeps them out."""
        state, rules, items = self.state, self.rules, self.state.items[page]
        row = int(state.row[page])
        left = items >= 0
        total = int(left.sum())
        if not total:
            return "no candidate was given"
        tests: list[tuple[str, Bool]] = [
            ("hidden or excluded", ~rules.eligible[items]),
            ("a repeat in the pool", state.again[page]),
            ("excluded for this context", ~state.base[page]),
            ("already on the page", state.used[page]),
            (f"outside {rules.layout.rows[row].source.words}", ~state.row_fill[page]),
        ]
        if rules.ad_slots.any():
            ad = bool(rules.ad_slots[row, state.col[page]])
            tests.append(("not sponsored" if ad else "sponsored, for ad slots only", rules.sponsored[items] != ad))
        for place, cap in enumerate(rules.caps):
            tests.append((f"held back by {cap.name}", state.count[page, place] >= state.limits[row, place]))
        if rules.frequency is not None:
            tests.append((f"held back by {rules.frequency.name}", ~state.fresh[page]))
        tests.append(("kept out so that a minimum rule can be met", np.ones_like(left)))
        counts: Counter[str] = Counter()
        for words, out in tests:
            if not left.any():
                break
            counts[words] += int((left & out).sum())
            left = left & ~out
        return f"of {total:,} candidates " + ", ".join(f"{n:,} {words}" for words, n in counts.items() if n)
