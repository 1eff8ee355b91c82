"""What the two sides of a sandbox say to each other, as bytes.

Requests come from the side that is trusted, and may hold anything. Replies come from a process that runs foreign code:
their forms are few and fixed, and whatever has none of them is refused before anything is made of it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum

HEADER = struct.Struct("<BI")
"""Kind and length of what follows, of requests and replies alike."""

MAX_TEXT_BYTES = 2000

_SEAT = struct.Struct("<H")
_ACTION = struct.Struct("<HH")
_NO_VIBE = 0xFFFF
MAX_REPLY_BYTES = _ACTION.size << 16


class Request(IntEnum):
    """What a policy's process is asked."""

    CONFINE = 1
    """A pickled `policy.Load` or `SetUp`: get ready for it."""
    BEGIN = 2
    """Load the policy, or run the script: the first that lets foreign code run."""
    SEAT = 3
    """A seat: make the policy of its agent."""
    RESET = 4
    """A seat: reset the policy of its agent."""
    STEP = 5
    """Seats with what they observe: see `step_request`."""


class Reply(IntEnum):
    """What it answers."""

    DONE = 1
    ACTIONS = 2
    """One action for each seat of the request."""
    FAILED = 3
    """The policy's code raised: a seat, or 0xFFFF, and one line of text."""


class Malformed(ValueError):
    """Bytes that are no reply."""


type Action = tuple[int, int | None]
"""Index of an action, and that of the vibe which goes with it."""

NO_SEAT = 0xFFFF


def message(kind: Request | Reply, content: bytes = b"") -> bytes:
    """A request or a reply, whole."""
    return HEADER.pack(kind, len(content)) + content


def seat_request(seat: int) -> bytes:
    """The content of SEAT and RESET."""
    return _SEAT.pack(seat)


def seat_of(content: bytes) -> int:
    """The seat that SEAT and RESET name."""
    seat: int = _SEAT.unpack(content)[0]
    return seat


def step_request(observed: Sequence[tuple[int, bytes]]) -> bytes:
    """The content of STEP. The rows of every seat have the same length."""
    return b"".join(_SEAT.pack(seat) + rows for seat, rows in observed)


def observed_in(content: bytes, rows_bytes: int) -> list[tuple[int, bytes]]:
    """What STEP says."""
    length = _SEAT.size + rows_bytes
    return [
        (seat_of(content[start : start + _SEAT.size]), content[start + _SEAT.size : start + length])
        for start in range(0, len(content), length)
    ]


def actions_reply(actions: Sequence[Action]) -> bytes:
    """The content of ACTIONS."""
    return b"".join(_ACTION.pack(index, _NO_VIBE if vibe is None else vibe) for index, vibe in actions)


def actions_in(content: bytes, count: int, known: int) -> list[Action]:
    """What ACTIONS says. Raises Malformed unless there are so many, each one of those that are known."""
    if len(content) != count * _ACTION.size:
        raise Malformed(f"{len(content)} bytes for {count} actions")
    actions = [(index, None if vibe == _NO_VIBE else vibe) for index, vibe in _ACTION.iter_unpack(content)]
    if any(index >= known or (vibe is not None and vibe >= known) for index, vibe in actions):
        raise Malformed("an action that does not exist")
    return actions


def failure_reply(seat: int | None, text: str) -> bytes:
    """The content of FAILED."""
    return _SEAT.pack(NO_SEAT if seat is None else seat) + text.encode(errors="replace")[:MAX_TEXT_BYTES]


def failure_in(content: bytes) -> tuple[int | None, str]:
    """What FAILED says, as one printable line. Raises Malformed."""
    if not _SEAT.size <= len(content) <= _SEAT.size + MAX_TEXT_BYTES:
        raise Malformed(f"{len(content)} bytes of an error")
    seat = seat_of(content[: _SEAT.size])
    text = content[_SEAT.size :].decode(errors="replace")
    printable = "".join(character if character.isprintable() else " " for character in text)
    return None if seat == NO_SEAT else seat, " ".join(printable.split()) or "no reason given"
