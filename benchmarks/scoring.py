"""How often intervals of team scores hold the true value, beside other ways; all by simulation, seeded."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable

import numpy as np

from daf_statistics.teams import TeamEpisode

SEEDS = (3, 5, 8, 12, 20, 40)
RUNS, RESAMPLES = 1_000, 999
CONFIDENCE = 0.95
SEATS = 4
EFFECT = 1.0
QUALITIES = (0.0, 0.4, 0.8, 1.2)
MANY_SEEDS = 20_000
MISSION = json.dumps({"name": "simulated", "map_seed": None})

type Values = np.ndarray
type Ends = tuple[float, float] | None


def main() -> None:
    """Prints the figures."""
    generator = np.random.default_rng(1)
    print(f"overall VOR of {SEATS} seats, {RUNS} runs: {CONFIDENCE:.0%} intervals that hold the true value")
    print(f"{'values':<12}{'seeds':>5}", *(f"{name:>22}" for name in WAYS), sep="")
    for shape, noise in NOISES.items():
        for seeds in SEEDS:
            drawn = [_pickup(generator, seeds, noise) for _ in range(RUNS)]
            held = [sum(_holds(way(values)) for values in drawn) / RUNS for way in WAYS.values()]
            print(f"{shape:<12}{seeds:>5}", *(f"{share:>22.1%}" for share in held), sep="")
    print()
    print(f"cross-play of {len(QUALITIES)} policies, {RUNS} runs: true places in {CONFIDENCE:.0%} ranges (mean width)")
    for seeds in SEEDS:
        found = np.array([_places(generator, seeds) for _ in range(RUNS)]).mean(axis=0)
        print(f"{seeds:>17} seeds: DAF {found[0]:.1%} ({found[1]:.2f}), bootstrap {found[2]:.1%} ({found[3]:.2f})")
    print()
    _many(generator)


def _pickup(generator: np.random.Generator, seeds: int, noise: Callable[[np.random.Generator, int], Values]) -> Values:
    """For each seed the mean of the candidate's seats, by their number falling, and last that of the pool alone. The
    candidate has EFFECT more; a seed is as good for all teams."""
    luck = generator.normal(0, 2, (seeds, 1))
    return luck + noise(generator, seeds) + np.array([EFFECT] * SEATS + [0.0])


def _contrasts(values: Values) -> Values:
    weights = np.arange(SEATS, 0, -1)
    overall: Values = values[:, :-1] @ weights / weights.sum() - values[:, -1]
    return overall


def _ours(values: Values) -> Ends:
    from daf_statistics.vor import value_over_replacement

    (vor,), _ = value_over_replacement(_pickup_episodes(values), 0, CONFIDENCE)
    return vor.overall_interval


def _bootstrapped(method: str) -> Callable[[Values], Ends]:
    def ends(values: Values) -> Ends:
        from scipy.stats import bootstrap

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that do not vary
            found = bootstrap(
                [_contrasts(values)],
                np.mean,
                n_resamples=RESAMPLES,
                confidence_level=CONFIDENCE,
                method=method,
                rng=np.random.default_rng(0),
            ).confidence_interval
        return float(found.low), float(found.high)

    return ends


def _teams_apart(values: Values) -> Ends:
    """As if each team had been played on seeds of its own."""
    weights = np.append(np.arange(SEATS, 0, -1) / (SEATS * (SEATS + 1) / 2), -1.0)
    mean = values.mean(axis=0) @ weights
    margin = 1.96 * np.sqrt((weights**2 * values.var(axis=0, ddof=1)).sum() / len(values))
    return float(mean - margin), float(mean + margin)


WAYS: dict[str, Callable[[Values], Ends]] = {
    "DAF": _ours,
    "BCa bootstrap": _bootstrapped("BCa"),
    "percentile bootstrap": _bootstrapped("percentile"),
    "teams as independent": _teams_apart,
}
NOISES: dict[str, Callable[[np.random.Generator, int], Values]] = {
    "normal": lambda generator, seeds: generator.normal(0, 1, (seeds, SEATS + 1)),
    "skewed": lambda generator, seeds: generator.exponential(1, (seeds, SEATS + 1)) - 1,
    "two-valued": lambda generator, seeds: 2.0 * (generator.random((seeds, SEATS + 1)) < 0.3) - 0.6,
}


def _holds(ends: Ends) -> bool:
    return ends is not None and ends[0] <= EFFECT <= ends[1]


def _pickup_episodes(values: Values) -> list[TeamEpisode]:
    return [
        _episode(tuple((p, n) for p, n in ((0, SEATS - team), (1, team)) if n), seed, float(values[seed, team]))
        for team in range(SEATS + 1)
        for seed in range(len(values))
    ]


def _episode(seats: tuple[tuple[int, int], ...], seed: int, value: float) -> TeamEpisode:
    return TeamEpisode(MISSION, seed, seats, {policy: value for policy, _ in seats}, value, f"{seats} {seed}".encode())


def _places(generator: np.random.Generator, seeds: int) -> tuple[float, float, float, float]:
    """Of one run the share of true places within the ranges, and the ranges' mean width; and the bootstrap's."""
    from daf_statistics.cross_play import cross_play

    count = len(QUALITIES)
    luck = generator.normal(0, 2, seeds)
    pairs = [(first, second) for first in range(count) for second in range(first + 1, count)]
    values = np.array([QUALITIES[a] + QUALITIES[b] + generator.normal(0, 1, seeds) + luck for a, b in pairs])
    episodes = [
        _episode(((a, 1), (b, 1)), seed, float(values[number, seed]))
        for number, (a, b) in enumerate(pairs)
        for seed in range(seeds)
    ]
    (found,), _ = cross_play(episodes, CONFIDENCE)
    ours = {rank.policy: (rank.best_rank, rank.worst_rank) for rank in found.ranking}
    means = np.array([values[[policy in pair for pair in pairs]].mean(axis=0) for policy in range(count)])
    drawn = generator.multinomial(seeds, [1 / seeds] * seeds, RESAMPLES) @ means.T / seeds
    places = 1 + (drawn[:, None, :] > drawn[:, :, None]).sum(axis=2)
    low, high = np.percentile(places, [2.5, 97.5], axis=0, method="nearest")
    anew = {policy: (int(low[policy]), int(high[policy])) for policy in range(count)}
    return (*_right(ours), *_right(anew))


def _right(ranges: dict[int, tuple[int, int]]) -> tuple[float, float]:
    held = [best <= len(ranges) - policy <= worst for policy, (best, worst) in ranges.items()]
    return sum(held) / len(held), sum(worst - best + 1 for best, worst in ranges.values()) / len(ranges)


def _many(generator: np.random.Generator) -> None:
    import pandas as pd

    from daf_statistics.vor import value_over_replacement

    episodes = _pickup_episodes(_pickup(generator, MANY_SEEDS, NOISES["normal"]))
    start = time.perf_counter()
    (vor,), _ = value_over_replacement(episodes, 0, CONFIDENCE)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    table = pd.DataFrame([(e.seats_of(0), e.seed, e.team_value) for e in episodes], columns=["seats", "seed", "value"])
    means = table.pivot_table(index="seed", columns="seats", values="value").mean()
    plain = time.perf_counter() - start
    overall = (means[means.index > 0] * means.index[means.index > 0]).sum() / (SEATS * (SEATS + 1) / 2) - means[0]
    assert vor.overall is not None
    assert abs(overall - vor.overall) < 1e-9
    print(
        f"{len(episodes):,} episodes: {ours:.2f} s with intervals and copies; "
        f"the means alone with pandas {plain:.2f} s, {plain / ours:.2f} of it"
    )
