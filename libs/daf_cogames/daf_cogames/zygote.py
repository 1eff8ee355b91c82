"""The zygote: a process that has imported torch and cogames, and forks workers from itself.

`python -m daf_cogames.zygote` reads requests from its stdin and writes events to its stdout, one JSON object a line:

    <- {"event": "ready"} -> {"id": 1, "directory": "/.../sweep-1-t3", "main": "daf_cogames.runner:main", "argv":
    ["train"], "env": {"A": "b"}} <- {"event": "started", "id": 1, "pid": 4711}      or {"event": "running", "id": 1}
    or {"event": "failed", ...} <- {"event": "exited", "directory": "/.../sweep-1-t3", "code": 0}

It ends when its stdin closes, which happens when the service that started it dies; its workers live on. Each holds
the lock of its directory for its life, so that the next service finds it there (see `daf_common.processes`).

It has one thread, and never imports grpc: what is forked must not be in the middle of anything.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import importlib
import json
import os
import random
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

# What every worker needs, and what takes seconds: modules to import and functions to call.
PRELOADED = (
    "torch",
    "cogames.train",
    "torch._dynamo",  # which making an optimizer imports, for a second
    "mettagrid.runner.rollout",
    "scipy.ndimage",  # which making a map imports
    "mettagrid.policy.loader:discover_and_register_policies",
    "daf_cogames.missions:mission_names",
    "daf_cogames.missions:variant_names",
    "daf_cogames.play.decoding:is_exact",  # which also builds a mission for the first time: half a second
    "daf_cogames.evaluation.mother",
    "daf_cogames.training.launcher",
)

# Workers give way: to the services of this machine, and to whoever sits before it.
NICENESS = 5

# An observer of the lock holds it for an instant, too.
_LOCK_ATTEMPTS = 10
_LOCK_PAUSE_SECONDS = 0.01


def main(arguments: Sequence[str] | None = None) -> int:
    """Preload, then serve until stdin closes."""
    parser = argparse.ArgumentParser(prog="daf_cogames.zygote", description="Forks workers from a warm process.")
    parser.add_argument("--preload", nargs="*", default=PRELOADED, metavar="MODULE[:FUNCTION]")
    options = parser.parse_args(arguments)
    _Zygote(*_take_channel()).run(options.preload)
    return 0


def _take_channel() -> tuple[int, int]:
    """Move the two ends of the channel away from stdin and stdout, where any import may read or print."""
    requests, events = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return requests, events


@dataclass(frozen=True)
class _Request:
    id: int
    directory: Path
    main: str
    argv: list[str]
    env: dict[str, str]


class _Zygote:
    def __init__(self, requests: int, events: int) -> None:
        self._requests = requests
        self._events = events
        self._unread = b""
        self._workers: dict[int, Path] = {}

    def run(self, preload: Sequence[str]) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _preload(preload)
        # A signal handler and a pipe, so that select() wakes up when a worker ends.
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        inherited = (self._requests, self._events, woken, wake)
        self._send(event="ready")
        while True:
            readable, _, _ = select.select([self._requests, woken], [], [])
            if woken in readable:
                os.read(woken, 4096)
                self._reap()
            if self._requests in readable and not self._serve(inherited):
                return

    def _serve(self, inherited: tuple[int, ...]) -> bool:
        """Answer the requests that have come; False when there will be no more."""
        data = os.read(self._requests, 65536)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            fields: dict[str, Any] = json.loads(line)
            request = _Request(**{**fields, "directory": Path(fields["directory"])})
            try:
                self._start(request, inherited)
            except OSError as error:
                self._send(event="failed", id=request.id, message=str(error))
        return bool(data)

    def _start(self, request: _Request, inherited: tuple[int, ...]) -> None:
        # Locked before the fork: the worker inherits the lock, and there is no moment in which it runs without.
        lock = os.open(request.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _try_lock(lock):
                self._send(event="running", id=request.id)
                return
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
            if pid == 0:
                _become_worker(request, lock, inherited)
            _write_process_id(lock, pid)
            self._workers[pid] = request.directory
            self._send(event="started", id=request.id, pid=pid)
        finally:
            os.close(lock)

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            directory = self._workers.pop(pid, None)
            if directory is None:
                continue  # a child of something that was preloaded
            code = os.waitstatus_to_exitcode(status)
            # What a worker left behind would hold its lock.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):  # the directory may have been removed
                if not (directory / "exit").exists():
                    write_exit_code(directory, code)
            self._send(event="exited", directory=str(directory), code=code)

    def _send(self, **event: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # the service is gone: stdin will say so
            os.write(self._events, json.dumps(event).encode() + b"\n")


def write_exit_code(directory: Path, code: int) -> None:
    """Leave a worker's exit code (negative: the signal that ended it) in its directory: whole, or not at all."""
    scratch = directory / f"exit.{os.getpid()}"
    scratch.write_text(f"{code}\n")
    scratch.rename(directory / "exit")


def _preload(modules: Sequence[str]) -> None:
    interrupt = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():  # pufferlib turns warnings into errors for the whole process
        for module in modules:
            name, _, function = module.partition(":")
            imported = importlib.import_module(name)
            if function:
                getattr(imported, function)()
    signal.signal(signal.SIGINT, interrupt)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "grpc" in sys.modules:
        raise RuntimeError("grpc was imported before the fork")
    if threading.active_count() > 1:
        raise RuntimeError(f"a thread was started before the fork: {threading.enumerate()[1:]}")
    gc.collect()
    gc.freeze()  # the garbage collector shall not write to the pages that workers share


def _try_lock(lock: int) -> bool:
    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return True
    return False


def _write_process_id(lock: int, pid: int) -> None:
    """By both: the zygote, so that it is there when the start is reported; the worker, should the zygote die before."""
    os.pwrite(lock, f"{pid}\n".encode(), 0)


def _become_worker(request: _Request, lock: int, inherited: tuple[int, ...]) -> NoReturn:
    """In the forked process: everything that makes it a process of its own, then its main function, then the end."""
    code = 1
    try:
        os.setsid()
        os.nice(NICENESS)
        _write_process_id(lock, os.getpid())
        signal.set_wakeup_fd(-1)
        for number, handler in (
            (signal.SIGCHLD, signal.SIG_DFL),
            (signal.SIGTERM, signal.SIG_DFL),
            (signal.SIGINT, signal.default_int_handler),
        ):
            signal.signal(number, handler)
        for descriptor in inherited:
            os.close(descriptor)
        log = os.open(request.directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.chdir(request.directory)
        os.environ.update(request.env)
        _reset_random_state()
        code = _call(_find(request.main), request.argv)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        with contextlib.suppress(Exception):
            write_exit_code(request.directory, code)
        os._exit(code & 0xFF)  # also with threads that would never end


def _find(main_function: str) -> Callable[[list[str]], int | None]:
    module, _, name = main_function.partition(":")
    function: Callable[[list[str]], int | None] = getattr(importlib.import_module(module), name)
    return function


def _call(function: Callable[[list[str]], int | None], argv: list[str]) -> int:
    """The exit code that the interpreter would have ended with."""
    try:
        return function(argv) or 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1


def _reset_random_state() -> None:
    """Workers of one zygote would otherwise draw the same numbers."""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


if __name__ == "__main__":
    sys.exit(main())
