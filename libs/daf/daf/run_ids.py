"""Ids of new runs."""

from __future__ import annotations

import re
import secrets

_STEM_LENGTH = 20
"""With its suffix a sweep's id stays below 28: the scheduler appends trial numbers to it."""


def new_id(name: str) -> str:
    """An id that begins like a name and that nothing else has."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    stem = re.sub(r"^[^a-z]+", "", stem)[:_STEM_LENGTH].rstrip("-") or "run"
    return f"{stem}-{secrets.token_hex(3)}"
