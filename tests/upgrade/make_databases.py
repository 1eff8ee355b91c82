"""`python -m tests.upgrade.make_databases`: the databases of this version, for the tests of the versions after it.

Each service's SQLite file as SQL, after a sweep of two trials with stand-in compute. Run once a release.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from importlib.metadata import version
from pathlib import Path

from daf_common.channel import connect, raising
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_standalone.settings import Home
from tests.requests import all_trials, finished_sweep, result_digest, sweep_request
from tests.standin_stack import standin_host


async def _sweep(home: Home) -> str:
    host = standin_host(home)
    await host.start()
    async with connect(f"unix:{home.socket()}") as channel:
        stub = SchedulerServiceStub(channel)
        await raising(stub.CreateSweep(sweep_request("kept", 2, parallel=2)))
        sweep = await finished_sweep(stub, "sweeps/kept")
        digest = result_digest(sweep, await all_trials(stub, sweep.name))
    await host.stop()
    return digest


def main() -> None:
    """Writes `databases/VERSION/`."""
    directory = Path(__file__).parent / "databases" / version("daf")
    directory.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        home = Home(Path(temporary) / "home")
        (directory / "digest").write_text(asyncio.run(_sweep(home)) + "\n")
        for file in sorted((home.directory / "state").glob("*.db")):
            connection = sqlite3.connect(file)
            (directory / f"{file.stem}.sql").write_text("\n".join(connection.iterdump()) + "\n")
            connection.close()


if __name__ == "__main__":
    main()
