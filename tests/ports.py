"""Ports for what can only be told beforehand where it is to listen."""

from __future__ import annotations

import random
import socket

PORTS = range(20_000, 30_000)
"""The kernel gives none of these to whoever lets it choose, so none is taken between being found and being used."""


def free_port() -> int:
    """A port that nothing listens on, at any address of this machine."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("all ports are taken")
