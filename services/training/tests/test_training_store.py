"""The tables of the training service, what clears them up, and the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from daf_common.channel import raising
from daf_common.clock import ManualClock
from daf_common.errors import InvalidArgument
from daf_common.store import COMMON, Store
from daf_common.workloads import Observation, State
from daf_protos.training.v1 import catalog_service_pb2 as pb
from daf_training import store
from daf_training.jobs import Job, JobState, cancel
from daf_training.rows import job_columns
from daf_training.sweeper import EXIT_SECONDS, Sweeper
from daf_training.tables import MIGRATIONS, TABLES

if TYPE_CHECKING:
    from .conftest import Stack
else:
    Stack = Any

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(open_store: Callable[[str, Path], Store]) -> Store:
    return open_store("training", MIGRATIONS)


def test_the_migrations_make_the_tables_of_the_code(database: Store) -> None:
    def relevant(_object: object, name: str | None, kind: str, _reflected: bool, _other: object) -> bool:
        return kind != "table" or name in {*TABLES.tables, *COMMON.tables}

    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_object": relevant, "compare_type": True, "target_metadata": [TABLES, COMMON]}
        )
        assert compare_metadata(context, [TABLES, COMMON]) == []


async def test_a_job_comes_back_as_it_was_stored(database: Store) -> None:
    job = Job(
        id="j",
        spec=b"spec",
        create_time=NOW,
        state=JobState.FAILED,
        attempt=2,
        token="t",
        effective_trainer={"learning_rate": 0.1, "anneal_lr": True, "minibatch_size": 512, "precision": "float32"},
        end_time=NOW + timedelta(seconds=1),
    )
    await database.run(store.add_job, job)

    assert await database.read(store.get_job, "j") == replace(job, revision=1)


async def test_a_change_of_an_outdated_job_is_not_stored(database: Store) -> None:
    await database.run(store.add_job, Job("j", b"", NOW))
    seen = await database.read(store.get_job, "j")
    await database.run(store.change_job, "j", lambda job: cancel(job, NOW), NOW)

    started = replace(seen, state=JobState.STARTING)
    await database.run(store.save_jobs, [(seen, started)], NOW, 1)

    assert (await database.read(store.get_job, "j")).state is JobState.CANCELLED


async def test_the_sweeper_stops_and_removes_workloads_that_are_over(stack: Stack, clock: ManualClock) -> None:
    machines = stack.machines
    await stack.training.store.run(store.add_job, Job("done", b"", NOW, state=JobState.FAILED, attempt=1))
    await stack.training.store.run(store.add_job, Job("runs", b"", NOW, state=JobState.RUNNING, attempt=2))
    machines.states = {
        "done-a1": Observation(State.RUNNING),
        "gone-a1": Observation(State.FAILED),
        "runs-a1": Observation(State.FAILED),
        "runs-a2": Observation(State.RUNNING),
    }
    sweeper = Sweeper(stack.training.store, machines, stack.artifacts, clock)

    await sweeper.step()
    assert machines.states.keys() == {"done-a1", "runs-a2"}
    assert machines.stopped == []  # it may end by itself
    clock.advance(EXIT_SECONDS)
    await sweeper.step()
    assert machines.stopped == ["done-a1"]


async def test_ten_thousand_waiting_jobs_do_not_slow_the_next_one(database: Store) -> None:
    def add_many(tx: Any) -> None:
        row = job_columns(Job("x", b"spec", NOW))
        tx.execute(sa.insert(store.JOBS), [{**row, "id": f"j{number}"} for number in range(10_000)])

    await database.run(add_many)
    assert await database.read(store.live_jobs, 2) == ["j0", "j1"]


async def test_the_catalogue_is_served(stack: Stack) -> None:
    missions = (await raising(stack.catalog.ListMissions(pb.ListMissionsRequest()))).missions
    policies = (await raising(stack.catalog.ListPolicies(pb.ListPoliciesRequest()))).policies
    request = pb.ListHyperparametersRequest(policy="lstm")
    parameters = (await raising(stack.catalog.ListHyperparameters(request))).hyperparameters

    assert next(m for m in missions if m.name == "cogsguard_machina_1.basic").cogs
    assert next(m for m in missions if m.name == "training_facility.easy_hearts_training").problem
    assert next(p for p in policies if p.name == "lstm").trainable
    rate = next(p for p in parameters if p.name == "trainer.learning_rate")
    assert rate.default_value.real == 0.00092
    assert "env.max_steps" in [p.name for p in parameters]
    with pytest.raises(InvalidArgument, match="unknown policy"):
        await raising(stack.catalog.ListHyperparameters(pb.ListHyperparametersRequest(policy="lstmm")))
