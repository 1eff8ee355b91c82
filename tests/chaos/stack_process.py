"""The stack with stand-in compute as a process of its own, which tests kill and which is started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc

from daf_common.channel import connect, raising
from daf_common.errors import Internal, Unavailable
from daf_common.faults import EXIT_CODE
from daf_standalone.settings import Home


class Stack:
    """The stack as a process of its own, which is started again whenever it dies."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = Home(home)
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self.deaths = 0

    def start(self, **environment: str) -> None:
        with (self.home.directory.parent / "stack.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.standin_stack"],
                env={**os.environ, "DAF_HOME": str(self.home.directory), **self._environment, **environment},
                stdout=log,
                stderr=log,
            )

    async def keep_alive(self) -> None:
        """Starts the stack again after each death, this time without a crash point."""
        while True:
            await asyncio.sleep(0.05)
            if self._process and self._process.poll() is not None:
                assert self._process.returncode == EXIT_CODE, "the stack died of something else: see stack.log"
                self.deaths += 1
                self.start()

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)


async def persist[T](stack: Stack, call: Callable[[grpc.aio.Channel], Awaitable[T]]) -> T:
    """Repeats a call until a living stack answers it."""
    while True:
        try:
            async with connect(f"unix:{stack.home.socket()}") as channel:
                return await raising(call(channel))
        except (Unavailable, Internal):
            await asyncio.sleep(0.1)
