"""The hint at the end of an error message about an unknown name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest known name or, where none is near, `; known: a, b, c`.

    Of a dotted name its last part is enough: `y` is near `x.y`, and `z.y`, too.
    """
    wanted = name.strip().lower()[:100]
    folded = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(wanted, folded, n=1, cutoff=0.6)
    if not near:
        last_parts = {full: full.rpartition(".")[2] for full in folded}
        nearest = difflib.get_close_matches(wanted, last_parts.values(), n=1, cutoff=0.6)
        near = [full for full, last_part in last_parts.items() if last_part in nearest]
    if near:
        return f"; did you mean {' or '.join(repr(folded[full]) for full in near)}?"
    return f"; known: {', '.join(folded.values())}"
