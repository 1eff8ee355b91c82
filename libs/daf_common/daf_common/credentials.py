"""What a caller proves itself with, and how it knows whom it calls."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from daf_common.auth import read_token
from daf_common.errors import InvalidArgument

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tls:
    """An encrypted connection to a server whose certificate is checked."""

    ca: str = field(default="", repr=False)
    """Certificates of the authorities that are trusted, as PEM; empty: the public ones, which gRPC knows."""
    server_name: str = ""
    """The name that the certificate must be for; empty: that of the address."""


class TokenFile:
    """A token in a file that is replaced while it is in use, as a mounted Secret is."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            InvalidArgument: it holds no token.
        """
        self._path = path
        self._seen = _identity(path)
        self._token = read_token(path)

    def token(self) -> str:
        """The token that the file holds now, or the last one that could be read."""
        if (identity := _identity(self._path)) != self._seen:
            self._seen = identity
            try:
                self._token = read_token(self._path)
            except InvalidArgument as error:
                log.error("the last token stays in use: %s", error)
        return self._token


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What differs when a file was replaced or written."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
