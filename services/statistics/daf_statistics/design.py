"""How policies are compared, chosen before their numbers are seen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from daf_statistics.multiplicity import Family
from daf_statistics.sign_flips import fewest_pairs, smallest_p_value

DEFAULT_ALPHA = 0.05
MIN_ALPHA, MAX_ALPHA = 0.001, 0.5


@dataclass(frozen=True)
class Design:
    """The design of a comparison."""

    metric: str
    alpha: float = DEFAULT_ALPHA
    margin: float | None = None
    """Differences smaller than this do not matter."""
    family: Family = Family.HOLM
    baseline: int | None = None
    """The policy that every other is compared with; all pairs if None."""
    episodes: int = 0
    """Of each mission, planned; 0 if that was not said."""

    @property
    def confidence(self) -> float:
        """Level of the intervals."""
        return 1 - self.alpha

    def pairs(self, policies: int) -> list[tuple[int, int]]:
        """The pairs of policies that are compared; with a baseline, it is the second of each."""
        if self.baseline is None:
            return list(combinations(range(policies), 2))
        return [(policy, self.baseline) for policy in range(policies) if policy != self.baseline]

    def problem(self, pairs: int, tests: int) -> str:
        """Why no test of a family can reject with so many pairs of episodes that differ; empty if one can."""
        if smallest_p_value(pairs, self.alpha, tests) * tests <= self.alpha * (1 + 1e-9):
            return ""
        family = f" shared by {tests} tests" if tests > 1 else ""
        return (
            f"{count_of(pairs, 'pair')} cannot reach alpha {self.alpha:g}{family}: "
            f"at least {fewest_pairs(self.alpha, tests)} that differ are needed"
        )


def count_of(count: int, what: str) -> str:
    """A number with its noun."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
