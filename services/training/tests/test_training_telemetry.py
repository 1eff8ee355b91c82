"""What the training service counts of attempts, steps and waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY

from daf_common.clock import ManualClock
from daf_common.workloads import State
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.training.v1 import worker_service_pb2 as worker_pb
from daf_protos.training.v1.training_job_pb2 import TrainingProgress

if TYPE_CHECKING:
    from .conftest import Stack


class Changes:
    """How much metrics have changed since it was made."""

    def __init__(self) -> None:
        self._before = {(s.name, *s.labels.values()): s.value for m in REGISTRY.collect() for s in m.samples}

    def __call__(self, name: str, **labels: str) -> float:
        before = self._before.get((name, *labels.values()), 0.0)
        return (REGISTRY.get_sample_value(name, labels) or 0.0) - before


def progress(steps: int) -> TrainingProgress:
    return TrainingProgress(agent_steps=steps, total_agent_steps=1000, update=steps // 100)


async def test_steps_that_are_trained_again_count_again_and_reports_that_come_again_do_not(stack: Stack) -> None:
    changed = Changes()
    await stack.create("j", max_restarts=1)
    first = await stack.started("j")
    saved = await stack.resumable(first, 3)
    for sequence, steps in ((1, 300), (1, 300), (2, 900)):
        await stack.report(first, sequence, progress=progress(steps), checkpoints=[saved] if steps == 300 else [])
    assert changed("daf_training_agent_steps_total") == 900
    assert changed("daf_training_checkpoints_total") == 1
    assert changed("daf_training_checkpoint_bytes_total") == saved.weights.size_bytes + saved.trainer_state.size_bytes

    stack.machines.end("j-a1", State.FAILED, "ended by SIGKILL")
    second = await stack.started("j", attempt=2)
    await stack.report(second, 1, progress=progress(400), resumed_update=3)
    assert changed("daf_training_agent_steps_total") == 900 + 100
    assert changed("daf_training_attempts_ended_total", reason="WORKER_LOST") == 1
    await stack.cancel("j")


async def test_waits_are_those_of_the_first_attempt_and_starts_those_of_each(stack: Stack, clock: ManualClock) -> None:
    changed = Changes()
    await stack.create("before", workers=2)
    blocking = await stack.started("before")
    await stack.create("j", max_restarts=1)
    await stack.until_waiting_for("j", "CPU")
    clock.advance(60)
    await stack.succeed(blocking)
    first = await stack.started("j")
    clock.advance(5)
    await stack.report(first, 1, progress=progress(100))
    assert changed("daf_training_queue_wait_seconds_sum") == pytest.approx(60)
    assert changed("daf_training_start_seconds_sum") == pytest.approx(5)
    assert changed("daf_training_time_to_first_step_seconds_sum") == pytest.approx(65)

    stack.machines.end("j-a1", State.FAILED, "ended by SIGKILL")
    second = await stack.started("j", attempt=2)
    clock.advance(7)
    await stack.report(second, 1, progress=progress(100))
    assert changed("daf_training_start_seconds_sum") == pytest.approx(5 + 7)
    assert changed("daf_training_queue_wait_seconds_count") == 2
    assert changed("daf_training_time_to_first_step_seconds_sum") == pytest.approx(65)
    await stack.cancel("j")


async def test_reasons_that_workers_make_up_are_one_label(stack: Stack) -> None:
    changed = Changes()
    for number in range(3):
        await stack.create(f"j{number}")
        worker = await stack.started(f"j{number}")
        failure = Failure(reason=f"MADE_UP_{number}", message="for the sake of it")
        await stack.report(worker, 1, outcome=worker_pb.TrainingOutcome(failure=failure))
    assert changed("daf_training_attempts_ended_total", reason="OTHER") == 3
    labels = {s.labels["reason"] for family in REGISTRY.collect() for s in family.samples if "reason" in s.labels}
    assert not any("MADE_UP" in reason for reason in labels)
