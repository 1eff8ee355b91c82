"""Comparisons that stop early: group-sequential looks with O'Brien-Fleming bounds, and races among several policies.

Looking again and again at the usual level finds differences that are not there. With these bounds, all looks together
have the error rate of one; almost all of it is left for the last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from daf_statistics.sign_flips import sign_flip_test

MAX_LOOKS = 50

_NODES = 100


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

    lowest = float(ndtri(1 - alpha / 2))  # of one look
    return float(brentq(lambda c: _crossing(c * math.sqrt(looks), looks) - alpha, lowest, 2 * lowest + 2, xtol=1e-10))


def nominal_levels(looks: int, alpha: float) -> list[float]:
    """The two-sided p-value at or below which each look rejects."""
    constant = obrien_fleming_constant(looks, alpha)
    return [math.erfc(constant * math.sqrt(looks / look) / math.sqrt(2)) for look in range(1, looks + 1)]


@dataclass(frozen=True)
class Race:
    """A race among policies: after each look, those that are worse than another leave it and play no more."""

    policies: int
    looks: int
    """How many there are going to be, after equally many episodes each."""
    alpha: float = 0.05
    """Accepted probability of any wrong decision in the whole race."""
    decided: frozenset[tuple[int, int]] = frozenset()
    """Pairs of policies of which the first is better than the second."""
    done: int = 0
    """Looks that were taken."""

    @property
    def racing(self) -> list[int]:
        """The policies that are not known to be worse than another."""
        worse = {loser for _, loser in self.decided}
        return [policy for policy in range(self.policies) if policy not in worse]

    @property
    def over(self) -> bool:
        """Whether there is nothing left to find out, or no look to do it."""
        return len(self.racing) == 1 or self.done == self.looks


def take_look(race: Race, values: Mapping[int, Sequence[float]]) -> Race:
    """The race after its next look.

    The pairs share alpha as in Holm's procedure: with r of m pairs decided, each of the others is tested by the bounds
    of alpha/(m - r), again until no more is decided (Maurer and Bretz, Multiple testing in group sequential trials
    using graphical approaches, 2013). Pairs with a policy that has left stay undecided.

    Args:
        race: before it, not over.
        values: of each policy that is racing on the same seeds, which are no copies of others: all so far.
    """
    racing, look = race.racing, race.done + 1
    p_values = {
        (first, second): sign_flip_test([a - b for a, b in zip(values[first], values[second], strict=True)]).p_value
        for number, first in enumerate(racing)
        for second in racing[number + 1 :]
    }
    tests = race.policies * (race.policies - 1) // 2
    decided = set(race.decided)
    for (first, second), p_value in sorted(p_values.items(), key=lambda item: item[1]):
        if p_value > nominal_levels(race.looks, race.alpha / (tests - len(decided)))[look - 1]:
            break
        first_is_better = math.fsum(values[first]) > math.fsum(values[second])
        decided.add((first, second) if first_is_better else (second, first))
    return replace(race, decided=frozenset(decided), done=look)


def _crossing(bound: float, steps: int) -> float:
    """The probability that a random walk of standard normal steps is at or beyond a bound, either way, at any step."""
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    at, weights = nodes * bound, weights * bound
    step = np.exp(-((at[:, None] - at) ** 2) / 2) / math.sqrt(2 * math.pi)
    density = np.exp(-(at**2) / 2) / math.sqrt(2 * math.pi)
    for _ in range(steps - 1):
        density = step @ (weights * density)
    return 1.0 - float(weights @ density)
