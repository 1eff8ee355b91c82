"""A process that has imported everything heavy and forks workers from there: a tenth of a second instead of seven.

It reads requests from standard input, a JSON object a line: `{"directory", "argv", "environment"}`. For each it forks a
worker that runs `daf_cogames.runner.main(argv)`, and answers with a line, `{"pid"}`. It never imports grpc (which must
not be loaded before a fork), starts no threads, and ends when its input does; its workers live on.

In its directory a worker has `lock`, locked as long as it lives; `pid`, to be believed while the lock is held; `log`,
what it printed; and in the end `exit`, its exit code (negative: the signal that ended it).
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import importlib
import json
import os
import selectors
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path


def preload() -> None:
    """Imports what workers need."""
    for module in ("cogames.cli.mission", "cogames.train", "mettagrid.runner.rollout", "daf_cogames.episodes"):
        importlib.import_module(module)
    importlib.import_module("torch").set_num_threads(1)  # a fork does not take threads along
    if "grpc" in sys.modules:
        raise RuntimeError("grpc is loaded: workers could not be forked")


def serve() -> None:
    """Forks workers until the input ends."""
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the whole group; the service decides
    directories: dict[int, Path] = {}
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(wakeup_read, selectors.EVENT_READ)
    pending = b""
    while True:
        for key, _ in selector.select():
            if key.fd == wakeup_read:
                os.read(wakeup_read, 512)
                _reap(directories)
                continue
            received = os.read(0, 65536)
            if not received:
                return
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                request = json.loads(line)
                directory = Path(request["directory"])
                pid = _fork(directory, request["argv"], request["environment"])
                directories[pid] = directory
                os.write(1, json.dumps({"pid": pid}).encode() + b"\n")


def _fork(directory: Path, argv: Sequence[str], environment: Mapping[str, str]) -> int:
    # The lock belongs to the open file, which the worker inherits: it is held before anybody hears of the worker.
    lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    pid = os.fork()
    if pid == 0:
        _work(directory, argv, environment)
    os.close(lock)
    return pid


def _work(directory: Path, argv: Sequence[str], environment: Mapping[str, str]) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        (directory / "pid").write_text(str(os.getpid()))
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(directory / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment)
        faulthandler.enable()
        from daf_cogames.runner import main

        code = main(list(argv))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        _write_exit(directory, code)
        os._exit(code)


def _reap(directories: dict[int, Path]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if directory := directories.pop(pid, None):
            _write_exit(directory, os.waitstatus_to_exitcode(status))


def _write_exit(directory: Path, code: int) -> None:
    with contextlib.suppress(FileNotFoundError):  # the service has removed a worker that it killed
        temporary = directory / f"exit.{os.getpid()}"
        temporary.write_text(str(code))
        temporary.replace(directory / "exit")


if __name__ == "__main__":
    preload()
    os.write(1, b'{"ready": true}\n')
    serve()
