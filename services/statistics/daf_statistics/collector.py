"""Python's collector of cycles, paused while hundreds of thousands of tuples are made that are in none.

It would look at all of them again and again, which takes longer than making them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """Lets no cycles be looked for in the meantime; where threads overlap, until the first of them is done."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
