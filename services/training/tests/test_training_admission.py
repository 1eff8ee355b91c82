"""Which jobs may start: the pure decision, what this machine has, and the queue through the real service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daf_common.errors import FailedPrecondition
from daf_common.workloads import State
from daf_protos.training.v1 import worker_service_pb2 as worker_pb
from daf_protos.training.v1.training_job_pb2 import TrainingJobState
from daf_training import capacity
from daf_training.admission import Capacity, Granted, Held, Holding, Waiting, admit, never_fits
from daf_training.profiles import Resources
from daf_training.settings import TrainingSettings

if TYPE_CHECKING:
    from .conftest import Stack
else:
    Stack = Any

FAILED = worker_pb.TrainingOutcome(failure={"reason": "CRASHED", "message": "x"})


def waiting(*needs: tuple[int, float, int]) -> list[Waiting]:
    return [Waiting(f"j{number}", Resources(*each)) for number, each in enumerate(needs)]


def test_jobs_start_in_order_while_they_fit() -> None:
    answers = admit(waiting((1, 2, 0), (1, 2, 0), (1, 2, 0), (1, 2, 0)), [], Capacity(2, 16, 0))
    assert answers == {
        "j0": Granted(),
        "j1": Granted(),
        "j2": Held("1 CPU: 0 of 2 are free"),
        "j3": Held("j2, which is before it"),
    }


def test_a_job_that_does_not_fit_blocks_smaller_ones_behind_it() -> None:
    held = [Holding(Resources(3, 4, 0))]
    answers = admit(waiting((2, 8, 0), (1, 1, 0)), held, Capacity(4, 10.5, 0))
    assert answers["j0"] == Held("2 CPUs: 1 of 4 is free, 8 GiB of memory: 6.5 of 10.5 are free")
    assert answers["j1"] == Held("j0, which is before it")


def test_a_job_that_could_not_even_start_alone_blocks_nobody() -> None:
    answers = admit(waiting((8, 1, 0), (1, 1, 0)), [], Capacity(4, 16, 0))
    assert answers == {"j0": Held("8 CPUs, but there are only 4"), "j1": Granted()}


def test_every_gpu_goes_to_one_job() -> None:
    held = [Holding(Resources(1, 1, 2), (0, 2))]
    answers = admit(waiting((1, 1, 1), (1, 1, 1), (1, 1, 1)), held, Capacity(16, 16, 4))
    assert answers == {"j0": Granted((1,)), "j1": Granted((3,)), "j2": Held("1 GPU: 0 of 4 are free")}


def test_without_limits_everything_starts() -> None:
    answers = admit(waiting((64, 512, 16)), [Holding(Resources(10**6, 1e9, 100))], Capacity(None, None, None))
    assert answers == {"j0": Granted()}


def test_an_elastic_job_gets_as_many_workers_as_fit() -> None:
    elastic = Waiting("e", Resources(1, 2, 1), workers=4, min_workers=2)
    held = [Holding(Resources(1, 1, 1), (0,))]
    for gpus, gets in (
        (5, Granted((1, 2, 3, 4))),
        (4, Granted((1, 2, 3), workers=3)),
        (3, Granted((1, 2), workers=2)),
    ):
        assert admit([elastic], held, Capacity(8, None, gpus)) == {"e": gets}
    assert admit([elastic], held, Capacity(8, None, 2)) == {"e": Held("2 GPUs: 1 of 2 is free")}
    assert admit([elastic], [], Capacity(None, None, None)) == {"e": Granted()}


def test_an_elastic_job_takes_what_it_gets_from_those_behind_it_and_no_turn_from_those_before_it() -> None:
    elastic, one = Waiting("e", Resources(1, 1, 0), workers=4, min_workers=1), Waiting("a", Resources(1, 1, 0))
    assert admit([elastic, one], [], Capacity(3, None, 0)) == {
        "e": Granted(workers=3),
        "a": Held("1 CPU: 0 of 3 are free"),
    }
    three = Waiting("b", Resources(3, 1, 0))
    held = [Holding(Resources(1, 1, 0))]
    assert admit([three, elastic], held, Capacity(3, None, 0))["e"] == Held("b, which is before it")


needs = st.builds(Resources, st.integers(1, 8), st.sampled_from([0.5, 1, 2.1, 4]), st.integers(0, 4))


@settings(max_examples=300)
@given(
    st.lists(st.tuples(needs, st.integers(1, 3), st.integers(0, 3)), max_size=12),
    st.builds(
        Capacity,
        st.none() | st.integers(1, 12),
        st.none() | st.sampled_from([1, 4.2, 10, 16]),
        st.none() | st.integers(0, 6),
    ),
    st.data(),
)
def test_nothing_is_ever_given_twice_or_out_of_order(
    asked: list[tuple[Resources, int, int]], all_: Capacity, data: st.DataObject
) -> None:
    queue = [Waiting(f"j{number}", *each) for number, each in enumerate(asked)]
    running: dict[str, Holding] = {}
    started: list[str] = []
    while queue:
        answers = admit(queue, running.values(), all_)
        assert answers.keys() == {job.id for job in queue}
        granted = [job for job in queue if isinstance(answers[job.id], Granted)]
        possible = [job for job in queue if not never_fits(job.least, all_)]
        assert granted == possible[: len(granted)]
        if not granted and not running:
            assert not possible  # whatever can run gets its turn
            break
        for job in granted:
            answer = answers[job.id]
            assert isinstance(answer, Granted)
            assert (job.min_workers or job.workers) <= answer.workers < job.workers if answer.workers else True
            held = job.each.times(answer.workers or job.workers)
            running[job.id] = Holding(held, answer.gpus)
            assert len(answer.gpus) == (held.gpus if all_.gpus is not None else 0)
        started += [job.id for job in granted]
        queue = [job for job in queue if job not in granted]
        check(running, all_)
        if running:
            del running[data.draw(st.sampled_from(sorted(running)))]
    assert started == sorted(started, key=lambda job_id: int(job_id[1:]))


def check(running: dict[str, Holding], all_: Capacity) -> None:
    for field in ("cpus", "memory_gib", "gpus"):
        limit = getattr(all_, field)
        assert limit is None or sum(getattr(held.resources, field) for held in running.values()) <= limit + 1e-6
    gpus = [gpu for held in running.values() for gpu in held.gpus]
    assert len(gpus) == len(set(gpus))
    assert all(0 <= gpu < (all_.gpus or 0) for gpu in gpus)


def test_memory_is_counted_in_tenths_of_a_gib(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{(3 << 29) + (1 << 20)}\n")
    assert capacity.usable_memory_gib(tmp_path) == 1.5


def test_gpus_are_what_the_driver_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA A (UUID: GPU-1)'\necho '  MIG 1g'\necho 'GPU 1: NVIDIA A'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert capacity.gpus.__wrapped__() == 2
    program.write_text("#!/bin/sh\necho 'no driver'; exit 9\n")
    assert capacity.gpus.__wrapped__() == 0


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("2", 1), ("GPU-a, GPU-b", 2)])
def test_gpus_that_are_hidden_are_not_there(visible: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert capacity.gpus.__wrapped__() == count


def test_an_installation_says_in_its_environment_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    big = '[{"name": "big", "workers": 4, "environments": 8, "cpus": 2, "memory_gib": 1.5, "gpus": 0}]'
    for name, value in (("CPUS", "none"), ("MEMORY_GIB", "7.5"), ("GPUS", "3"), ("PROFILES", big), ("PROFILE", "big")):
        monkeypatch.setenv(f"DAF_TRAINING_{name}", value)
    said = TrainingSettings()
    assert said.capacity() == Capacity(None, 7.5, 3)
    assert said.profiles().find("") == said.profiles().find("big")
    monkeypatch.setenv("DAF_TRAINING_PROFILE", "huge")
    with pytest.raises(ValueError, match="no profile 'huge'"):
        TrainingSettings()


@pytest.fixture
async def with_gpus(stack: Stack) -> Stack:
    """The same service, started again on a machine with more in it."""
    await stack.stop()
    stack.settings.training_cpus, stack.settings.training_gpus = 32, 3
    await stack.start()
    return stack


async def test_jobs_wait_in_order_and_say_for_what(stack: Stack) -> None:
    for job_id, workers in (("a", 1), ("b", 2), ("c", 1)):
        await stack.create(job_id, workers=workers)
    first = await stack.started("a")
    assert (await stack.until_waiting_for("b", "2 CPUs: 1 of 2 is free")).state == (
        TrainingJobState.TRAINING_JOB_STATE_PENDING
    )
    await stack.until_waiting_for("c", "b, which is before it")  # though it would fit

    await stack.succeed(first)
    second = await stack.started("b")
    assert (await stack.get("b")).waiting_for == ""
    await stack.until_waiting_for("c", "1 CPU: 0 of 2 are free")
    await stack.succeed(second)
    await stack.started("c")


async def test_when_the_first_that_waits_is_cancelled_the_next_one_gets_its_turn(stack: Stack) -> None:
    for job_id, workers in (("a", 1), ("b", 2), ("c", 1)):
        await stack.create(job_id, workers=workers)
    await stack.until_waiting_for("c", "b, which is before it")
    await stack.cancel("b")
    await stack.started("c")


async def test_a_lost_attempt_keeps_its_place(stack: Stack) -> None:
    for job_id in ("a", "b", "c"):
        await stack.create(job_id, workers=2, max_restarts=1)
    await stack.started("a")
    stack.machines.end("a-a1", State.FAILED, "ended by SIGKILL")
    await stack.started("a", attempt=2)
    assert "b-a1" not in stack.machines.started


async def test_what_can_never_start_is_refused_before_anything_is_written(stack: Stack) -> None:
    for fields in ({"workers": 3}, {"profile": "gpu-1"}):
        with pytest.raises(FailedPrecondition, match=r"but there (are|is) only"):
            await stack.create("j", **fields)
    await stack.create("j")


async def test_jobs_get_gpus_of_their_own(with_gpus: Stack) -> None:
    stack = with_gpus
    for job_id in ("a", "b", "c", "d"):
        await stack.create(job_id, profile="gpu-1")
    seen = {}
    for job_id in ("a", "b", "c"):
        await stack.started(job_id)
        seen[job_id] = stack.machines.started[f"{job_id}-a1"].environment["CUDA_VISIBLE_DEVICES"]
    assert sorted(seen.values()) == ["0", "1", "2"]
    await stack.until_waiting_for("d", "1 GPU: 0 of 3 are free")

    await stack.report(await stack.started("b"), 1, outcome=FAILED)
    await stack.started("d")
    assert stack.machines.started["d-a1"].environment["CUDA_VISIBLE_DEVICES"] == seen["b"]


async def test_a_restarted_service_remembers_who_has_what(stack: Stack) -> None:
    await stack.create("a", workers=2)
    await stack.started("a")
    await stack.stop()
    await stack.start()
    await stack.create("b")
    await stack.until_waiting_for("b", "1 CPU: 0 of 2 are free")
