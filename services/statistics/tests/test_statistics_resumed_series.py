"""Metric series of a run that goes back to an earlier update: every update once, whatever is sent again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import daf_common.server
import daf_common.store
from daf_common.channel import raising
from daf_common.errors import InvalidArgument, Unavailable
from daf_common.faults import Faults, InjectedFault
from daf_protos.statistics.v1 import statistics_service_pb2 as pb

if TYPE_CHECKING:
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub

JOB, OTHER = "trainingJobs/resumed", "trainingJobs/other"


class CountedFaults(Faults):
    """Faults that tell how many there were."""

    injected = 0

    def inject(self, name: str) -> None:
        try:
            super().inject(name)
        except InjectedFault:
            self.injected += 1
            raise


type Series = dict[str, list[tuple[int, float]]]


def report(
    updates: range, attempt: int, after_step: int | None = None, source: str = JOB, **more: float
) -> pb.RecordMetricsRequest:
    """What an attempt measured; the loss tells which attempt it was: 2.011 is update 11 of attempt 2."""
    points = [
        pb.MetricPoint(step=update, agent_steps=update * 512, values={"loss": attempt + update / 1000, **more})
        for update in updates
    ]
    return pb.RecordMetricsRequest(source=source, points=points, after_step=after_step)


async def series(stub: StatisticsServiceAsyncStub, source: str = JOB) -> Series:
    answer = await raising(stub.ReadMetrics(pb.ReadMetricsRequest(source=source)))
    return {found.metric: list(zip(found.steps, found.values, strict=True)) for found in answer.series}


def losses(updates: range, attempt: int) -> list[tuple[int, float]]:
    return [(update, attempt + update / 1000) for update in updates]


async def test_the_abandoned_tail_is_replaced_and_nothing_else(stub: StatisticsServiceAsyncStub) -> None:
    await raising(stub.RecordMetrics(report(range(1, 21), attempt=1, gone=1.0)))
    await raising(stub.RecordMetrics(report(range(1, 21), attempt=1, source=OTHER)))

    answer = await raising(stub.RecordMetrics(report(range(11, 14), attempt=2, after_step=10)))

    assert answer.recorded == 3
    found = await series(stub)
    assert found["loss"] == losses(range(1, 11), 1) + losses(range(11, 14), 2)
    assert [step for step, _ in found["gone"]] == list(range(1, 11))
    assert await series(stub, OTHER) == {"loss": losses(range(1, 21), 1)}


async def test_going_back_needs_no_points_and_may_drop_everything(stub: StatisticsServiceAsyncStub) -> None:
    await raising(stub.RecordMetrics(report(range(1, 21), attempt=1)))

    await raising(stub.RecordMetrics(report(range(0), attempt=2, after_step=5)))
    partly = await series(stub)
    await raising(stub.RecordMetrics(report(range(0), attempt=3, after_step=0)))

    assert partly == {"loss": losses(range(1, 6), 1)}
    assert await series(stub) == {}


async def test_an_update_that_is_reported_twice_is_there_once_with_its_first_value(
    stub: StatisticsServiceAsyncStub,
) -> None:
    await raising(stub.RecordMetrics(report(range(1, 4), attempt=1)))

    again = await raising(stub.RecordMetrics(report(range(3, 6), attempt=2)))

    assert again.recorded == 2
    assert await series(stub) == {"loss": losses(range(1, 4), 1) + losses(range(4, 6), 2)}


async def test_the_same_return_many_times_at_once_is_one_return(stub: StatisticsServiceAsyncStub) -> None:
    await raising(stub.RecordMetrics(report(range(1, 21), attempt=1)))
    back = report(range(11, 14), attempt=2, after_step=10)

    await asyncio.gather(*(raising(stub.RecordMetrics(back)) for _ in range(50)))

    assert await series(stub) == {"loss": losses(range(1, 11), 1) + losses(range(11, 14), 2)}


async def test_a_reader_sees_the_series_before_or_after_the_return_and_nothing_between(
    stub: StatisticsServiceAsyncStub,
) -> None:
    before, after = report(range(1, 21), attempt=1), report(range(11, 21), attempt=2, after_step=10)
    old = {"loss": losses(range(1, 21), 1)}
    new = {"loss": losses(range(1, 11), 1) + losses(range(11, 21), 2)}
    await raising(stub.RecordMetrics(before))

    _, *seen = await asyncio.gather(raising(stub.RecordMetrics(after)), *(series(stub) for _ in range(20)))

    assert all(found in (old, new) for found in seen)
    assert await series(stub) == new


async def test_a_run_that_resumes_twice_under_faults_has_the_series_of_a_run_without_faults(
    stub: StatisticsServiceAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = [
        *(report(range(start, start + 5), attempt=1) for start in range(1, 31, 5)),
        *(report(range(start, start + 5), attempt=2, after_step=20 if start == 21 else None) for start in (21, 26, 31)),
        *(report(range(start, start + 5), attempt=3, after_step=24 if start == 25 else None) for start in (25, 30, 35)),
    ]
    faults = CountedFaults(rate=0.2, seed=11)
    for module in (daf_common.store, daf_common.server):
        monkeypatch.setattr(module, "FAULTS", faults)

    for request in reports:
        while True:
            try:
                await raising(stub.RecordMetrics(request))
                break
            except Unavailable:  # after the channel itself has tried some times
                continue

    monkeypatch.undo()
    assert faults.injected >= 5
    expected = losses(range(1, 21), 1) + losses(range(21, 25), 2) + losses(range(25, 40), 3)
    assert await series(stub) == {"loss": expected}


async def test_a_return_to_before_the_beginning_is_refused(stub: StatisticsServiceAsyncStub) -> None:
    await raising(stub.RecordMetrics(report(range(1, 4), attempt=1)))

    with pytest.raises(InvalidArgument) as refused:
        await raising(stub.RecordMetrics(report(range(4, 6), attempt=2, after_step=-1)))

    assert [violation.field for violation in refused.value.violations] == ["after_step"]
    assert await series(stub) == {"loss": losses(range(1, 4), 1)}


async def test_a_request_that_comes_late_takes_nothing_from_those_that_followed_it(
    stub: StatisticsServiceAsyncStub,
) -> None:
    def of_attempt(updates: range, attempt: int, after_step: int | None = None) -> pb.RecordMetricsRequest:
        request = report(updates, attempt, after_step)
        request.attempt = attempt
        return request

    await raising(stub.RecordMetrics(of_attempt(range(1, 21), 1)))
    await raising(stub.RecordMetrics(of_attempt(range(11, 14), 2, after_step=10)))
    await raising(stub.RecordMetrics(of_attempt(range(14, 16), 2)))

    # Through a replica that was stopped meanwhile; what it sends, its caller has long sent by way of another.
    again = await raising(stub.RecordMetrics(of_attempt(range(11, 14), 2, after_step=10)))
    late = await raising(stub.RecordMetrics(of_attempt(range(21, 23), 1)))

    assert (again.recorded, late.recorded) == (0, 0)
    assert await series(stub) == {"loss": losses(range(1, 11), 1) + losses(range(11, 16), 2)}

    await raising(stub.RecordMetrics(of_attempt(range(13, 14), 3, after_step=12)))
    assert await series(stub) == {"loss": losses(range(1, 11), 1) + losses(range(11, 13), 2) + losses(range(13, 14), 3)}


async def test_of_a_source_that_was_deleted_no_attempt_is_remembered(stub: StatisticsServiceAsyncStub) -> None:
    await raising(stub.RecordMetrics(pb.RecordMetricsRequest(source=JOB, attempt=3, after_step=0)))
    await raising(stub.DeleteNumbers(pb.DeleteNumbersRequest(name=JOB)))
    first = pb.RecordMetricsRequest(source=JOB, attempt=1, points=report(range(1, 3), 1).points)
    assert (await raising(stub.RecordMetrics(first))).recorded == 2
