"""The tables of the training service, what clears them up, and the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from daf_common.artifacts import ArtifactStore
from daf_common.channel import raising
from daf_common.clock import ManualClock
from daf_common.errors import InvalidArgument
from daf_common.failures import Failure
from daf_common.leases import Leader
from daf_common.migrations import upgrade
from daf_common.store import COMMON, Store
from daf_common.workloads import Observation, State
from daf_protos.training.v1 import catalog_service_pb2 as pb
from daf_protos.training.v1.training_job_pb2 import TrainingProgress
from daf_training import attempt_store, jobs, queue_store, store
from daf_training.admission import Capacity, Granted, Held
from daf_training.attempts import Attempt
from daf_training.jobs import AttemptEnd, Job, JobState, cancel
from daf_training.profiles import CPU_SMALL
from daf_training.rows import job_columns
from daf_training.sweeper import EXIT_SECONDS, Sweeper
from daf_training.tables import MIGRATIONS, TABLES

if TYPE_CHECKING:
    from .conftest import Machines, Stack
else:
    Machines = Stack = Any

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TWO_CPUS = Capacity(2, None, 0)


OLD_JOB = sa.text(
    "INSERT INTO jobs (number, id, spec, creator, max_restarts, max_checkpoints, state, cancel_requested, attempt, "
    "token, reports, log_bytes, failure_message, failure_subject, progress, checkpoint, effective_trainer, create_time)"
    " VALUES (:number, :id, :blob, '', 0, 5, :state, false, :attempt, '', 0, 0, '', '', :blob, :blob, '{}', "
    "'2026-01-01 00:00:00')"
)
"""As the version before wrote it."""


def upgrade_to(database: Store, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with database.engine.connect() as connection:
        if database.dialect == "postgresql":
            connection.execute(sa.schema.CreateSchema(database.schema))
            connection.commit()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()


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
        compute=replace(CPU_SMALL, workers=3, memory_gib=1.5),
        min_workers=1,
        max_restarts=4,
        restarts=1,
        max_checkpoints=7,
        attempt=2,
        token="t",
        workers=2,
        gpus=(0, 3),
        reports={0: 12, 2: 5},
        waiting_for="2 CPUs",
        failure=Failure("CRASHED", "it fell", "rank 1"),
        progress=b"progress",
        checkpoint=b"newest",
        best_checkpoint=b"best",
        effective_trainer={"learning_rate": 0.1, "anneal_lr": True, "minibatch_size": 512, "precision": "float32"},
        end_time=NOW + timedelta(seconds=1),
    )
    await database.run(store.add_job, job)

    assert await database.read(store.get_job, "j") == replace(job, revision=1, queue_number=1)


async def test_a_change_of_an_outdated_job_is_not_stored(database: Store) -> None:
    await database.run(store.add_job, Job("j", b"", NOW))
    seen = await database.read(store.get_job, "j")
    await database.run(store.cancel_job, "j", lambda job: cancel(job, NOW), NOW, TWO_CPUS)

    started = replace(seen, state=JobState.STARTING, attempt=1)
    await database.run(store.save_jobs, [(seen, started)], NOW, TWO_CPUS)

    assert (await database.read(store.get_job, "j")).state is JobState.CANCELLED
    assert await database.read(attempt_store.page_of_attempts, "j", None, 10) == []


async def test_attempts_are_written_down_as_they_begin_and_end(database: Store) -> None:
    await database.run(store.add_job, Job("j", b"", NOW, compute=replace(CPU_SMALL, workers=2)))
    waiting = await database.read(store.get_job, "j")
    await database.run(
        store.save_jobs, [(waiting, replace(waiting, state=JobState.STARTING, attempt=1))], NOW, TWO_CPUS
    )
    begun = await database.read(attempt_store.find_attempt, "j", 1)
    starting = await database.read(store.get_job, "j")
    done = TrainingProgress(agent_steps=500).SerializeToString()
    lost = replace(starting, state=JobState.PENDING, attempt_end=AttemptEnd(Failure("WORKER_LOST", "gone"), done))
    later = NOW + timedelta(minutes=1)
    await database.run(store.save_jobs, [(starting, lost)], later, TWO_CPUS)

    assert begun == Attempt("j", 1, 2, NOW)
    ended = replace(begun, agent_steps=500, failure=Failure("WORKER_LOST", "gone"), end_time=later)
    assert await database.read(attempt_store.page_of_attempts, "j", None, 10) == [ended]


async def test_the_sweeper_stops_and_removes_workloads_that_are_over(
    database: Store, machines: Machines, tmp_path: Path, clock: ManualClock
) -> None:
    await database.run(store.add_job, Job("done", b"", NOW, state=JobState.FAILED, attempt=1))
    await database.run(store.add_job, Job("runs", b"", NOW, state=JobState.RUNNING, attempt=2))
    machines.states = {
        "done-a1": Observation(State.RUNNING),
        "gone-a1": Observation(State.FAILED),
        "runs-a1": Observation(State.FAILED),
        "runs-a2": Observation(State.RUNNING),
    }
    leader = Leader(database, store.LEASE, "a", clock)
    await leader.attempt()
    sweeper = Sweeper(database, leader, machines, ArtifactStore(tmp_path.as_uri(), "training"), clock)

    await sweeper.step()
    assert machines.states.keys() == {"done-a1", "runs-a2"}
    assert machines.stopped == []  # it may end by itself
    clock.advance(EXIT_SECONDS)
    await sweeper.step()
    assert machines.stopped == ["done-a1"]


async def test_ten_thousand_waiting_jobs_do_not_slow_the_next_one(database: Store) -> None:
    def add_many(tx: Any) -> None:
        row = job_columns(Job("x", b"spec", NOW))
        rows = [{**row, "id": f"j{number}", "queue_number": number} for number in range(10_000)]
        tx.execute(sa.insert(store.JOBS), rows)

    await database.run(add_many)
    assert await database.read(queue_store.live_jobs) == [f"j{number}" for number in range(queue_store.FRONT)]
    assert sorted(await database.read(queue_store.next_jobs, TWO_CPUS)) == ["j0", "j1", "j2"]  # the first to wait, too
    batch = await database.read(store.load_jobs, ["j0", "j2", "j3", "j9999"], TWO_CPUS)
    assert batch.admissions == {
        "j0": Granted(),
        "j2": Held("1 CPU: 0 of 2 are free"),
        "j3": Held("j2, which is before it"),
        "j9999": Held("j9998, which is before it"),
    }


async def test_a_resumed_job_waits_behind_those_that_wait_already(database: Store) -> None:
    for job_id, state in (("a", JobState.FAILED), ("b", JobState.PENDING), ("c", JobState.PENDING)):
        await database.run(store.add_job, Job(job_id, b"", NOW, state=state))
    await database.run(store.resume_job, "a", lambda job, _: jobs.resume(job, b"", job.compute, NOW), NOW)
    await database.run(store.add_job, Job("d", b"", NOW))

    assert await database.read(queue_store.live_jobs) == ["b", "c", "a", "d"]


async def test_jobs_of_the_version_before_work_on(database_url: str, tmp_path: Path) -> None:
    database = Store(database_url, "training")
    upgrade_to(database, "0001")
    old = ["PENDING", "RUNNING", "SUCCEEDED"]
    with database.engine.begin() as connection:
        for number, state in enumerate(old, start=1):
            row = {"number": number, "id": f"j{number}", "state": state, "attempt": number - 1, "blob": b""}
            connection.execute(OLD_JOB, row)
    upgrade(database, MIGRATIONS)

    kept = await database.read(store.jobs_by_id, ["j1", "j2", "j3"])
    attempts = await database.read(attempt_store.page_of_attempts, "j3", None, 10)
    live = await database.read(queue_store.live_jobs)
    await database.run(store.add_job, Job("new", b"", NOW))
    new = await database.read(store.get_job, "new")
    database.close()

    assert [(job.state.value, job.compute, job.queue_number) for job in (kept["j1"], kept["j2"], kept["j3"])] == [
        (state, CPU_SMALL, number) for number, state in enumerate(old, start=1)
    ]
    assert [(attempt.number, attempt.workers) for attempt in attempts] == [(2, 1)]
    assert live == ["j2", "j1"]
    assert new.queue_number == 4


async def test_an_attempt_that_the_version_before_starts_has_all_workers(database: Store) -> None:
    compute = replace(CPU_SMALL, workers=3)
    few = Job("j", b"", NOW, compute=compute, min_workers=1, state=JobState.STARTING, attempt=1, workers=1)
    await database.run(store.add_job, few)
    await database.run(store.add_job, Job("waits", b"", NOW, compute=compute, min_workers=1))
    assert (await database.read(store.get_job, "j")).granted.workers == 1
    batch = await database.read(store.load_jobs, ["waits"], Capacity(3, None, 0))
    assert batch.admissions == {"waits": Granted(workers=2)}

    def start_again(tx: Any) -> None:
        tx.execute(sa.update(store.JOBS).where(store.JOBS.c.id == "j").values(attempt=2))  # it knows no more of this

    await database.run(start_again)
    assert (await database.read(store.get_job, "j")).granted.workers == 3
    batch = await database.read(store.load_jobs, ["waits"], Capacity(3, None, 0))
    assert batch.admissions == {"waits": Held("1 CPU: 0 of 3 are free")}


@pytest.mark.parametrize(
    ("state", "then"),
    [
        pytest.param("RUNNING", [{"state": "PENDING"}], id="it ends one that is repeated"),
        pytest.param("RUNNING", [{"state": "FAILED"}, {"state": "PENDING"}], id="it ends one and resumes the job"),
        pytest.param("PENDING", [{"state": "STARTING", "attempt": 2}], id="it starts the next"),
        pytest.param("PENDING", [{"state": "STARTING", "attempt": 2}, {"state": "PENDING"}], id="it ends that, too"),
    ],
)
async def test_what_the_version_before_does_with_an_attempt_of_fewer_workers_leads_to_one_with_all(
    database: Store, state: str, then: list[dict[str, Any]]
) -> None:
    compute = replace(CPU_SMALL, workers=4)
    few = Job("j", b"", NOW, compute=compute, min_workers=1, state=JobState(state), attempt=1, workers=2)
    await database.run(store.add_job, few)
    assert (await database.read(store.get_job, "j")).granted.workers == 2

    def as_it_does(tx: Any) -> None:  # it knows no more of this
        for columns in then:
            tx.execute(sa.update(store.JOBS).where(store.JOBS.c.id == "j").values(columns))

    await database.run(as_it_does)
    job = await database.read(store.get_job, "j")
    assert job.granted.workers == 4
    if job.state is JobState.PENDING:
        batch = await database.read(store.load_jobs, ["j"], Capacity(3, None, 0))
        assert batch.admissions == {"j": Granted(workers=3)}


async def test_what_a_job_that_waits_may_have_at_most_is_kept(database: Store) -> None:
    job = Job("j", b"", NOW, compute=replace(CPU_SMALL, workers=4), min_workers=1, attempt=1, workers=2)
    await database.run(store.add_job, job)
    batch = await database.read(store.load_jobs, ["j"], Capacity(3, None, 0))
    assert batch.admissions == {"j": Granted()}  # two fit
    started = replace(batch.jobs["j"], state=JobState.STARTING, attempt=2)
    await database.run(store.save_jobs, [(batch.jobs["j"], started)], NOW, TWO_CPUS)
    assert [attempt.workers for attempt in await database.read(attempt_store.page_of_attempts, "j", None, 1)] == [2]


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
