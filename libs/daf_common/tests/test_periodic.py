"""What is done now and then: again and again, whatever comes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from daf_common import periodic
from daf_common.errors import FailedPrecondition, Unavailable
from daf_common.periodic import Periodic

REST, RETRY = 60.0, 1.0


class Rests:
    """Takes the place of `asyncio.sleep`: notes how long each rest was to be, and ends the first ones at once."""

    def __init__(self, ended: int) -> None:
        self.seconds: list[float] = []
        self.reached = asyncio.Event()
        self._ended = ended

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) > self._ended:
            self.reached.set()
            await asyncio.Event().wait()


class Steps:
    """A step that fails in its turn; None stands for one that does not."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self._outcomes: Iterator[Exception | None] = iter(outcomes)
        self.taken = 0

    async def step(self) -> None:
        self.taken += 1
        if error := next(self._outcomes):
            raise error


async def rests_between(task: Periodic, ended: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    rests = Rests(ended)
    monkeypatch.setattr(periodic.asyncio, "sleep", rests.sleep)
    task.start()
    await asyncio.wait_for(rests.reached.wait(), 30)
    await task.stop()
    return rests.seconds


async def test_it_goes_on_whatever_happens_and_sooner_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(None, Unavailable("away"), ValueError("a defect"), None)

    rests = await rests_between(Periodic("p", steps.step, REST, retry_seconds=RETRY), 3, monkeypatch)

    assert (steps.taken, rests) == (4, [REST, RETRY, RETRY, REST])


async def test_what_passes_is_information_and_a_defect_has_a_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    steps = Steps(Unavailable("away"), FailedPrecondition("lacking"), ValueError("a defect"))

    await rests_between(Periodic("p", steps.step, REST, passing=(Unavailable, FailedPrecondition)), 2, monkeypatch)

    assert [
        (record.levelname, bool(record.exc_info)) for record in caplog.records if record.name == periodic.__name__
    ] == [
        ("INFO", False),
        ("INFO", False),
        ("ERROR", True),
    ]
    assert "p: will be tried again: away" in caplog.text


async def test_steps_that_take_long_are_taken_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.01, 10.0, 12.0])  # the first takes 0.01 s, the second 2 s
    monkeypatch.setattr(periodic, "time", SimpleNamespace(monotonic=lambda: next(times)))
    steps = Steps(None, None)

    rests = await rests_between(Periodic("p", steps.step, REST, largest_share=0.02), 1, monkeypatch)

    assert rests == [REST, pytest.approx(98)]


async def test_it_stops_in_the_midst_of_a_step() -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def step() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    task = Periodic("p", step, REST)
    task.start()
    await begun.wait()
    await task.stop()

    assert left.is_set()


async def test_what_was_never_started_can_be_stopped() -> None:
    await Periodic("p", Steps().step, REST).stop()
