"""Finding, starting and stopping the stack, with a small process that keeps to the same contract in its place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daf import embedded
from daf.client import is_serving
from daf.embedded import EmbeddedStack, StackState
from daf_common.errors import Unavailable

STACK = """
import fcntl, os, signal, sys, pathlib, threading
from concurrent import futures
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

home = pathlib.Path(os.environ["DAF_HOME"])
with (home / "starts").open("a") as starts:
    starts.write("x")
if (home / "broken").exists():
    sys.exit("the database is of a newer version")
lock = (home / "run/standalone.lock").open("w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
address = f"unix:{home}/run/daf.sock"
(home / "run/standalone.pid").write_text(f"{os.getpid()}\\n")
(home / "run/address").write_text(f"{address}\\n")
server = grpc.server(futures.ThreadPoolExecutor(2))
checks = health.HealthServicer()
checks.set("", health_pb2.HealthCheckResponse.SERVING)
health_pb2_grpc.add_HealthServicer_to_server(checks, server)
server.add_insecure_port(address)
stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
server.start()
stopping.wait()
server.stop(None).wait()
"""


@pytest.fixture
def stack(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedStack]:
    package = tmp_path / "path" / "daf_standalone"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(STACK)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    made = EmbeddedStack(home)
    yield made
    made.stop(lambda _: None)


def starts(stack: EmbeddedStack) -> int:
    return len((stack.home / "starts").read_text())


def test_it_is_started_when_it_is_needed_and_found_after(stack: EmbeddedStack) -> None:
    notices: list[str] = []
    assert stack.state() is StackState.STOPPED

    address = stack.ensure(notices.append)
    again = stack.ensure(notices.append)

    assert address == again
    assert is_serving(address)
    assert stack.state() is StackState.RUNNING
    assert starts(stack) == 1
    assert len(notices) == 1
    assert "starting the embedded stack" in notices[0]


def test_two_at_once_start_one(stack: EmbeddedStack) -> None:
    command = [
        sys.executable,
        "-c",
        "import pathlib, os; from daf.embedded import EmbeddedStack;"
        "print(EmbeddedStack(pathlib.Path(os.environ['DAF_HOME'])).ensure(lambda _: None))",
    ]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) for _ in range(3)]

    addresses = {process.communicate(timeout=120)[0].strip() for process in processes}

    assert addresses == {stack.address}
    assert starts(stack) == 1


def test_it_stops_and_starts_again(stack: EmbeddedStack) -> None:
    stack.ensure(lambda _: None)

    assert stack.stop(lambda _: None)
    assert stack.state() is StackState.STOPPED
    assert not stack.stop(lambda _: None)

    stack.ensure(lambda _: None)
    assert starts(stack) == 2


def test_one_that_was_killed_is_replaced(stack: EmbeddedStack) -> None:
    stack.ensure(lambda _: None)
    assert stack.pid is not None
    os.kill(stack.pid, 9)
    os.waitpid(stack.pid, 0)

    stack.ensure(lambda _: None)

    assert starts(stack) == 2


def test_a_failed_start_shows_what_it_said_last(stack: EmbeddedStack) -> None:
    stack.home.mkdir(parents=True)
    stack.log.parent.mkdir(parents=True)
    stack.log.write_text("from an earlier start\n")
    (stack.home / "broken").touch()

    with pytest.raises(Unavailable, match="the database is of a newer version") as caught:
        stack.ensure(lambda _: None)

    assert "earlier start" not in caught.value.message
    assert str(stack.log) in caught.value.message


def test_without_the_services_package_it_says_what_to_install(
    stack: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(Unavailable, match="install daf-standalone"):
        stack.ensure(lambda _: None)
