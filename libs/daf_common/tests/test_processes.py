"""Processes outlive the service that started them, are found again by their locks, and leave their exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from daf_common.processes import LocalProcesses, ProcessError, State, Status

WORKER = """
import os, random, signal, subprocess, sys, time

def main(argv):
    print("started", *argv, flush=True)
    if argv[0] == "return":
        return int(argv[1])
    if argv[0] == "raise":
        raise RuntimeError("no luck")
    if argv[0] == "exit":
        sys.exit(argv[1])
    if argv[0] == "print":
        print(eval(argv[1]))
    if argv[0] == "wait":
        signal.pause()
    if argv[0] == "graceful":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        print("ready", flush=True)
        signal.pause()
    if argv[0] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "1000"])
        print("ready", child.pid, flush=True)
        while True:
            signal.pause()
    if argv[0] == "hang on exit":
        import threading
        threading.Thread(target=time.sleep, args=(1000,)).start()
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "worker_of_test.py").write_text(textwrap.dedent(WORKER))
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret of the service")
    return tmp_path / "processes"


def make(directory: Path, on_exit: Callable[[str], None] = lambda name: None) -> LocalProcesses:
    return LocalProcesses(directory, "worker_of_test:main", preload=[], on_exit=on_exit)


@pytest.fixture
async def processes(directory: Path) -> AsyncIterator[LocalProcesses]:
    processes = make(directory)
    yield processes
    for name in processes.names():
        await processes.stop(name, grace_seconds=0)
        await ended(processes, name)
    await processes.close()


