"""What is handed back: every figure with what it rests on, as JSON. Knows no way to get there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pagellm.evaluation.ope.judging import Judgement


@dataclass(frozen=True)
class OffPolicy:
    """A policy judged from a log that another policy wrote."""

    facts: dict[str, object]  # who was judged on what
    judgement: Judgement
    estimated: bool  # whether any propensity was estimated
    notes: tuple[str, ...] = ()  # what was left out, how things were read
    truth: dict[str, object] = field(default_factory=dict)  # what the evaluation policy's own log says, where there is one

    @property
    def words(self) -> tuple[str, ...]:
        """The notes, and a warning where propensities were estimated."""
        flag = (
            "propensities were estimated from the log itself: every figure assumes that the logging policy ignored who asked",
        )
        return (*self.notes, *(flag if self.estimated else ()))

    def as_json(self) -> dict[str, Any]:
        """The form of `pagellm ope --json`."""
        head = {**self.facts, "estimated_propensities": self.estimated, "notes": list(self.words)}
        return head | self.judgement.as_json() | ({"own_log": self.truth} if self.truth else {})
