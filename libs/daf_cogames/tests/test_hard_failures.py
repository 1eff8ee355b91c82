"""Whose a failure is that ended a process."""

from __future__ import annotations

import pytest

from daf_cogames.evaluation.hard_failures import Patience, PlayerDied, blame, broken, crashed, flooded, hung
from daf_cogames.play.marks import Mark

MARK = Mark(1, 2, "step")


@pytest.mark.parametrize("death", [hung(60, MARK, True), flooded(1 << 24, MARK, True)])
def test_what_had_to_be_ended_is_laid_at_who_was_at_work(death: PlayerDied) -> None:
    failure = blame(death, (), again=False)
    assert failure is not None
    assert (failure.policy, failure.seat, failure.stage, failure.reason) == (1, 2, "step", death.reason)


@pytest.mark.parametrize(
    "death",
    [
        crashed(-9, MARK, True),
        crashed(0, MARK, False),
        broken(MARK, True),
        hung(60, MARK, False),
        hung(600, None, True),
        crashed(1, None, True),
    ],
)
def test_what_is_not_certain_is_tried_once_more(death: PlayerDied) -> None:
    assert blame(death, (), again=False) is None


def test_a_second_crash_is_laid_at_who_was_at_work() -> None:
    failure = blame(crashed(-11, MARK, True), (), again=True)
    assert failure is not None
    assert "ended by SIGSEGV" in failure.message


@pytest.mark.parametrize(("mark", "forfeited"), [(None, ()), (MARK, (1,))])
def test_a_second_death_with_nobody_at_work_is_nobodys(mark: Mark | None, forfeited: tuple[int, ...]) -> None:
    with pytest.raises(PlayerDied, match="exit code 1"):
        blame(crashed(1, mark, True), forfeited, again=True)


def test_a_call_has_lasted_as_long_as_it_was_seen_to() -> None:
    patience = Patience(glance_seconds=1)
    times = [patience.waited("call", now) for now in (10.0, 11.0, 12.5)]
    assert times == [0, 1, 2.5]


def test_another_call_starts_anew() -> None:
    patience = Patience(glance_seconds=1)
    patience.waited("call", 10)
    patience.waited("call", 11)
    assert patience.waited("next call", 12) == 0
    assert patience.waited("next call", 13) == 1


def test_what_a_watcher_slept_through_counts_for_little() -> None:
    patience = Patience(glance_seconds=1)
    patience.waited("call", 10)
    assert patience.waited("call", 3600) == 2
