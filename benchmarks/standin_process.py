"""Stand-in compute in a process of its own, as real workers are: what it costs is not charged to the services."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping

from daf_common.workloads import Observation, State, Workload
from tests.standin import StandIn


class StandInProcess:
    """A `daf_common.workloads.Backend` whose workloads run in another process."""

    def __init__(self, training_seconds: float) -> None:
        self._training_seconds = training_seconds
        self._starting = asyncio.Lock()
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._seen: dict[str, Observation] = {}

    async def check(self) -> None:
        """See `Backend.check`."""

    def watch(self, on_change: Callable[[str], None]) -> None:
        """See `Backend.watch`. Who uses this one is told by other means, or not at all."""

    async def start(self, workload: Workload) -> None:
        """See `Backend.start`."""
        if workload.name in self._seen:
            return
        self._seen[workload.name] = Observation(State.RUNNING)
        async with self._starting:
            if self._process is None:
                command = [sys.executable, "-m", "benchmarks.standin_process", str(self._training_seconds)]
                self._process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
                self._reader = asyncio.create_task(self._read(self._process))
        assert self._process.stdin
        self._process.stdin.write(json.dumps(dataclasses.asdict(workload)).encode() + b"\n")

    async def observe(self) -> Mapping[str, Observation]:
        """See `Backend.observe`."""
        return dict(self._seen)

    async def stop(self, name: str, grace_seconds: float) -> None:
        """See `Backend.stop`. Stand-in workloads end by themselves in a moment."""

    async def logs(self, name: str, replica: int = 0) -> bytes:
        """See `Backend.logs`."""
        return b""

    async def remove(self, name: str) -> None:
        """See `Backend.remove`."""
        self._seen.pop(name, None)

    async def close(self) -> None:
        """See `Backend.close`."""
        if self._process and self._process.stdin and self._reader:
            self._process.stdin.close()
            await self._process.wait()
            await self._reader

    async def _read(self, process: Process) -> None:
        assert process.stdout
        async for line in process.stdout:
            ended = json.loads(line)
            if ended["name"] in self._seen:
                self._seen[ended["name"]] = Observation(State(ended["state"]), ended["message"])


async def _serve(training_seconds: float) -> None:
    backend = StandIn(training_seconds, on_end=_tell)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        fields = json.loads(line)
        await backend.start(Workload(fields["name"], fields["verb"], fields["environment"], fields["replicas"]))
    await backend.close()


def _tell(name: str, observation: Observation) -> None:
    print(json.dumps({"name": name, "state": observation.state.value, "message": observation.message}), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
