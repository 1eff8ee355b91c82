"""How often comparisons are wrong, what looking early saves, and the naive ways beside it; all by simulation, seeded.

Two policies on the same maps: a value is what the map gives, plus what the policy does. Every way sees the same values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from daf_statistics.sequential import Decision, Race, take_look

EPISODES, LOOKS, ALPHA = 30, 10, 0.05
NULL_RUNS, RUNS, RACES = 4_000, 500, 200
POLICIES = 5
AGENTS = 8
COPIES = 5

type Values = np.ndarray


def main() -> None:
    """Prints the figures."""
    generator = np.random.default_rng(1)
    print(f"two equal policies, {EPISODES} paired episodes, alpha {ALPHA}, {NULL_RUNS} runs: called different in")
    equal = [episodes(generator, 0.0) for _ in range(NULL_RUNS)]
    _print_rate("one look at the end, sign flips", map(_fixed, equal))
    _print_rate("the same, paired t-test of scipy", map(_paired_t, equal))
    _print_rate(f"{LOOKS} looks, O'Brien-Fleming", (_sequential(values)[0] for values in equal))
    print("the naive ways")
    _print_rate("20 looks, each at alpha", map(_naive_looks, equal))
    _print_rate(f"{AGENTS} agents of a team as independent", (_agents(generator) for _ in equal))
    _print_rate(f"episodes copied {COPIES} times as samples", (_copies(generator) for _ in equal))
    print()
    for effect in (0.5, 0.8, 1.2):
        better = [episodes(generator, effect) for _ in range(RUNS)]
        looked = [_sequential(values) for values in better]
        at_end, early = sum(map(_fixed, better)), sum(found for found, _ in looked)
        saved = 1 - sum(played for _, played in looked) / (EPISODES * RUNS)
        print(
            f"a difference of {effect} standard deviations: found in {_share(at_end, RUNS)} at the end, "
            f"in {_share(early, RUNS)} with {LOOKS} looks, which save {saved:.0%} of the episodes"
        )
    print()
    _races(generator)


def episodes(generator: np.random.Generator, effect: float) -> Values:
    """Values of two policies; the effect is in standard deviations of their differences, which are skewed."""
    maps = generator.normal(0, 2, (EPISODES, 1))
    noise = generator.exponential(1, (EPISODES, 2)) - 1
    return maps + noise / math.sqrt(2) + np.array([effect, 0.0])


def _fixed(values: Values) -> bool:
    from daf_statistics.sign_flips import sign_flip_test

    return sign_flip_test((values[:, 0] - values[:, 1]).tolist()).p_value <= ALPHA


def _paired_t(values: Values) -> bool:
    from scipy.stats import ttest_rel

    return bool(ttest_rel(values[:, 0], values[:, 1]).pvalue <= ALPHA)


def _sequential(values: Values) -> tuple[bool, int]:
    """Whether the policies are called different, and how many episodes each played until then."""
    decisions, played = _race(values)
    return bool(decisions), played // 2


def _race(values: Values) -> tuple[Sequence[Decision], int]:
    """What a race decides, and how many episodes are played in it."""
    race, played, group = Race(values.shape[1], LOOKS, ALPHA), 0, len(values) // LOOKS
    while not race.over:
        played += group * len(race.racing)
        so_far = values[: group * (race.done + 1)]
        pairs = itertools.combinations(race.racing, 2)
        race = take_look(race, {(a, b): (so_far[:, a] - so_far[:, b]).tolist() for a, b in pairs})
    return race.decisions, played


def _naive_looks(values: Values) -> bool:
    from scipy.stats import ttest_rel

    return any(
        ttest_rel(values[:count, 0], values[:count, 1]).pvalue <= ALPHA
        for count in np.linspace(4, EPISODES, 20).astype(int)
    )


def _agents(generator: np.random.Generator) -> bool:
    """Welch's test over all agents, of which those of one team share the fate of their episode."""
    from scipy.stats import ttest_ind

    teams = generator.normal(0, 1, (2, EPISODES, 1)) + generator.normal(0, 1, (2, EPISODES, AGENTS))
    return bool(ttest_ind(teams[0].ravel(), teams[1].ravel(), equal_var=False).pvalue <= ALPHA)


def _copies(generator: np.random.Generator) -> bool:
    """A paired t-test over episodes of which each was played several times without any randomness."""
    from scipy.stats import ttest_rel

    values = np.repeat(episodes(generator, 0.0)[: EPISODES // COPIES], COPIES, axis=0)
    return bool(ttest_rel(values[:, 0], values[:, 1]).pvalue <= ALPHA)


def _races(generator: np.random.Generator) -> None:
    print(f"{POLICIES} policies, {EPISODES} episodes each at most, {RACES} races with {LOOKS} looks")
    for name, effects in (
        ("all equal", [0.0] * POLICIES),
        ("one better by 1", [1.0, *[0.0] * (POLICIES - 1)]),
        ("one better by 2", [2.0, *[0.0] * (POLICIES - 1)]),
        ("evenly from 0 to 2", np.linspace(0, 2, POLICIES)[::-1].tolist()),
    ):
        wrong = best = played = 0
        for _ in range(RACES):
            noise = (generator.exponential(1, (EPISODES, POLICIES)) - 1) / math.sqrt(2)
            decisions, count = _race(generator.normal(0, 2, (EPISODES, 1)) + noise + np.asarray(effects))
            wrong += any(effects[one.better] <= effects[one.worse] for one in decisions)
            best += {one.worse for one in decisions} == set(range(1, POLICIES))
            played += count
        saved = 1 - played / (RACES * EPISODES * POLICIES)
        print(
            f"  {name:<20} a wrong decision in {_share(wrong, RACES)}, the best found in {_share(best, RACES)}, "
            f"episodes saved {saved:.0%}"
        )


def _print_rate(what: str, called: Iterable[bool]) -> None:
    rate = sum(called) / NULL_RUNS
    limit = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / NULL_RUNS)
    print(f"  {what:<40} {rate:6.1%}   {'at most' if rate <= limit else 'MORE than'} alpha + 2 standard errors")


def _share(count: int, of: int) -> str:
    return f"{count / of:.1%}"


if __name__ == "__main__":
    main()
