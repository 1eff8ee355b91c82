"""How policies are compared, chosen before their numbers are seen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from daf_statistics.aggregation import Aggregation
from daf_statistics.multiplicity import Family
from daf_statistics.sequential import nominal_levels
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
    aggregation: Aggregation = Aggregation.MEAN
    looks: int = 1
    """How often is looked at the numbers while they come in: see `daf_statistics.sequential`."""

    @property
    def confidence(self) -> float:
        """Level of the intervals."""
        return 1 - self.alpha

    def pairs(self, policies: int) -> list[tuple[int, int]]:
        """The pairs of policies that are compared; with a baseline, it is the second of each."""
        if self.baseline is None:
            return list(combinations(range(policies), 2))
        return [(policy, self.baseline) for policy in range(policies) if policy != self.baseline]

    def last_level(self, tests: int) -> float:
        """The p-value at or below which one of so many tests rejects in the end, if none of the others does."""
        share = self.alpha / tests
        return share if self.looks == 1 else nominal_levels(self.looks, share)[-1]

    def problem(self, pairs: int, tests: int) -> str:
        """Why no test of a family can reject with so many pairs of episodes that differ; empty if one can."""
        level = self.last_level(tests)
        if smallest_p_value(pairs, self.alpha, tests) <= level * (1 + 1e-9):
            return ""
        family = f" shared by {tests} tests" if tests > 1 else ""
        looks = f" in {self.looks} looks" if self.looks > 1 else ""
        return (
            f"{count_of(pairs, 'pair')} cannot reach alpha {self.alpha:g}{family}{looks}: "
            f"at least {fewest_pairs(level)} that differ are needed"
        )


def count_of(count: int, what: str) -> str:
    """A number with its noun."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
