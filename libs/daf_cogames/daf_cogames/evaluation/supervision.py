"""A table that survives any policy: it stands in a process of its own, and is set up anew when that one dies."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from google.protobuf.message import DecodeError

from daf_cogames.evaluation import frames
from daf_cogames.evaluation.frames import BrokenFrame, Frames
from daf_cogames.evaluation.hard_failures import Patience, PlayerDied, blame, broken, crashed, flooded, hung
from daf_cogames.evaluation.mother import Mother, kill_group
from daf_cogames.evaluation.player import Play, Seats
from daf_cogames.evaluation.player_output import FLOOD_BYTES, Output
from daf_cogames.evaluation.table import Setting, Unplayable, to_forfeit
from daf_cogames.play import marks
from daf_cogames.play.marks import Mark
from daf_cogames.seating import EpisodePlan
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.statistics.v1.episode_pb2 import Episode

logger = logging.getLogger(__name__)

STALL_SECONDS = 600.0
"""How long a player may take for anything that is not a policy's call, such as building a mission."""

_GLANCES_PER_LIMIT = 10
_MAX_GLANCE_SECONDS = 1.0
_LAST_BREATH_SECONDS = 5.0


class SupervisedTable:
    """The table of an evaluation, for as long as the context lasts. Policies that end its process forfeit."""

    def __init__(self, mother: Mother, setting: Setting) -> None:
        self._mother, self.setting = mother, setting
        self._player: Player | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_player()

    def seats(self, mission: int) -> int:
        """The number of seats of a mission. Raises Unplayable."""
        request = Seats(mission)
        try:
            return self._ready().seats(request)
        except PlayerDied as death:
            logger.warning("%s; the mission is built once more", death)
        try:
            return self._ready().seats(request)
        except PlayerDied as death:
            raise Unplayable(
                "CRASHED", f"the mission cannot be built: {death.message}", f"missions[{mission}]"
            ) from death

    def play_all(self, mission: int, plans: Sequence[EpisodePlan]) -> Generator[Episode]:
        """Plays episodes and yields them in their order; see `Table.play_all`. Raises Unplayable.

        Closed before all have come, it ends the player over the episode that it is at.
        """
        left, alone = list(plans), False
        try:
            while left:
                try:
                    for episode in self._ready().play(Play(mission, tuple(left), alone=alone)):
                        del left[0]
                        yield episode
                except PlayerDied as death:
                    alone = True
                    episode = self._play_again(mission, left[0], death)
                    del left[0]
                    yield episode
        finally:
            if left:
                self._end_player()

    def _play_again(self, mission: int, plan: EpisodePlan, death: PlayerDied) -> Episode:
        """Plays one episode until nobody is left in it who ends the player."""
        forfeits: dict[int, Failure] = {}
        again = False
        while True:
            logger.warning("episode %d with seed %d: the player died: %s", plan.index, plan.seed, death)
            try:
                failure = blame(death, forfeits, again)
            except PlayerDied as error:
                message = f"episode {plan.index} with seed {plan.seed} cannot be played: {error.message}"
                raise Unplayable("CRASHED", message) from error
            if failure is not None:
                logger.warning("%s in episode %d", failure, plan.index)
                forfeits[failure.policy] = to_forfeit(failure)
            again = failure is None
            try:
                (episode,) = self._ready().play(Play(mission, [plan], forfeits, alone=True))
            except PlayerDied as next_death:
                death = next_death
            else:
                return episode

    def _ready(self) -> Player:
        if self._player is None or self._player.code is not None:
            self._player = Player(self._mother, self.setting)
        return self._player

    def _end_player(self) -> None:
        if self._player is not None:
            self._player.end()
            self._player = None


class Player:
    """One player process, from the supervisor's side. Its methods raise Unplayable, and PlayerDied when it did."""

    def __init__(self, mother: Mother, setting: Setting) -> None:
        self._mother, self._cells = mother, mother.cells
        self._limit = setting.time_limit_seconds
        self._frames = Frames()
        self._due = 0
        """The cell EPISODE while the episode that is to come next is played, and no other."""
        self.code: int | None = None
        """Its exit code, once it has been ended."""
        for cell in (marks.WHO, marks.SINCE, marks.EPISODE):
            self._cells[cell] = 0
        self._connection, theirs = socket.socketpair()
        printed, output = os.pipe()
        self._pid = mother.fork(theirs, output)
        self._process = os.pidfd_open(self._pid)
        theirs.close()
        os.close(output)
        self._output = Output(printed, self._cells, 1, self._kill)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its death shows when it is to answer
            frames.send_object(self._connection, setting)

    def seats(self, request: Seats) -> int:
        """The number of seats of a mission."""
        ((_, payload),) = self._ask(request, 1)
        return int(payload)

    def play(self, request: Play) -> Iterator[Episode]:
        """The episodes that are asked for, as they come."""
        messages = self._ask(request, len(request.plans))
        for plan in request.plans:
            self._due = plan.index + 1
            _, payload = next(messages)
            try:
                episode = Episode.FromString(payload)
            except DecodeError:
                raise self._end_over(broken) from None
            yield episode

    def end(self) -> int:
        """Ends it, if it has not ended; its exit code."""
        if self.code is None:
            kill_group(self._pid)
            self.code = self._mother.reap()
            self._output.join()
            self._connection.close()
            os.close(self._process)
        return self.code

    def _ask(self, request: object, answers: int) -> Iterator[tuple[bytes, bytes]]:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            frames.send_object(self._connection, request)
        messages = self._messages()
        for _ in range(answers):
            kind, payload = next(messages)
            if kind == frames.UNPLAYABLE:
                raise _unplayable(payload)
            yield kind, payload

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        """What it says; meanwhile, watches it."""
        glance = min(self._limit / _GLANCES_PER_LIMIT, _MAX_GLANCE_SECONDS)
        patience = Patience(glance)
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(self._process, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll(1000 * glance)]
            if self._connection.fileno() in ready:
                yield from self._received()
            elif ready:
                raise self._ended()
            else:
                call = self._cells[marks.WHO], self._cells[marks.SINCE]
                limit = STALL_SECONDS if marks.decode(call[0]) is None else self._limit
                if patience.waited(call, time.monotonic()) > limit:
                    raise self._end_over(partial(hung, limit))

    def _received(self) -> Iterator[tuple[bytes, bytes]]:
        try:
            data = self._connection.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            raise self._ended()
        try:
            yield from self._frames.feed(data)
        except BrokenFrame:
            raise self._end_over(broken) from None

    def _ended(self) -> PlayerDied:
        """How it ended by itself."""
        # Its descriptors are closed a moment before it is dead.
        if not select.select([self._process], [], [], _LAST_BREATH_SECONDS)[0]:
            return self._end_over(broken)
        return self._end_over(partial(crashed, self.end()))

    def _end_over(self, death: Callable[[Mark | None, bool], PlayerDied]) -> PlayerDied:
        """Ends it for a reason; that of a flood comes first."""
        self.end()
        mark, exact = marks.decode(self._cells[marks.WHO]), self._cells[marks.EPISODE] == self._due
        if self._output.flooded:
            return flooded(FLOOD_BYTES, self._output.loudest(), exact)
        return death(mark, exact)

    def _kill(self) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)


def _unplayable(payload: bytes) -> Unplayable:
    failure = Failure.FromString(payload)
    return Unplayable(failure.reason, failure.message, failure.subject)