async def until(condition: Callable[[], bool], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


async def ended(processes: LocalProcesses, name: str) -> Status:
    def is_over() -> bool:
        status = processes.observe(name)
        return status is not None and status.state is not State.RUNNING

    await until(is_over)
    status = processes.observe(name)
    assert status is not None
    return status


async def test_the_exit_code_and_the_output_are_kept(processes: LocalProcesses) -> None:
    await processes.start("a-1", ["return", "7"], {})

    assert await ended(processes, "a-1") == Status(State.EXITED, 7)
    assert processes.log("a-1") == b"started return 7\n"
    assert processes.names() == ["a-1"]


@pytest.mark.parametrize(
    ("argv", "code", "printed"),
    [
        (["return", "0"], 0, b"started"),
        (["raise"], 1, b"RuntimeError: no luck"),
        (["exit", "a message"], 1, b"a message"),
        (["hang on exit"], 0, b"started"),
    ],
)
async def test_a_worker_ends_as_the_interpreter_would(
    argv: list[str], code: int, printed: bytes, processes: LocalProcesses
) -> None:
    await processes.start("a-1", argv, {})

    assert await ended(processes, "a-1") == Status(State.EXITED, code)
    assert printed in processes.log("a-1")


async def test_starting_twice_is_starting_once(processes: LocalProcesses) -> None:
    await processes.start("a-1", ["graceful"], {})
    first = processes.process_id("a-1")

    await processes.start("a-1", ["graceful"], {})
    await until(lambda: b"ready" in processes.log("a-1"))

    assert first is not None
    assert processes.process_id("a-1") == first
    assert processes.log("a-1") == b"started graceful\nready\n"


async def test_one_that_has_ended_is_not_started_again(processes: LocalProcesses) -> None:
    await processes.start("a-1", ["return", "3"], {})
    await ended(processes, "a-1")

    await processes.start("a-1", ["wait"], {})

    assert processes.observe("a-1") == Status(State.EXITED, 3)


async def test_an_unknown_process_is_none_and_a_bad_name_an_error(processes: LocalProcesses) -> None:
    assert processes.observe("a-1") is None
    assert processes.process_id("a-1") is None
    assert processes.log("a-1") == b""
    for name in ("../a", "", "A", "a" * 64, "a/b", "a\n"):
        with pytest.raises(ValueError, match="DNS-1123"):
            processes.observe(name)


async def test_the_environment_is_the_one_given_and_what_a_machine_needs(processes: LocalProcesses) -> None:
    await processes.start("a-1", ["print", "sorted(os.environ)"], {"DAF_TOKEN": "t"})
    await ended(processes, "a-1")

    printed = processes.log("a-1").decode()
    assert "'DAF_TOKEN'" in printed
    assert "'PATH'" in printed
    assert "AWS_SECRET_ACCESS_KEY" not in printed


async def test_a_worker_is_a_process_of_its_own(processes: LocalProcesses, directory: Path) -> None:
    await processes.start("a-1", ["print", "os.getsid(0) == os.getpid(), os.getcwd()"], {})
    await processes.start("a-2", ["print", "signal.getsignal(signal.SIGINT).__name__"], {})
    await processes.start("a-3", ["print", "len(os.listdir('/proc/self/fd'))"], {})
    for name in processes.names():
        await ended(processes, name)

    assert processes.log("a-1").decode().splitlines()[1] == f"(True, '{directory / 'a-1'}')"
    assert processes.log("a-2").splitlines()[1] == b"default_int_handler"
    # stdin, stdout, stderr, the lock, and the directory that is being listed: nothing of the zygote's
    assert processes.log("a-3").splitlines()[1] == b"5"


async def test_workers_draw_different_random_numbers(processes: LocalProcesses) -> None:
    for name in ("a-1", "a-2"):
        await processes.start(name, ["print", "random.random()"], {})
        await ended(processes, name)

    drawn = {processes.log(name).splitlines()[1] for name in ("a-1", "a-2")}
    assert len(drawn) == 2


async def test_a_stopped_process_may_end_by_itself(processes: LocalProcesses) -> None:
    await processes.start("a-1", ["graceful"], {})
    await until(lambda: b"ready" in processes.log("a-1"))

    await processes.stop("a-1", grace_seconds=1000)

    assert await ended(processes, "a-1") == Status(State.EXITED, 143)


async def test_one_that_does_not_end_is_killed_with_its_children(processes: LocalProcesses) -> None:
    await processes.start("a-1", ["stubborn"], {})
    await until(lambda: b"ready" in processes.log("a-1"))
    child = int(processes.log("a-1").split()[-1])

    await processes.stop("a-1", grace_seconds=0.05)

    assert await ended(processes, "a-1") == Status(State.EXITED, -signal.SIGKILL)
    await until(lambda: not is_alive(child))


async def test_stopping_what_has_ended_does_nothing(processes: LocalProcesses) -> None:
    await processes.start("a-1", ["return", "0"], {})
    await ended(processes, "a-1")

    await processes.stop("a-1", grace_seconds=0)
    await processes.stop("never-started", grace_seconds=0)

    assert processes.observe("a-1") == Status(State.EXITED, 0)


async def test_a_crash_is_seen_with_its_signal(processes: LocalProcesses) -> None:
    await processes.start("a-1", ["wait"], {})
    process = processes.process_id("a-1")
    assert process is not None

    os.kill(process, signal.SIGKILL)

    assert await ended(processes, "a-1") == Status(State.EXITED, -9)


async def test_whoever_wants_to_know_is_told_of_an_exit(directory: Path) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    processes = make(directory, told.put_nowait)

    await processes.start("a-1", ["return", "0"], {})

    assert await asyncio.wait_for(told.get(), 30) == "a-1"
    assert processes.observe("a-1") == Status(State.EXITED, 0)
    await processes.close()


async def test_a_new_service_adopts_what_still_runs(directory: Path, processes: LocalProcesses) -> None:
    before = make(directory)
    await before.start("a-1", ["graceful"], {})
    await until(lambda: b"ready" in before.log("a-1"))
    await before.close()  # as when the service is killed: the zygote's stdin closes

    assert processes.names() == ["a-1"]
    assert processes.observe("a-1") == Status(State.RUNNING)
    await processes.start("a-1", ["graceful"], {})
    await processes.stop("a-1", grace_seconds=1000)
    assert await ended(processes, "a-1") == Status(State.EXITED, 143)
    assert processes.log("a-1").count(b"started") == 1


async def test_a_killed_service_leaves_its_processes_running(directory: Path, processes: LocalProcesses) -> None:
    service = f"""
import asyncio, pathlib, signal
from daf_common.processes import LocalProcesses
async def serve():
    processes = LocalProcesses(pathlib.Path({str(directory)!r}), "worker_of_test:main", preload=[])
    await processes.start("a-1", ["graceful"], {{}})
    print("started", flush=True)
    await asyncio.Event().wait()
asyncio.run(serve())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", service, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    await parent.stdout.readline()

    parent.kill()
    await parent.wait()

    assert processes.observe("a-1") == Status(State.RUNNING)
    await until(lambda: b"ready" in processes.log("a-1"))
    await processes.stop("a-1", grace_seconds=1000)
    assert await ended(processes, "a-1") == Status(State.EXITED, 143)


async def test_one_killed_while_nobody_looks_is_lost(directory: Path) -> None:
    before = make(directory)
    await before.start("a-1", ["wait"], {})
    process = before.process_id("a-1")
    assert process is not None
    await before.close()

    os.kill(process, signal.SIGKILL)

    assert await ended(make(directory), "a-1") == Status(State.LOST)


async def test_a_process_id_is_trusted_only_while_the_lock_is_held(directory: Path, processes: LocalProcesses) -> None:
    (directory / "a-1").mkdir(parents=True)
    (directory / "a-1" / "lock").write_text(f"{os.getpid()}\n")  # by now the id of a stranger: this test

    await processes.stop("a-1", grace_seconds=0)

    assert processes.process_id("a-1") is None
    assert processes.observe("a-1") == Status(State.LOST)


async def test_a_zygote_that_dies_is_replaced(processes: LocalProcesses) -> None:
    await processes.start("a-1", ["graceful"], {})
    await until(lambda: b"ready" in processes.log("a-1"))
    zygote = parent_of(processes.process_id("a-1"))

    os.kill(zygote, signal.SIGKILL)
    await until(lambda: not is_alive(zygote))
    await processes.start("a-2", ["return", "5"], {})

    assert await ended(processes, "a-2") == Status(State.EXITED, 5)
    assert processes.observe("a-1") == Status(State.RUNNING)


async def test_a_zygote_that_cannot_start_says_where_to_look(directory: Path) -> None:
    processes = LocalProcesses(directory, "worker_of_test:main", preload=["no_such_module"])

    with pytest.raises(ProcessError, match=r"exit code 1; see its zygote\.log"):
        await processes.ready()

    assert "No module named 'no_such_module'" in (directory / "zygote.log").read_text()
    assert processes.names() == []
    await processes.close()


async def test_a_removed_process_is_forgotten_but_not_while_it_runs(processes: LocalProcesses) -> None:
    await processes.start("a-1", ["wait"], {})
    with pytest.raises(ProcessError, match="still running"):
        processes.remove("a-1")
    await processes.stop("a-1", grace_seconds=1000)
    await ended(processes, "a-1")

    processes.remove("a-1")

    assert processes.observe("a-1") is None
    assert processes.names() == []


async def test_many_at_once(processes: LocalProcesses) -> None:
    names = [f"a-{number}" for number in range(20)]

    await asyncio.gather(*(processes.start(name, ["return", str(index)], {}) for index, name in enumerate(names)))

    assert [await ended(processes, name) for name in names] == [Status(State.EXITED, index) for index in range(20)]


def is_alive(process: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def parent_of(process: int | None) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
