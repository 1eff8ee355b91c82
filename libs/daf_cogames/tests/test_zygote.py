"""The real zygote, with torch and cogames: workers start at once, share no state, and play exact episodes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daf_cogames.missions import Mission
from daf_cogames.play.episodes import EpisodeRunner
from daf_cogames.policies import PolicySource
from daf_cogames.seating import EpisodePlan
from daf_cogames.zygote import PRELOADED
from daf_common.processes import LocalProcesses, State, Status

WORKER = """
import json, os, sys, warnings

def report(argv):
    warm = sorted({"torch", "cogames.train", "mettagrid.runner.rollout", "grpc"} & set(sys.modules))
    import torch
    print(json.dumps({
        "modules": warm,
        "threads": len(os.listdir("/proc/self/task")),
        "torch_threads": torch.get_num_threads(),
        "random": torch.rand(1).item(),
        "warnings_are_errors": any(action == "error" for action, *_ in warnings.filters),
    }))

def play(argv):
    from daf_cogames.play.episodes import EpisodeRunner
    from daf_cogames.missions import Mission
    from daf_cogames.policies import PolicySource
    from daf_cogames.seating import EpisodePlan
    mission = Mission("cogsguard_arena.basic", cogs=2, max_steps=20)
    runner = EpisodeRunner(mission, [PolicySource("lstm"), PolicySource("random")])
    print(runner.run(EpisodePlan(3, 45, (0, 1))).digest)
"""


async def finish(processes: LocalProcesses, name: str) -> str:
    deadline = time.monotonic() + 120
    while processes.observe(name) == Status(State.RUNNING):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    output = processes.log(name).decode()
    assert processes.observe(name) == Status(State.EXITED, 0), output
    return output


async def make(directory: Path, monkeypatch: pytest.MonkeyPatch, main: str) -> LocalProcesses:
    directory.mkdir(exist_ok=True)
    (directory / "worker_of_zygote_test.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(directory))
    processes = LocalProcesses(directory / "processes", f"worker_of_zygote_test:{main}")
    await processes.ready()
    return processes


@pytest.fixture
async def reporting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalProcesses]:
    processes = await make(tmp_path, monkeypatch, "report")
    yield processes
    await processes.close()


@pytest.fixture
async def playing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalProcesses]:
    processes = await make(tmp_path, monkeypatch, "play")
    yield processes
    await processes.close()


async def test_workers_start_warm_single_threaded_and_with_their_own_random_state(reporting: LocalProcesses) -> None:
    reports = []
    for name in ("a-1", "a-2"):
        await reporting.start(name, [], {})
        reports.append(json.loads((await finish(reporting, name)).splitlines()[-1]))

    for report in reports:
        assert report["modules"] == ["cogames.train", "mettagrid.runner.rollout", "torch"]
        assert report["threads"] == 1
        assert report["torch_threads"] == 1
        assert not report["warnings_are_errors"]
    assert reports[0]["random"] != reports[1]["random"]


async def test_a_forked_worker_plays_the_same_episode_as_this_process(playing: LocalProcesses) -> None:
    mission = Mission("cogsguard_arena.basic", cogs=2, max_steps=20)
    runner = EpisodeRunner(mission, [PolicySource("lstm"), PolicySource("random")])
    expected = runner.run(EpisodePlan(3, 45, (0, 1))).digest

    await playing.start("a-1", [], {})

    assert (await finish(playing, "a-1")).splitlines()[-1] == expected


def test_what_is_preloaded_is_what_takes_time() -> None:
    assert {"torch", "cogames.train", "mettagrid.runner.rollout"} <= set(PRELOADED)
