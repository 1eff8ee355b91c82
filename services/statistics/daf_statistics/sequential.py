"""Comparisons that stop early: group-sequential looks with O'Brien-Fleming bounds, and races among several policies.

Looking again and again at the usual level finds differences that are not there. With these bounds, all looks together
have the error rate of one; almost all of it is left for the last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from itertools import groupby
from typing import Any

from daf_statistics.sign_flips import sign_flip_bound, sign_flip_test

MAX_LOOKS = 50

_NODES = 100
_FARTHEST = 8.0
"""In standard deviations of the whole sum. Beyond, the probability is below 1e-14, and simply added up."""

type Pair = tuple[int, int]


@lru_cache(maxsize=1000)
def obrien_fleming_constant(looks: int, alpha: float) -> float:
    """C of the two-sided O'Brien-Fleming design with equally large groups: look k of K rejects where |Z| is at least
    C sqrt(K/k) (O'Brien and Fleming, A multiple testing procedure for clinical trials, 1979).

    In terms of the sum of all groups the bound is constant, so C is found from the probability that a random walk with
    normal steps leaves an interval (Armitage, McPherson and Rowe, 1969).

    Args:
        looks: K, from 1 to MAX_LOOKS.
        alpha: two-sided error rate over all looks.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    lowest = -float(ndtri(alpha / 2))  # of one look
    if looks == 1:
        return lowest
    return float(brentq(lambda c: _crossing(c * math.sqrt(looks), looks) - alpha, lowest, 2 * lowest + 2, xtol=1e-10))


def nominal_levels(looks: int, alpha: float) -> list[float]:
    """The two-sided p-value at or below which each look rejects."""
    constant = obrien_fleming_constant(looks, alpha)
    return [math.erfc(constant * math.sqrt(looks / look) / math.sqrt(2)) for look in range(1, looks + 1)]


def sequential_p_value(p_value: float, look: int, looks: int) -> float:
    """The smallest error rate over all looks with which the O'Brien-Fleming design rejects by a two-sided p-value.

    It is a p-value wherever one stops: the probability that, without any difference, some look is as extreme.
    """
    from scipy.special import ndtri

    if looks == 1 or p_value >= 1.0:
        return p_value
    return _crossing(-float(ndtri(p_value / 2)) * math.sqrt(look), looks)


class Standing(Enum):
    """How two policies stand in a race."""

    DECIDED = "one is better"
    RACING = "both are racing"
    LEFT = "one left it, being worse than a third"


@dataclass(frozen=True)
class Decision:
    """What a look of a race decided."""

    better: int
    worse: int
    look: int
    p_value: float
    level: float
    """At or below which that look decided."""


@dataclass(frozen=True)
class Race:
    """A race among policies: after each look, those that are worse than another leave it and play no more."""

    policies: int
    looks: int
    """How many there are going to be, after equally many episodes each."""
    alpha: float = 0.05
    """Accepted probability of any wrong decision in the whole race."""
    decisions: tuple[Decision, ...] = ()
    """In their order."""
    p_values: tuple[Mapping[Pair, float], ...] = ()
    """Of each look that was taken, by pair of the policies that were racing."""

    @property
    def done(self) -> int:
        """Looks that were taken."""
        return len(self.p_values)

    @property
    def tests(self) -> int:
        """How many share alpha: one a pair."""
        return self.policies * (self.policies - 1) // 2

    @property
    def racing(self) -> list[int]:
        """The policies that are not known to be worse than another."""
        worse = {decision.worse for decision in self.decisions}
        return [policy for policy in range(self.policies) if policy not in worse]

    @property
    def over(self) -> bool:
        """Whether there is nothing left to find out, or no look to do it."""
        return len(self.racing) == 1 or self.done == self.looks

    def looks_of(self, policy: int) -> int:
        """How many looks a policy took part in."""
        return next((decision.look for decision in self.decisions if decision.worse == policy), self.done)

    def standing(self, pair: Pair) -> Standing:
        """How two policies stand."""
        if any({decision.better, decision.worse} == set(pair) for decision in self.decisions):
            return Standing.DECIDED
        return Standing.RACING if set(pair) <= set(self.racing) else Standing.LEFT


def take_look(race: Race, differences: Mapping[Pair, Sequence[float]]) -> Race:
    """The race after its next look.

    The pairs share alpha as in Holm's procedure: with r of m pairs decided, each of the others is tested by the bounds
    of alpha/(m - r), again until no more is decided (Maurer and Bretz, Multiple testing in group sequential trials
    using graphical approaches, 2013). Pairs with a policy that has left stay undecided.

    Args:
        race: before it, not over.
        differences: of each two policies that are racing, the lower number minus the higher, on the same episodes,
            which are no copies of others: all so far.
    """
    look = race.done + 1
    p_values = {pair: _p_value(of_pair) for pair, of_pair in differences.items()}
    decisions = list(race.decisions)
    for p_value, tied in groupby(sorted(p_values, key=p_values.__getitem__), key=p_values.__getitem__):
        level = nominal_levels(race.looks, race.alpha / (race.tests - len(decisions)))[look - 1]
        if p_value > level:
            break
        for pair in tied:  # all at one level, so that it does not matter which comes first
            better, worse = pair if math.fsum(differences[pair]) > 0 else pair[::-1]
            decisions.append(Decision(better, worse, look, p_value, level))
    return replace(race, decisions=tuple(decisions), p_values=(*race.p_values, p_values))


def adjusted_p_values(race: Race) -> dict[Pair, float]:
    """For every pair the smallest alpha of the whole race with which the last look at it decides it, given what had
    been decided before: Holm's adjustment of `sequential_p_value`."""
    found: dict[Pair, float] = {}
    for look, p_values in enumerate(race.p_values, start=1):
        left = race.tests - sum(decision.look < look for decision in race.decisions)
        bound = 0.0
        for rank, (pair, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
            bound = max(bound, min(1.0, (left - rank) * sequential_p_value(p_value, look, race.looks)))
            found[pair] = bound
    return found


def _p_value(differences: Sequence[float]) -> float:
    """Random flips cannot show how improbable what the first looks need is; the bound can."""
    return min(sign_flip_test(differences).p_value, sign_flip_bound(differences))


def _crossing(bound: float, steps: int) -> float:
    """The probability that a random walk of standard normal steps is at or beyond a bound, either way, at any step."""
    import numpy as np
    from scipy.special import ndtr

    if bound > _FARTHEST * math.sqrt(steps):
        return math.fsum(math.erfc(bound / math.sqrt(2 * step)) for step in range(1, steps + 1))
    nodes, weights = _legendre(max(_NODES, 100 * math.ceil(bound / 15)))
    at, weights = nodes * bound, weights * bound
    step = np.exp(-((at[:, None] - at) ** 2) / 2) / math.sqrt(2 * math.pi)
    leaving = ndtr(at - bound) + ndtr(-at - bound)
    density = np.exp(-(at**2) / 2) / math.sqrt(2 * math.pi)
    crossed = math.erfc(bound / math.sqrt(2))
    for _ in range(steps - 1):
        crossed += float(weights @ (density * leaving))
        density = step @ (weights * density)
    return min(1.0, crossed)


@lru_cache(maxsize=10)
def _legendre(count: int) -> tuple[Any, Any]:
    import numpy as np

    return np.polynomial.legendre.leggauss(count)
