"""A network that is cut between a worker and its service: nothing fails, nothing is lost, and it goes on later."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daf_protos.training.v1.training_service_pb2 import CancelTrainingJobRequest
from tests.training_stack import ENDLESS, TrainingStack, wait_for

pytestmark = pytest.mark.timeout(900)

HEALED_WITHIN_SECONDS = 30.0


class Cable:
    """A TCP proxy in front of the stack. While it is cut, bytes wait and nobody is told: no connection is closed, new
    ones come about and stay silent."""

    def __init__(self) -> None:
        self.port = 0
        self._whole = asyncio.Event()
        self._whole.set()
        self._target: Path | None = None

    @contextlib.asynccontextmanager
    async def laid(self) -> AsyncIterator[None]:
        async with await asyncio.start_server(self._serve, "127.0.0.1") as server:
            self.port = server.sockets[0].getsockname()[1]
            yield

    def plug_in(self, target: Path) -> None:
        """Sets the unix socket on the other end."""
        self._target = target

    def cut(self) -> None:
        self._whole.clear()

    def heal(self) -> None:
        self._whole.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        assert self._target is not None
        there, back = await asyncio.open_unix_connection(str(self._target))
        await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while content := await reader.read(1 << 16):
                await self._whole.wait()
                writer.write(content)
                await writer.drain()
        writer.close()


@pytest.fixture
async def cable() -> AsyncIterator[Cable]:
    cable = Cable()
    async with cable.laid():
        yield cable


@pytest.mark.parametrize(
    "seconds", [5, pytest.param(60, marks=pytest.mark.chaos), pytest.param(300, marks=pytest.mark.chaos)]
)
async def test_training_goes_on_behind_a_cut_network_and_is_heard_of_soon_after(
    tmp_path: Path, cable: Cable, seconds: int
) -> None:
    stack = await asyncio.to_thread(TrainingStack, tmp_path, DAF_WORKER_ADDRESS=f"127.0.0.1:{cable.port}")
    cable.plug_in(tmp_path / "run" / "daf.sock")
    try:
        await stack.train("cut", workers=1, agent_steps=ENDLESS)
        await asyncio.to_thread(wait_for, lambda: stack.get("cut").progress.update > 1)

        cable.cut()
        cut = time.time()
        await asyncio.sleep(seconds)  # this is what is tested
        before = stack.get("cut")
        cable.heal()
        healed, healed_at = time.monotonic(), time.time()
        await asyncio.to_thread(wait_for, lambda: stack.get("cut").progress.update > before.progress.update)

        assert time.monotonic() - healed < HEALED_WITHIN_SECONDS
        after = stack.get("cut")
        assert (after.attempt, after.state) == (1, before.state)

        def has_gone_on() -> bool:
            """Whether it has not stood still: the numbers of that time may come with a later report than the first."""
            return any(cut < measured < healed_at for measured in stack.updates("cut").values())

        await asyncio.to_thread(wait_for, has_gone_on)
        stack.jobs.CancelTrainingJob(CancelTrainingJobRequest(name="trainingJobs/cut"))
        await asyncio.to_thread(stack.ended, "cut")
    finally:
        await asyncio.to_thread(stack.end)
