"""Messages between a player and its supervisor: a kind (one byte), a length, and that many bytes.

Towards the player they are pickled; what comes from it, where other people's code runs, is bytes of plain messages.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Iterator

EPISODE, SEATS, UNPLAYABLE, REQUEST = b"e", b"s", b"u", b"r"

MAX_BYTES = 1 << 28

_HEADER = struct.Struct("=cI")


class BrokenFrame(ValueError):
    """What came is no message of ours."""


def send(connection: socket.socket, kind: bytes, payload: bytes) -> None:
    """Sends one message; blocks until it is on its way."""
    connection.sendall(_HEADER.pack(kind, len(payload)) + payload)


def send_object(connection: socket.socket, value: object) -> None:
    """Sends what `receive_object` returns."""
    send(connection, REQUEST, pickle.dumps(value))


def receive_object(connection: socket.socket) -> object:
    """Waits for an object. Raises EOFError when the other side is gone."""
    _, size = _HEADER.unpack(_exactly(connection, _HEADER.size))
    return pickle.loads(_exactly(connection, size))


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = connection.recv(size, socket.MSG_WAITALL) if size else b""
    if len(data) < size:
        raise EOFError
    return data


class Frames:
    """Puts messages together from the pieces in which they come."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The messages that are whole now, as (kind, payload). Raises BrokenFrame."""
        self._data += data
        while len(self._data) >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._data)
            if size > MAX_BYTES:
                raise BrokenFrame(f"a message of {size} bytes")
            end = _HEADER.size + size
            if len(self._data) < end:
                return
            payload = bytes(self._data[_HEADER.size : end])
            del self._data[:end]
            yield kind, payload
