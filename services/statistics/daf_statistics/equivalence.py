"""Whether two policies differ by less than matters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from daf_statistics.spread import standard_error, t_tail


def equivalence_p_value(differences: Sequence[float], margin: float) -> float:
    """The p-value of two one-sided paired t-tests (Schuirmann, 1987) that the mean difference is at least the margin,
    either way: where it is small, the policies differ by less.

    Differences that do not vary have no t; for them it is the smallest p-value of the one-sided sign-flip test, 1/2^n.
    """
    count, error = len(differences), standard_error(differences)
    mean = math.fsum(differences) / count
    if error is None:
        return 1.0
    if error == 0.0:
        return 2.0**-count if abs(mean) < margin else 1.0
    return max(t_tail(count - 1, (mean + margin) / error), t_tail(count - 1, (margin - mean) / error))
