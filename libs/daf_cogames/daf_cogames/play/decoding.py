"""Decoding observations faster, and exactly as mettagrid does.

mettagrid takes an observation apart number by number in numpy, which is half of the time of an episode with a
scripted policy. Here the columns become Python lists first. The result is equal in values and types; should it ever
not be, the check that is made once in each process notices, and mettagrid's own decoding stays.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mettagrid.config.id_map import ObservationFeatureSpec
from mettagrid.simulator.interface import AgentObservation, Location, ObservationToken
from mettagrid.simulator.simulator import Simulation, SimulationAgent, Simulator

from daf_cogames.missions import Mission, build_mission
from daf_cogames.play.observations import decoded

_CHECKED_MISSION = Mission("cogsguard_arena.basic", cogs=2, map_seed=0)
_CHECKED_STEPS = 20

_logger = logging.getLogger(__name__)
_original: property = vars(SimulationAgent)["observation"]
_original_location: property = vars(ObservationToken)["location"]


@contextmanager
def fast_decoding() -> Iterator[None]:
    """Decode fast for the time of the block, if that is exact in this process."""
    if not is_exact():
        yield
        return
    _install(property(_observation), property(_location))
    try:
        yield
    finally:
        _install(_original, _original_location)


@functools.cache
def is_exact() -> bool:
    """Whether fast decoding gave the same as mettagrid's in a short simulation (0.1 s, once in each process)."""
    try:
        difference = _first_difference()
    except Exception:
        _logger.exception("fast decoding of observations failed its check and stays off")
        return False
    if difference is not None:
        _logger.warning("fast decoding of observations differs from mettagrid's and stays off: %s", difference)
        return False
    return True


def _observation(agent: SimulationAgent) -> AgentObservation:
    """What `SimulationAgent.observation` returns."""
    simulation: Simulation = agent._sim
    rows = simulation._c_sim.observations()[agent._agent_id]
    return decoded(agent._agent_id, rows, simulation._features)


def _first_difference() -> str | None:
    """Play a little with the agents walking about, and decode what each sees in both ways."""
    simulation = Simulator().new_simulation(build_mission(_CHECKED_MISSION), seed=0)
    actions = simulation.action_names
    for step in range(_CHECKED_STEPS):
        for agent in simulation.agents():
            if _plain(_observation(agent)) != _plain(_original.__get__(agent)):
                return f"in step {step}, for agent {agent.id}"
            agent.set_action(actions[(step + agent.id) % len(actions)])
        simulation.step()
    return None


def _plain(observation: AgentObservation) -> str:
    """Everything about an observation that a policy could notice."""
    tokens = [
        (token.feature, token.value, type(token.value), type(token.raw_token), bytes(token.raw_token))
        for token in observation.tokens
    ]
    return repr((observation.agent_id, type(observation.tokens), tokens))


def _location(token: ObservationToken) -> Location | None:
    """What `ObservationToken.location` returns."""
    return _locations()[token.raw_token[0]]


@functools.cache
def _locations() -> list[Location | None]:
    """By the byte that says where a token is."""
    no_feature = ObservationFeatureSpec(id=0, name="", normalization=1.0)
    tokens = [ObservationToken(feature=no_feature, value=0, raw_token=(byte, 0, 0)) for byte in range(256)]
    return [_original_location.__get__(token) for token in tokens]


def _install(observation: property, location: property) -> None:
    SimulationAgent.observation = observation  # type: ignore[method-assign, assignment]
    ObservationToken.location = location  # type: ignore[method-assign, assignment]
