"""The process that plays: it holds the table of one evaluation, and plays what its supervisor sends.

Policies run here, in process. So it may hang or end at any instruction: `daf_cogames.evaluation.supervision` sees to
that.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from daf_cogames.evaluation import frames
from daf_cogames.evaluation.table import Setting, Table, Unplayable, laid
from daf_cogames.policies import last_line
from daf_cogames.seating import EpisodePlan
from daf_protos.common.v1.failure_pb2 import Failure

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seats:
    """Asks for the number of seats of a mission."""

    mission: int


@dataclass(frozen=True)
class Play:
    """Asks for episodes of a mission; see `Table.play_all`."""

    mission: int
    plans: Sequence[EpisodePlan]
    forfeits: Mapping[int, Failure] = field(default_factory=dict)
    alone: bool = False


def serve(connection: socket.socket) -> None:
    """Takes a Setting, then answers requests until the supervisor is gone."""
    with contextlib.suppress(EOFError, ConnectionError):
        setting = frames.receive_object(connection)
        assert isinstance(setting, Setting)
        try:
            with laid(setting) as table:
                while True:
                    _answer(connection, table, frames.receive_object(connection))
        except Unplayable as error:
            _refuse(connection, error)


def _answer(connection: socket.socket, table: Table, request: object) -> None:
    try:
        match request:
            case Seats(mission):
                frames.send(connection, frames.SEATS, str(table.seats(mission)).encode())
            case Play(mission, plans, forfeits, alone):
                for episode in table.play_all(mission, plans, forfeits, alone=alone):
                    frames.send(connection, frames.EPISODE, episode.SerializeToString())
    except Unplayable as error:
        _refuse(connection, error)
    except (EOFError, ConnectionError, MemoryError):
        raise
    except Exception as error:
        logger.exception("this cannot be played: %s", request)
        _refuse(connection, Unplayable("CRASHED", f"it cannot be played: {last_line(error)}"))


def _refuse(connection: socket.socket, error: Unplayable) -> None:
    frames.send(connection, frames.UNPLAYABLE, error.failure.SerializeToString())
