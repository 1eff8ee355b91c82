"""Scores over several missions: interquartile means with intervals, and performance profiles.

After Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, 2021. Values are taken as
they are: where missions have scales of their own, those with large values decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from daf_statistics.spread import t_quantile

RESAMPLES = 2_000
RESAMPLED_BLOCKS = 1000
"""From here on the interval is that of the trimmed mean's limit."""
THRESHOLDS = 41

_SEED = 0
_TRIMMED = 0.25  # on each side

type Blocks = Sequence[Sequence[Sequence[float]]]
"""For each mission the values of all policies in each of the episodes that all of them played."""


def interquartile_means(blocks: Blocks) -> list[float]:
    """The mean of each policy's middle half of values, as `scipy.stats.trim_mean(values, 0.25)`."""
    import numpy as np

    return [float(mean) for mean in _trimmed_means(np.asarray([row for mission in blocks for row in mission], float))]


def interquartile_intervals(blocks: Blocks, confidence: float) -> list[tuple[float, float] | None]:
    """An interval of each policy's interquartile mean; None where its values do not vary within any mission.

    The episodes of each mission are drawn anew among themselves, the same for all policies, so that what the policies
    share in a draw cancels in their differences. From RESAMPLED_BLOCKS on, the interval is that of Tukey and McLaughlin
    (1963): Student's with the winsorized standard deviation over (1 - 2 trim) sqrt(n).
    """
    import numpy as np

    values = np.asarray([row for mission in blocks for row in mission], float)
    varies = np.any([np.ptp(np.asarray(mission, float), axis=0) > 0 for mission in blocks], axis=0)
    if len(values) >= RESAMPLED_BLOCKS:
        low, high = _limit_intervals(values, confidence)
    else:
        generator = np.random.default_rng(_SEED)
        starts = np.cumsum([0, *(len(mission) for mission in blocks)])
        rows = np.concatenate(
            [
                start + generator.integers(len(mission), size=(RESAMPLES, len(mission)))
                for start, mission in zip(starts, blocks, strict=False)
            ],
            axis=1,
        )
        drawn = np.stack([_trimmed_means(values[:, policy][rows].T) for policy in range(values.shape[1])])
        low, high = np.percentile(drawn, [50 * (1 - confidence), 50 * (1 + confidence)], axis=1)
    return [(float(a), float(b)) if v else None for a, b, v in zip(low, high, varies, strict=True)]


def thresholds(blocks: Blocks) -> list[float]:
    """Values at which profiles are looked at: evenly from the smallest to the largest."""
    flat = [value for mission in blocks for row in mission for value in row]
    low, high = min(flat), max(flat)
    if low == high:
        return [low]
    return [low + (high - low) * step / (THRESHOLDS - 1) for step in range(THRESHOLDS)]


def performance_profiles(blocks: Blocks, at: Sequence[float]) -> list[list[float]]:
    """For each policy and threshold the share of episodes with a higher value: the mean over the missions of the share
    in each."""
    import numpy as np

    shares = [(np.asarray(mission, float)[:, :, None] > np.asarray(at)).mean(axis=0) for mission in blocks if mission]
    return [[float(share) for share in policy] for policy in np.mean(shares, axis=0)]


def _trimmed_means(values: Any) -> Any:
    """The trimmed mean of each column."""
    import numpy as np

    count = len(values)
    cut = int(_TRIMMED * count)
    return np.sort(values, axis=0)[cut : count - cut].mean(axis=0)


def _limit_intervals(values: Any, confidence: float) -> tuple[Any, Any]:
    import numpy as np

    count = len(values)
    cut = int(_TRIMMED * count)
    ordered = np.sort(values, axis=0)
    winsorized = np.clip(ordered, ordered[cut], ordered[count - cut - 1])
    error = winsorized.std(axis=0, ddof=1) / ((1 - 2 * _TRIMMED) * math.sqrt(count))
    middle = ordered[cut : count - cut].mean(axis=0)
    margin = error * t_quantile(count - 2 * cut - 1, (1 + confidence) / 2)
    return middle - margin, middle + margin
