"""The hint at the end of an error message about an unknown name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest known name or, where none is near, `; known: a, b, c`."""
    folded = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.strip().lower()[:100], folded, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {folded[near[0]]!r}?"
    return f"; known: {', '.join(folded.values())}"
