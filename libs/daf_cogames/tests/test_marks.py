"""Marks of the policy at work: what is written is what the other side reads."""

from __future__ import annotations

import os

import pytest

from daf_cogames.play import marks
from daf_cogames.play.marks import EPISODE, NOBODY, WHO, Mark, at_work, decode, encode, playing


@pytest.mark.parametrize("stage", ["load", "start", "step"])
@pytest.mark.parametrize("seat", [None, 0, 9_999])
@pytest.mark.parametrize("policy", [0, 1, 999])
def test_a_code_names_its_call(policy: int, seat: int | None, stage: marks.Stage) -> None:
    mark = Mark(policy, seat, stage)
    assert encode(mark) != NOBODY
    assert decode(encode(mark)) == mark


@pytest.mark.parametrize("code", [NOBODY, 0xF, -1])
def test_what_is_no_code_names_nobody(code: int) -> None:
    assert decode(code) is None


def test_a_mark_is_seen_from_another_process_and_stays_when_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "_cells", marks.cells())  # restored afterwards
    cells = marks.share()
    pid = os.fork()
    if pid == 0:
        with playing(6), at_work(2, 3, "step"):
            os._exit(0)
    os.waitpid(pid, 0)
    assert decode(cells[WHO]) == Mark(2, 3, "step")
    assert cells[EPISODE] == 7


def test_a_mark_is_taken_off_when_a_policy_raises_but_not_when_the_process_ends() -> None:
    cells = marks.cells()
    with pytest.raises(ValueError, match="no luck"), playing(1), at_work(0, None, "load"):
        raise ValueError("no luck")
    assert (cells[WHO], cells[EPISODE]) == (NOBODY, 0)
    with pytest.raises(KeyboardInterrupt), at_work(0, None, "load"):
        raise KeyboardInterrupt
    assert decode(cells[WHO]) == Mark(0, None, "load")
    cells[WHO] = NOBODY
