"""Where the embedded stack keeps things: all under one directory, which can be moved while it is down."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

MAX_SOCKET_PATH = 100
"""The kernel's limit for the path of a unix socket is 107 bytes."""

_PLAIN_PATH = re.compile(r"[A-Za-z0-9._~/@:+,=-]+")
"""What a path may hold to stand in an address as it is: addresses are URIs."""


class Home:
    """The layout of `DAF_HOME`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.expanduser().absolute()
        self.run = self.directory / "run"
        self.lock = self.run / "standalone.lock"
        self.pid = self.run / "standalone.pid"
        self.address = self.run / "address"
        self.workers = self.directory / "workers"
        self.cache = self.directory / "cache"

    def socket(self) -> Path:
        """The socket of the stack: in the home, or in a directory of its owner's among the temporary files if its path
        were too long or could not stand in an address, as one with a space."""
        path = self.run / "daf.sock"
        if len(str(path).encode()) <= MAX_SOCKET_PATH and _PLAIN_PATH.fullmatch(str(path)):
            return path
        short = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"daf-{os.getuid()}" / f"{short}.sock"

    def create(self) -> None:
        """Makes the directories. Only the owner may enter: whoever reaches the socket may do everything."""
        for directory in (self.directory, self.run, self.workers, self.cache, self.socket().parent):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for directory in (self.run, self.socket().parent):
            directory.chmod(0o700)  # refused where another user made it
