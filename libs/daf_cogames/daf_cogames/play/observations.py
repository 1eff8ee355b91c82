"""Observations: from the rows of bytes that the simulator writes to the objects that policies see."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from mettagrid.config.id_map import ObservationFeatureSpec
from mettagrid.simulator.interface import AgentObservation, ObservationToken

# The feature id of a token that is not there; all after it are not, either.
_NO_FEATURE = 0xFF


def decoded(
    agent_id: int, rows: npt.NDArray[np.uint8], features: Mapping[int, ObservationFeatureSpec]
) -> AgentObservation:
    """What `SimulationAgent.observation` returns.

    rows: of the agent, [tokens, (location, feature, value)]; the tokens' `raw_token`s are views of it.
    """
    present = rows[:, 1].tolist()
    count = present.index(_NO_FEATURE) if _NO_FEATURE in present else len(present)
    values = rows[:count, 2].tolist()
    return AgentObservation(
        agent_id=agent_id,
        tokens=list(map(ObservationToken, map(features.__getitem__, present[:count]), values, rows)),
    )


def encoded(observation: AgentObservation, tokens: int) -> bytes:
    """The rows of an observation that was decoded, all of them: those without a token are 255s."""
    rows = np.full((tokens, 3), _NO_FEATURE, dtype=np.uint8)
    for row, token in zip(rows, observation.tokens, strict=False):
        row[:] = token.raw_token
    return rows.tobytes()
