"""A replica that is overtaken in the middle of a batch: it writes nothing more, and does nothing more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daf_common.clock import ManualClock
from daf_common.errors import Aborted
from daf_common.ids import CountedIds
from daf_common.leases import Leader
from daf_common.store import Store
from daf_training import store
from daf_training.jobs import Action, Job, JobState
from daf_training.queue_store import wanting
from daf_training.reconciler import JobController
from daf_training.settings import TrainingSettings
from daf_training.tables import MIGRATIONS

if TYPE_CHECKING:
    from .conftest import Machines

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(open_store: Callable[[str, Path], Store]) -> Store:
    return open_store("training", MIGRATIONS)


@pytest.fixture
async def leaders(database: Store, clock: ManualClock) -> tuple[Leader, Leader]:
    first, second = (Leader(database, store.LEASE, replica, clock) for replica in ("a", "b"))
    await first.attempt()
    await second.attempt()
    return first, second


@pytest.fixture
def controller(
    database: Store, leaders: tuple[Leader, Leader], machines: Machines, clock: ManualClock, tmp_path: Path
) -> JobController:
    settings = TrainingSettings(home=tmp_path, training_cpus=2, training_memory_gib=None, training_gpus=0)
    return JobController(database, leaders[0], machines, settings, clock, CountedIds(), lambda *ids: None)


async def overtake(leaders: tuple[Leader, Leader], clock: ManualClock) -> None:
    clock.advance(11)
    assert await leaders[1].attempt() == 2


async def test_what_an_overtaken_replica_decided_is_not_written(
    database: Store, controller: JobController, leaders: tuple[Leader, Leader], clock: ManualClock
) -> None:
    await database.run(store.add_job, Job("one", b"", NOW))
    (job,) = (await controller.load(["one"])).values()
    await overtake(leaders, clock)
    started = replace(job, state=JobState.STARTING, attempt=1)

    with pytest.raises(Aborted, match="another replica leads"):
        await controller.save({"one": (job, started)})
    with pytest.raises(Aborted, match="taken over"):  # even where it has not noticed yet
        await database.run(store.save_decided, [(job, started)], NOW, controller._capacity, 1)

    assert (await database.read(store.get_job, "one")).state is JobState.PENDING
    assert await controller.load(["one"]) == {}


async def test_what_was_read_under_an_earlier_fence_is_not_written_under_a_later_one(
    database: Store, controller: JobController, leaders: tuple[Leader, Leader], clock: ManualClock
) -> None:
    await database.run(store.add_job, Job("one", b"", NOW))
    (job,) = (await controller.load(["one"])).values()
    await overtake(leaders, clock)
    await leaders[1].stop()
    assert await leaders[0].attempt() == 3

    with pytest.raises(Aborted):
        await controller.save({"one": (job, replace(job, state=JobState.STARTING, attempt=1))})


async def test_what_an_overtaken_replica_wanted_to_do_is_not_done(
    database: Store, controller: JobController, leaders: tuple[Leader, Leader], machines: Machines, clock: ManualClock
) -> None:
    starting = Job("one", b"", NOW, state=JobState.STARTING, attempt=1)
    await database.run(store.add_job, starting)
    await controller.load(["one"])
    await overtake(leaders, clock)

    with pytest.raises(Aborted):
        await controller.perform("one", starting, Action.START_WORKLOAD)
    assert machines.started == {}


async def test_the_leader_hears_of_what_asks_for_something_and_not_of_progress(database: Store) -> None:
    states = {
        "waits": Job("waits", b"", NOW),
        "trains": Job("trains", b"", NOW, state=JobState.RUNNING, attempt=1),
        "stops": Job("stops", b"", NOW, state=JobState.RUNNING, attempt=1, cancel_requested=True),
    }
    for job in states.values():
        await database.run(store.add_job, job)
    assert set(await database.read(wanting, 0)) == {"waits", "stops"}
    assert set(await database.read(wanting, 3)) == set()
