"""Logs as they are stored: in pieces that fit into a message, of text that every database takes. Pure."""

from __future__ import annotations

from collections.abc import Iterator

PIECE_CHARACTERS = 200_000
LAST_LINES = 15
MAX_LAST_CHARACTERS = 3000

TRUNCATED = "... the log is longer than what is kept ...\n"


def clean(text: str) -> str:
    """The text without NUL, which PostgreSQL refuses."""
    return text.replace("\x00", "�")


def pieces(text: str, size: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Cuts a text at the ends of lines where it can."""
    while len(text) > size:
        cut = text.rfind("\n", 0, size) + 1 or size
        yield text[:cut]
        text = text[cut:]
    if text:
        yield text


def last_lines(log: bytes) -> str:
    """The end of a log, short enough for an error message."""
    text = clean(log[-4 * MAX_LAST_CHARACTERS :].decode("utf-8", errors="replace"))
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-LAST_LINES:])[-MAX_LAST_CHARACTERS:]
