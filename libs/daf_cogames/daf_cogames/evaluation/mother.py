"""The mother of a worker's players: a process that has everything loaded, and forks a player whenever one is needed.

A worker that evaluates is three processes. The supervisor talks to the service; a player plays, and may not survive
the policies that it plays; and as a process that has loaded gRPC must not fork, the mother, who forked from the worker
before that, forks the players: in a tenth of a second, where a fresh process would import for several.

She has one thread, and does one thing at a time. Whoever dies takes those below along: when the supervisor is gone she
ends, and her player with her.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import faulthandler
import gc
import os
import resource
import signal
import socket
import struct
import sys
import threading
import traceback
from types import TracebackType
from typing import NoReturn, Self

from daf_cogames.evaluation import player
from daf_cogames.play import marks
from daf_cogames.play.decoding import is_exact

_FORK, _REAP = b"f", b"r"
_NUMBER = struct.Struct("=i")

_PR_SET_PDEATHSIG = 1

_SECRETS = ("DAF_TOKEN", "DAF_WORKER_ADDRESS")
"""Of the environment: what a player has no use for."""


class Mother:
    """The supervisor's side. As a context, the mother ends with it."""

    def __init__(self, pid: int, connection: socket.socket, cells: memoryview[int]) -> None:
        self._pid, self._connection = pid, connection
        self.cells = cells
        """The marks of whoever plays."""

    @classmethod
    def start(cls) -> Mother:
        """Forks the mother from this process, which must not have begun anything that a fork would cut in two."""
        if "grpc" in sys.modules:
            raise RuntimeError("grpc was imported before the fork")
        if threading.active_count() > 1:
            raise RuntimeError(f"a thread was started before the fork: {threading.enumerate()[1:]}")
        cells = marks.share()
        ours, hers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become_mother(hers)
        hers.close()
        return cls(pid, ours, cells)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        os.waitpid(self._pid, 0)

    def fork(self, connection: socket.socket, output: int) -> int:
        """A new player, which serves this connection and prints to this descriptor: its process id.

        The id stays its own until `reap`. There is one player at a time.
        """
        descriptors = array.array("i", [connection.fileno(), output])
        self._connection.sendmsg([_FORK], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        return self._number()

    def reap(self) -> int:
        """Waits for the player's end; its exit code, negative for the signal that ended it."""
        self._connection.send(_REAP)
        return self._number()

    def _number(self) -> int:
        data = self._connection.recv(_NUMBER.size)
        if not data:
            raise RuntimeError("the process that forks players is gone")
        number: int = _NUMBER.unpack(data)[0]
        return number


def _become_mother(connection: socket.socket) -> NoReturn:
    code = 1
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        # Above all the lock of the worker's directory, which says that the worker lives.
        _close_all_but(0, 1, 2, connection.fileno())
        for name in _SECRETS:
            os.environ.pop(name, None)
        is_exact()  # half a second that a player would spend
        gc.collect()
        gc.freeze()  # the garbage collector shall not write to the pages that players share
        _serve(connection)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _serve(connection: socket.socket) -> None:
    mother, child = os.getpid(), 0
    while True:
        request, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
        if request == _FORK:
            child = os.fork()
            if child == 0:
                connection.close()
                _become_player(mother, *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            connection.send(_NUMBER.pack(child))
        elif request == _REAP:
            _, status = os.waitpid(child, 0)
            child = 0
            connection.send(_NUMBER.pack(os.waitstatus_to_exitcode(status)))
        else:
            if child:
                kill_group(child)
            return


def kill_group(leader: int) -> None:
    """Ends a process that has not been reaped, and all that it left in its group."""
    for kill in (os.killpg, os.kill):  # it may not lead its group yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(leader, signal.SIGKILL)


def _become_player(mother: int, connection: int, output: int) -> NoReturn:
    code = 1
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != mother:
            os._exit(code)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.enable(2)
        with socket.socket(fileno=connection) as served:
            player.serve(served)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # also with threads that would never end


def _close_all_but(*kept: int) -> None:
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) not in kept:
            with contextlib.suppress(OSError):  # the one that lists them
                os.close(int(entry))
