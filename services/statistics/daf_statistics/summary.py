"""A policy's score: the mean over its episodes, with how sure it is."""

from __future__ import annotations

import hashlib
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from daf_statistics.samples import Sample, distinct
from daf_statistics.spread import standard_error, t_quantile

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """What a policy's samples of one metric come to."""

    mean: float | None
    """None without samples."""
    standard_error: float | None
    """Of the mean, with missions as strata; None below two samples of a mission that are no copies."""
    interval: tuple[float, float] | None
    """Student's 95 % interval of the mean; None where there is no standard error or the samples do not vary."""
    copies: int
    """How many of the samples are copies of others. They count in the mean, which so is the one that cogames
    computes, but not in the standard error."""
    values: tuple[float, ...]
    """The samples' values in their order."""


def is_loaded() -> bool:
    """Whether scipy is, which takes long the first time: a summary then takes no time worth mentioning."""
    return "scipy.special" in sys.modules


def summarize(samples: Sequence[Sample]) -> Summary:
    """Summarizes the samples of one policy."""
    values = tuple(sample.value for sample in samples)
    independent = distinct(samples)
    mean = math.fsum(values) / len(values) if values else None
    error, degrees = _error(independent)
    interval = None
    if mean is not None and error:
        margin = error * t_quantile(degrees, (1 + CONFIDENCE) / 2)
        interval = (mean - margin, mean + margin)
    return Summary(mean, error, interval, len(values) - len(independent), values)


def _error(independent: Sequence[Sample]) -> tuple[float | None, float]:
    """Standard error of the mean, and its degrees of freedom.

    Missions are strata, as each has its planned episodes: what differs between them is no uncertainty. The degrees of
    freedom of several strata are Satterthwaite's (An approximate distribution of estimates of variance components,
    1946).
    """
    strata: dict[str, list[float]] = defaultdict(list)
    for sample in independent:
        strata[sample.conditions.mission].append(sample.value)
    if len(strata) < 2:
        values = [sample.value for sample in independent]
        return standard_error(values), len(values) - 1
    errors = [(len(values) / len(independent), standard_error(values), len(values) - 1) for values in strata.values()]
    variances = [((weight * error) ** 2, degrees) for weight, error, degrees in errors if error is not None]
    if len(variances) < len(errors):
        return None, 0
    total = math.fsum(variance for variance, _ in variances)
    if not total:
        return 0.0, 0
    return math.sqrt(total), total**2 / math.fsum(variance**2 / degrees for variance, degrees in variances)


def by_scenario(samples: Sequence[Sample]) -> dict[int, Summary]:
    """The same for each scenario, by its number, where there are several; the samples come in their order."""
    if not samples or samples[0].scenario == samples[-1].scenario:
        return {}
    groups = groupby(samples, key=lambda sample: sample.scenario)
    return {scenario: summarize(list(of_scenario)) for scenario, of_scenario in groups}


def evaluation_digest(digests: Iterable[tuple[int, int, str]]) -> str:
    """SHA-256 (hex) over the (scenario, index, digest) of episodes, which come in the order of scenario and index."""
    sha256 = hashlib.sha256()
    for scenario, index, digest in digests:
        sha256.update(f"{scenario}/{index}:{digest}\n".encode())
    return sha256.hexdigest()
