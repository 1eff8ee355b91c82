"""Stand-in compute that outlives services, as a cluster does: a process of its own, which replicas reach by a socket.

`python -m tests.standin_machine SOCKET SECONDS`; a call is a line of JSON, and so is its answer.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from daf_common.errors import Unavailable
from daf_common.workloads import Observation, State, Workload
from tests.standin import StandIn


class StandInMachine:
    """A `daf_common.workloads.Backend`: the workloads of one verb in that process."""

    def __init__(self, socket: Path, verb: str) -> None:
        self._socket, self._verb = socket, verb

    async def check(self) -> None:
        """See `Backend.check`."""

    def watch(self, on_change: Callable[[str], None]) -> None:
        """See `Backend.watch`. It tells nothing: what ends is found by looking."""

    async def start(self, workload: Workload) -> None:
        """See `Backend.start`."""
        known = {"name": workload.name, "verb": workload.verb, "replicas": workload.replicas}
        await self._call("start", workload={**known, "environment": dict(workload.environment)})

    async def observe(self) -> Mapping[str, Observation]:
        """See `Backend.observe`."""
        seen = await self._call("observe")
        return {name: Observation(State(state), message) for name, (state, message) in seen.items()}

    async def stop(self, name: str, grace_seconds: float) -> None:
        """See `Backend.stop`."""
        await self._call("stop", name=name, grace_seconds=grace_seconds)

    async def logs(self, name: str, replica: int = 0) -> bytes:
        """See `Backend.logs`."""
        return base64.b64decode(await self._call("logs", name=name, replica=replica))

    async def remove(self, name: str) -> None:
        """See `Backend.remove`."""
        await self._call("remove", name=name)

    async def close(self) -> None:
        """See `Backend.close`."""

    async def _call(self, call: str, **arguments: Any) -> Any:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket))
            writer.write(json.dumps({"verb": self._verb, "call": call, **arguments}).encode() + b"\n")
            answer = await reader.readline()
            writer.close()
        except OSError as error:
            raise Unavailable(f"the machine cannot be reached: {error}") from error
        if not answer:
            raise Unavailable("the machine is gone")
        return json.loads(answer)


async def _serve(socket: Path, seconds: float) -> None:
    backends = {"train": StandIn(seconds), "evaluate": StandIn()}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(await reader.readline())
        backend, call = backends[asked.pop("verb")], asked.pop("call")
        if call == "start":
            asked["workload"] = Workload(**asked["workload"])
        found = await getattr(backend, call)(**asked)
        if call == "observe":
            found = {name: (seen.state.value, seen.message) for name, seen in found.items()}
        elif call == "logs":
            found = base64.b64encode(found).decode()
        writer.write(json.dumps(found).encode() + b"\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(answer, str(socket), limit=1 << 20) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), float(sys.argv[2])))
