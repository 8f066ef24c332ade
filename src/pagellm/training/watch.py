"""The watch over a training: which policy is kept, whether to stop, and what to say at the end. Takes statistics and sightings.

Kept is the latest policy whose page value is not below the best by more than a standard error (after the rule of Breiman et al. 1984):
where held-out users cannot tell two policies apart, the learned reward speaks for the later one. Knows no network: the caller keeps the
weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pagellm.config import PPOConfig
from pagellm.training.canary import Sighting
from pagellm.training.ppo import Stats

_SURE = 1.96  # standard errors that a difference has to be away from none


@dataclass
class Watch:
    """What was seen so far."""

    config: PPOConfig
    curve: list[Sighting] = field(default_factory=list)
    best: int = 0  # place in the curve of the policy that is kept
    skipped: int = 0  # updates left out
    stopped: str = ""  # why, in words; empty while it goes on
    broken: bool = False  # whether updates that are not finite stopped it

    def see(self, sighting: Sighting) -> bool:
        """Takes one sighting in; True where its policy is to be kept. The first is the reference policy's."""
        self.curve.append(sighting)
        good = not self.collapsed and sighting.value >= max(seen.value for seen in self.curve) - sighting.error
        if good:
            self.best = len(self.curve) - 1
        elif len(self.curve) - 1 - self.best >= self.config.patience:
            self.stopped = f"the page value of held-out users was below its best for {self.config.patience} looks"
        if self.collapsed:
            self.stopped = (
                f"the policy collapsed: {sighting.distinct:.1%} of the pages of held-out users differ, "
                f"{self.curve[0].distinct:.1%} at the start"
            )
        return good

    def count(self, stats: Stats) -> None:
        """Takes one iteration in."""
        self.skipped += stats.skipped
        if stats.kl > self.config.kl_budget:
            self.stopped = f"the budget of {self.config.kl_budget:g} nats a page is spent ({stats.kl:.1f})"

    def give_up(self, why: str) -> None:
        """Stops it because updates are not finite any more."""
        self.stopped, self.broken = why, True

    @property
    def collapsed(self) -> bool:
        """Whether almost all users get the same page, by the last sighting."""
        return self.curve[-1].distinct < self.config.collapse * self.curve[0].distinct

    @property
    def verdict(self) -> tuple[str, str, str]:
        """(healthy, watch or sick; cause; next step), in words."""
        first, best, last = self.curve[0], self.curve[self.best], self.curve[-1]
        if self.collapsed:
            return "sick", self.stopped, "Raise ppo.kl_coef or ppo.temperature, or train with a smaller ppo.lr."
        if self.broken:
            return "sick", self.stopped, f"The policy of iteration {best.step} is kept."
        if self.best == 0 and last.value > first.value - _SURE * last.error:
            return (
                "watch",
                f"every policy was worse for held-out users than the one at the start ({first.value:.4f}) by more than a standard error, "
                f"though not surely at the end ({last.value:.4f}, {_SURE:g} standard errors are {_SURE * last.error:.4f})",
                "The policy at the start is kept. With more held-out users (split.held_out) or more iterations a gain could be seen.",
            )
        if self.best == 0:
            return (
                "sick",
                f"every policy was worse for held-out users than the one at the start ({first.value:.4f}; at the end {last.value:.4f}), "
                f"while the learned reward went from {self.curve[min(1, len(self.curve) - 1)].reward:.2f} to {last.reward:.2f}",
                "The rewards do not know what these users want: look at `pagellm rewards check`. The policy at the start is kept.",
            )
        if self.skipped:
            return "watch", f"{self.skipped} updates were not finite and were left out", "Train with a smaller ppo.lr."
        if last.value < best.value - 0.02:
            return (
                "watch",
                f"the page value fell from {best.value:.4f} to {last.value:.4f} after iteration {best.step}: the reward was over-optimized",
                f"The policy of iteration {best.step} is kept. A larger ppo.kl_coef or ppo.caution lets it go on for longer.",
            )
        change = (
            f"from {first.value:.4f} to {best.value:.4f} ± {_SURE * best.error:.4f} (hits {best.hits / max(first.hits, 1e-9) - 1:+.1%}, "
            f"near-duplicates {best.duplicates:.1%} of the slots, before {first.duplicates:.1%}) at {best.kl:.1f} nats from the reference"
        )
        if best.value < first.value:
            return (
                "watch",
                f"held-out users do not tell what was learned from the start: the page value went {change}",
                f"The policy of iteration {best.step} is kept, because the rewards prefer it. With more held-out users (split.held_out) a "
                "difference could be seen.",
            )
        return "healthy", f"the page value of held-out users rose {change}", "Judge it: pagellm evaluate RUN"

    def as_json(self) -> dict[str, Any]:
        """For ppo.json: the curve of over-optimization, which sighting was kept, and the verdict."""
        health, cause, following = self.verdict
        return {
            "health": health,
            "cause": cause,
            "next": following,
            "stopped": self.stopped or "all iterations are done",
            "best": self.curve[self.best].step,
            "skipped": self.skipped,
            "curve": [asdict(sighting) | {"root_kl": max(sighting.kl, 0.0) ** 0.5} for sighting in self.curve],
        }
