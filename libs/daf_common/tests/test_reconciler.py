"""The reconciler: what it does with one controller, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

from daf_common.clock import ManualClock
from daf_common.errors import Unavailable
from daf_common.reconciler import Reconciler


class Counter:
    """Counts rows up to two, then acts until the action has been carried out."""

    def __init__(self, rows: dict[str, int]) -> None:
        self.rows = rows
        self.performed: list[str] = []
        self.fail_next = 0

    async def live(self) -> Sequence[str]:
        return list(self.rows)

    async def load(self, keys: Sequence[str]) -> Mapping[str, int]:
        return {key: self.rows[key] for key in keys if key in self.rows}

    async def observe(self, rows: Mapping[str, int]) -> Mapping[str, bool]:
        return {key: key in self.performed for key in rows}

    def decide(self, row: int, seen: bool, now: datetime) -> tuple[int, Sequence[str]]:
        if row < 2:
            return row + 1, ["never together with a change"]
        return row, [] if seen else ["act"]

    async def save(self, changes: Mapping[str, tuple[int, int]]) -> None:
        if self.fail_next:
            self.fail_next -= 1
            raise Unavailable("the database is away")
        self.rows.update({key: new for key, (_, new) in changes.items()})

    async def perform(self, key: str, row: int, action: str) -> None:
        assert action == "act"
        self.performed.append(key)


async def run_until_quiet(reconciler: Reconciler[int, bool, str], steps: int = 50) -> None:
    for _ in range(steps):
        await reconciler.step()
        await asyncio.sleep(0.01)


async def test_each_row_is_first_written_then_acted_upon_once(clock: ManualClock) -> None:
    controller = Counter({"a": 0, "b": 1})
    reconciler = Reconciler("test", controller, clock)
    reconciler.enqueue("a", "b", "a", "gone")

    await run_until_quiet(reconciler)

    assert controller.rows == {"a": 2, "b": 2}
    assert sorted(controller.performed) == ["a", "b"]


async def test_a_failure_is_tried_again(clock: ManualClock) -> None:
    controller = Counter({"a": 0})
    controller.fail_next = 2
    reconciler = Reconciler("test", controller, clock)
    reconciler.enqueue("a")

    await run_until_quiet(reconciler)

    assert controller.rows == {"a": 2}
    assert controller.performed == ["a"]


async def test_the_resync_finds_rows_that_nobody_announced(clock: ManualClock) -> None:
    controller = Counter({"a": 0})
    reconciler = Reconciler("test", controller, clock, resync_seconds=0.01)
    reconciler.start()
    async with asyncio.timeout(30):
        while not controller.performed:
            await asyncio.sleep(0.01)
    await reconciler.stop()
    assert controller.performed == ["a"]
