"""What runs beside a worker for the policies of other people: a warm process, and one that it forks for each policy.

`python -I -m daf_cogames.sandbox.child SOCKET SCRATCH PARENT`, started with an empty environment, imports what every
policy needs and then forks on request. It runs no foreign code itself, and knows nothing that is worth stealing. What
it forks confines itself, loads one policy, plays one episode and is killed: so no policy sees another's, or what it
left behind in an earlier episode.

On its socket, each way one JSON object a line:

    <- {"ready": {...}}: what is enforced
    -> {"fork": {}} with two descriptors: the channel and the output of the policy <- {"pid": 4711}
    -> {"copy": {"of": "..."}}: a directory for a set-up script to work in <- {"copied": "..."}
    -> {"wait": {"pid": 4711}} <- {"code": -11}: how it ended; null if it had to be killed
    -> {"reap": {"pids": [4711]}} <- {}
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from daf_cogames.sandbox.confinement import Enforced, die_with_parent, enter_namespaces

PRELOADED = ("torch", "daf_cogames.sandbox.policy")

_PATIENCE_SECONDS = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Preloads, then serves until the socket closes."""
    descriptor, scratch, parent = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.dont_write_bytecode = True
    enforced = enter_namespaces(Path(scratch))
    die_with_parent(int(parent))
    _preload()
    _Nursery(socket.socket(fileno=int(descriptor)), Path(scratch), enforced).serve()
    return 0


def _preload() -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    from mettagrid.policy.loader import discover_and_register_policies

    discover_and_register_policies()
    sys.modules["torch"].set_num_threads(1)
    gc.collect()
    gc.freeze()


class _Nursery:
    """The warm process's side of its socket."""

    def __init__(self, control: socket.socket, scratch: Path, enforced: Enforced) -> None:
        self._control, self._scratch, self._enforced = control, scratch, enforced
        self._number = 0
        self._scratches: dict[int, Path] = {}

    def serve(self) -> None:
        self._answer(ready=dataclasses.asdict(self._enforced))
        while True:
            line, descriptors, _, _ = socket.recv_fds(self._control, 1 << 16, 2)
            if not line:
                return
            [(verb, fields)] = json.loads(line).items()
            match verb:
                case "fork":
                    self._fork(*descriptors)
                case "copy":
                    self._answer(copied=str(self._copy(Path(fields["of"]))))
                case "wait":
                    self._answer(code=self._wait(fields["pid"]))
                case "reap":
                    for process in fields["pids"]:
                        self._wait(process)
                    self._answer()

    def _fork(self, channel: int, output: int) -> None:
        scratch, parent = self._new_directory(), os.getpid()
        process = os.fork()
        if process == 0:
            _become_policy(channel, output, parent, scratch, self._enforced)
        os.close(channel)
        os.close(output)
        self._scratches[process] = scratch
        self._answer(pid=process)

    def _copy(self, directory: Path) -> Path:
        copy = self._new_directory()
        shutil.copytree(directory, copy, dirs_exist_ok=True)
        return copy

    def _wait(self, process: int) -> int | None:
        """How a process ended, which is told; None where it had not, and was killed."""
        killed = False
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            ended, status = os.waitpid(process, 0 if killed else os.WNOHANG)
            if ended:
                break
            if time.monotonic() >= deadline:
                os.kill(process, signal.SIGKILL)
                killed = True
            time.sleep(0.002)
        shutil.rmtree(self._scratches.pop(process), ignore_errors=True)
        return None if killed else os.waitstatus_to_exitcode(status)

    def _new_directory(self) -> Path:
        self._number += 1
        directory = self._scratch / str(self._number)
        directory.mkdir()
        return directory

    def _answer(self, **fields: object) -> None:
        self._control.sendall(json.dumps(fields).encode() + b"\n")


def _become_policy(channel: int, output: int, parent: int, scratch: Path, enforced: Enforced) -> NoReturn:
    """In the forked process: everything, up to its end."""
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, channel)
        os.closerange(channel + 1, os.sysconf("SC_OPEN_MAX"))
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, errors="replace", closefd=False)
        from daf_cogames.sandbox.policy import serve

        serve(channel, parent, scratch, enforced)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
