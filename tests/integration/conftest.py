"""A stack with stand-in compute for the tests of a module."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from daf.client import Client
from daf_standalone.settings import Home
from daf_standalone.stack import embedded_settings
from tests.standin_stack import standin_host


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("stack") / "home")


@pytest.fixture(scope="module")
def address(home: Home) -> Iterator[str]:
    """A stack with stand-in compute, served by another thread."""
    started, stopping = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("DAF_HOME", str(home.directory))
            host = standin_host(home)
        await host.start()
        started.set()
        await stopping.wait()
        await host.stop()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(120)
    yield embedded_settings(home).listen
    loop.call_soon_threadsafe(stopping.set)
    thread.join(120)
    loop.close()


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client
