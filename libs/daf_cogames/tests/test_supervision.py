"""Whatever a policy does, the others play on, and the forfeit is its own: real players, real episodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

PATIENT, STRICT = 60.0, 3.0
"""Seconds for a call: such that it never decides, and for policies that hang."""

SEATS = [0, 1, 0, 1]


class Program:
    """`supervised.py`, and what it says."""

    def __init__(self, errors: Path) -> None:
        self.errors = errors
        command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("supervised.py"))]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors.open("wb"), text=True
        )
        self.printed: list[str] = []

    def start(self, *policies: dict[str, Any], episodes: int = 1, limit: float = PATIENT, **more: Any) -> None:
        assert self.process.stdin is not None
        task = {"policies": policies, "seats": SEATS, "episodes": episodes, "limit": limit, **more}
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()

    def go_on(self, times: int) -> None:
        """Ends so many waits, each after an episode."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n" * times)
        self.process.stdin.flush()

    def news(self) -> dict[str, Any]:
        """The next that it says."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("NEWS "):
                return dict(json.loads(line.removeprefix("NEWS ")))
            self.printed.append(line)
        raise AssertionError(f"it ended: {self.errors.read_text()}")

    def result(self) -> dict[str, Any]:
        """What came of the task."""
        while "done" not in (news := self.news()):
            pass
        return dict(news["done"])

    def play(self, *policies: dict[str, Any], **task: Any) -> dict[str, Any]:
        self.printed.clear()
        self.start(*policies, **task)
        return self.result()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    started = Program(tmp_path_factory.mktemp("supervised") / "errors")
    yield started
    started.end()


def policy(class_path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": class_path, "arguments": arguments}


def hostile(deed: str, **arguments: Any) -> dict[str, Any]:
    return policy("hostile_policies.Hostile", deed=deed, **arguments)


STARTER, NOOP = policy("starter"), policy("noop")


@pytest.mark.parametrize(
    ("deed", "reason", "message"),
    [
        ("raise_error", "POLICY_FAILED", "failed to step in seat 1: RuntimeError: out of luck"),
        ("return_nothing", "POLICY_FAILED", "failed to step in seat 1: TypeError: step() returned NoneType"),
        ("return_unknown_action", "POLICY_FAILED", "which is no action of this environment"),
        ("raise_interrupt", "POLICY_CRASHED", "failed to step in seat 1: its process ended with exit code 1"),
        ("loop", "POLICY_HUNG", "failed to step in seat 1: it took longer than 3 s"),
        ("swallow_everything", "POLICY_HUNG", "failed to step in seat 1: it took longer than 3 s"),
        ("match_for_ever", "POLICY_HUNG", "failed to step in seat 1: it took longer than 3 s"),
        ("sleep_holding_the_interpreter", "POLICY_HUNG", "failed to step in seat 1: it took longer than 3 s"),
        ("exit_quietly", "POLICY_CRASHED", "failed to step in seat 1: its process ended with exit code 0"),
        ("abort", "POLICY_CRASHED", "failed to step in seat 1: its process was ended by SIGABRT"),
        ("segfault", "POLICY_CRASHED", "failed to step in seat 1: its process was ended by SIGSEGV"),
        ("kill_itself", "POLICY_CRASHED", "failed to step in seat 1: its process was ended by SIGKILL"),
        ("flood", "POLICY_FLOODED", "it printed more than 16 MiB in one episode"),
        ("flood_from_python", "POLICY_FLOODED", "it printed more than 16 MiB in one episode"),
    ],
)
def test_a_policy_forfeits_and_its_partners_play_on(program: Program, deed: str, reason: str, message: str) -> None:
    hangs = reason == "POLICY_HUNG"
    (episode,) = program.play(STARTER, hostile(deed), limit=STRICT if hangs else PATIENT)["episodes"]
    ((subject, found, said),) = episode["forfeits"]
    assert (subject, found) == ("1", reason)
    assert message in said
    assert episode["steps"] == 10
    # Those of the partner; a stand-in's time is nobody's.
    assert episode["timed"] == {"0": 20}


@pytest.mark.parametrize(
    ("stage", "deed", "message"),
    [
        ("load", "sleep_holding_the_interpreter", "failed to load: it took longer than"),
        ("agent", "raise_error", "failed to start in seat 1: RuntimeError: out of luck"),
        ("agent", "exit_quietly", "failed to start in seat 1: its process ended with exit code 0"),
        ("reset", "loop", "failed to start in seat 1: it took longer than"),
    ],
)
def test_a_policy_that_does_not_come_to_play_forfeits_too(
    program: Program, stage: str, deed: str, message: str
) -> None:
    limit = STRICT if "took longer" in message else PATIENT
    (episode,) = program.play(STARTER, hostile(deed, stage=stage), limit=limit)["episodes"]
    ((subject, _, said),) = episode["forfeits"]
    assert subject == "1"
    assert message in said
    assert episode["steps"] == 10


def test_the_same_stand_in_plays_however_a_policy_fails(program: Program) -> None:
    deeds = ("raise_error", "exit_quietly", "segfault")
    digests = {program.play(STARTER, hostile(deed))["episodes"][0]["digest"] for deed in deeds}
    assert len(digests) == 1


def test_only_the_episodes_in_which_it_fails_are_touched(program: Program) -> None:
    calm = program.play(STARTER, NOOP, episodes=6)["episodes"]
    failing = program.play(STARTER, hostile("exit_by_chance", stage="load", at=99), episodes=6)["episodes"]
    touched = [bool(episode["forfeits"]) for episode in failing]
    assert set(touched) == {False, True}
    for before, after, forfeited in zip(calm, failing, touched, strict=True):
        assert (before["digest"] != after["digest"]) == forfeited


def test_an_episode_that_ends_its_process_with_nobody_at_work_cannot_be_played(program: Program) -> None:
    reason, message = program.play(STARTER, hostile("exit_unmarked"))["unplayable"]
    assert reason == "CRASHED"
    assert message == "episode 0 with seed 100 cannot be played: its process ended with exit code 0"


@pytest.mark.parametrize("deed", ["kill_itself", "swallow_everything"])
def test_blame_is_exact_where_episodes_advance_together(program: Program, deed: str) -> None:
    raising, ending = (
        program.play(policy("lstm"), hostile(how, at=5, seat=3), episodes=3, limit=limit)["episodes"]
        for how, limit in (("raise_error", PATIENT), (deed, STRICT if deed == "swallow_everything" else PATIENT))
    )
    assert [episode["digest"] for episode in ending] == [episode["digest"] for episode in raising]
    assert all("failed to step in seat 3: " in episode["forfeits"][0][2] for episode in ending)


def test_two_policies_that_end_the_process_both_forfeit(program: Program) -> None:
    (episode,) = program.play(hostile("abort", at=5), hostile("exit_quietly", at=2))["episodes"]
    assert [(subject, reason) for subject, reason, _ in episode["forfeits"]] == [
        ("0", "POLICY_CRASHED"),
        ("1", "POLICY_CRASHED"),
    ]


def test_the_seat_is_the_one_where_it_happened(program: Program) -> None:
    (episode,) = program.play(STARTER, hostile("kill_itself", seat=3))["episodes"]
    assert "in seat 3" in episode["forfeits"][0][2]


@pytest.mark.parametrize(
    ("text", "stall", "message"),
    [
        ("while True: pass", 0.5, "it took longer than 0.5 s"),
        ("import os; os._exit(3)", PATIENT, "its process ended with exit code 3"),
    ],
)
def test_a_mission_that_never_builds_cannot_be_played(tmp_path: Path, text: str, stall: float, message: str) -> None:
    mission = tmp_path / "mine.py"
    mission.write_text(text)
    program = Program(tmp_path / "errors")
    program.start(STARTER, NOOP, mission=str(mission), stall=stall)
    assert program.result()["unplayable"] == ["CRASHED", f"episode 0 with seed 100 cannot be played: {message}"]
    program.end()


def test_what_a_chatty_policy_prints_is_cut_but_it_plays(program: Program) -> None:
    (episode,) = program.play(STARTER, hostile("chatter", at=8))["episodes"]
    assert episode["forfeits"] == []
    printed = "".join(program.printed)
    assert "more bytes of this episode's output were dropped" in printed
    assert 256 * 1024 <= len(printed) < 300 * 1024


def test_what_a_policy_leaves_behind_ends_with_its_player(program: Program) -> None:
    (episode,) = program.play(STARTER, hostile("leave_a_child"))["episodes"]
    assert episode["forfeits"][0][2].endswith("exit code 7")
    # The mother, and nobody else once the dying are dead.
    until(lambda: len(psutil.Process(program.process.pid).children(recursive=True)) == 1)


def test_a_player_that_is_killed_from_outside_costs_nobody_anything(program: Program) -> None:
    undisturbed = program.play(STARTER, NOOP, episodes=4)["episodes"]
    program.start(STARTER, NOOP, episodes=4, waits=True)
    os.kill(program.news()["player"], signal.SIGKILL)
    program.go_on(4)
    assert [episode["digest"] for episode in program.result()["episodes"]] == [
        episode["digest"] for episode in undisturbed
    ]


@pytest.mark.parametrize("victim", ["supervisor", "mother"])
def test_nobody_is_left_behind(tmp_path: Path, victim: str) -> None:
    program = Program(tmp_path / "errors")
    program.start(hostile("loop", at=2), STARTER, episodes=2)
    supervisor = psutil.Process(program.process.pid)
    (mother, player) = until(lambda: two(supervisor.children(recursive=True)))
    os.kill({"supervisor": supervisor, "mother": mother}[victim].pid, signal.SIGKILL)
    until(lambda: not any(alive(process) for process in (mother, player)))
    program.process.kill()
    program.process.wait()


def two(processes: list[psutil.Process]) -> list[psutil.Process] | None:
    return processes if len(processes) == 2 else None


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def until[T](condition: Callable[[], T]) -> T:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come about")
