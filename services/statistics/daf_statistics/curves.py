"""Training curves: which metrics are drawn, and the smooth line through their points. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daf_statistics.metrics import Point

MAX_POINTS = 1000
"""Points of a series that are drawn: as many as a panel has pixels."""

MIN_SMOOTHED_POINTS = 12
"""Of fewer finite points, a line through the points themselves says more."""

SMOOTHING_SHARE = 0.03
"""Standard deviation of the Gaussian window, as a share of the longest run in the panel: lines beside each other are
smoothed alike."""

REWARD = "env/reward_per_agent"

TITLES = {
    REWARD: "reward per agent",
    "losses/policy_loss": "policy loss",
    "losses/value_loss": "value loss",
    "losses/entropy": "entropy",
    "losses/approx_kl": "KL divergence from the policy before the update",
    "losses/clipfrac": "share of clipped ratios",
    "losses/explained_variance": "explained variance",
    "learning_rate": "learning rate",
    "agent_steps_per_second": "agent steps per second",
}
"""The metrics that matter in training, in the order of their panels, and what they are called there."""

EXACT = frozenset({"learning_rate"})
"""Metrics without noise, which are not smoothed."""

type Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One series as it is drawn. x: agent steps, or steps where the source counts no agent steps."""

    source: str
    metric: str
    x: Floats
    values: Floats
    """NaN where it was not finite."""
    unit: str
    """What x counts."""

    @property
    def length(self) -> float:
        """From the first point to the last, in units of x."""
        return float(self.x[-1] - self.x[0])

    @property
    def is_smoothed(self) -> bool:
        """Whether it is drawn as points and a smooth line, and not as a line through its points."""
        finite = int(np.isfinite(self.values).sum())
        return self.metric not in EXACT and finite >= MIN_SMOOTHED_POINTS and self.length > 0


def curve(source: str, metric: str, points: Sequence[Point]) -> Curve:
    """The curve of at least one point, in the order of steps."""
    counts_agent_steps = any(point.agent_steps for point in points)
    return Curve(
        source=source,
        metric=metric,
        x=np.array([point.agent_steps if counts_agent_steps else point.step for point in points], dtype=np.float64),
        values=np.array([np.nan if point.value is None else point.value for point in points], dtype=np.float64),
        unit="agent steps" if counts_agent_steps else "steps",
    )


def default_metrics(known: Collection[str]) -> list[str]:
    """The metrics that matter in training, of those that there are; all of them where none of these is there."""
    return [metric for metric in TITLES if metric in known] or sorted(known)


def smoothed(x: Floats, values: Floats, window: float) -> Floats:
    """The mean of the finite values around each x, weighted by a Gaussian (Nadaraya-Watson regression), which has no
    lag as a running average has.

    Args:
        x: where the values are, in any unit.
        values: one for each x; NaN where there is none, and there the result is NaN too.
        window: standard deviation of the Gaussian, in the unit of x; more than 0.
    """
    finite = np.isfinite(values)
    known = x[finite]
    weights = np.exp(-0.5 * ((known[:, None] - known) / window) ** 2)
    result = np.full_like(values, np.nan)
    result[finite] = weights @ values[finite] / weights.sum(axis=1)
    return result


def with_unit(number: float) -> str:
    """A count as axes show it: 1500000 is `1.5M`."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"
