"""Cuts what is to be sent into responses that clients take. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.message import Message

MAX_BYTES = 3 << 20
"""Clients take messages of at most 4 MiB. One job or checkpoint with all its metrics has some ten thousand bytes."""


def portions[M: Message](messages: Iterable[M], max_messages: int) -> Iterator[list[M]]:
    """Cuts messages into lists that each fit into a response; there is always one, which may be empty."""
    portion: list[M] = []
    size = 0
    for message in messages:
        if portion and (len(portion) == max_messages or size + message.ByteSize() > MAX_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(message)
        size += message.ByteSize()
    yield portion
