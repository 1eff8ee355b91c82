"""What players print: how much of it is kept, and who printed it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from daf_cogames.evaluation import player_output
from daf_cogames.evaluation.player_output import FLOOD_BYTES, KEPT_BYTES, PIPE_BYTES, Output
from daf_cogames.play.marks import EPISODE, WHO, Mark, encode


class Printed:
    """An output whose player is this test."""

    def __init__(self, log: Path) -> None:
        self.cells = memoryview(bytearray(24)).cast("q")
        self.log, self._log = log, os.open(log, os.O_WRONLY | os.O_CREAT)
        self.flooded = threading.Event()
        read, self._write = os.pipe()
        self.output = Output(read, self.cells, self._log, self.flooded.set)

    def print(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._write, data) :]

    def end(self) -> str:
        os.close(self._write)
        self.output.join()
        os.close(self._log)
        return self.log.read_text() if self.log.is_file() else ""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that was printed is read, however long that takes."""
    monkeypatch.setattr(player_output, "_JOIN_SECONDS", 30.0)


@pytest.fixture
def start(tmp_path: Path) -> Callable[[], Printed]:
    return lambda: Printed(tmp_path / "log")


@pytest.mark.parametrize(
    ("printed", "dropped"), [(0, 0), (1, 0), (KEPT_BYTES, 0), (KEPT_BYTES + 1, 1), (3 * KEPT_BYTES, 2 * KEPT_BYTES)]
)
def test_so_much_of_an_episode_is_kept_and_the_rest_is_counted(
    start: Callable[[], Printed], printed: int, dropped: int
) -> None:
    player = start()
    player.print(b"x" * printed)
    text = player.end()
    assert text.count("x") == printed - dropped
    assert (f"[{dropped} more bytes of this episode's output were dropped]" in text) == (dropped > 0)
    assert not player.flooded.is_set()


def test_the_next_episode_may_print_as_much_again(start: Callable[[], Printed]) -> None:
    player = start()
    for episode in (1, 2):
        player.cells[EPISODE] = episode
        player.print(b"x" * KEPT_BYTES)
    # What is still on its way when the next begins counts as the next one's.
    assert player.end().count("x") >= 2 * KEPT_BYTES - 2 * PIPE_BYTES


def test_a_flood_is_laid_at_who_printed_most_of_it(start: Callable[[], Printed]) -> None:
    player = start()
    for policy, bytes_printed in ((0, KEPT_BYTES), (1, FLOOD_BYTES), (0, 1)):
        player.cells[WHO] = encode(Mark(policy, 2, "step"))
        player.print(b"x" * bytes_printed)
    assert player.flooded.wait(30)
    player.end()
    assert player.output.flooded
    assert player.output.loudest() == Mark(1, None, "step")


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    player = Printed(Path("/dev/full"))
    player.print(b"x" * 4 * KEPT_BYTES)
    assert player.end() == ""
