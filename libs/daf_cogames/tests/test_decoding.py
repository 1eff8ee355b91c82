"""Fast decoding gives a policy the very same observation, and stays off where it would not."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
from mettagrid.simulator.interface import AgentObservation, ObservationToken
from mettagrid.simulator.simulator import SimulationAgent, Simulator

from daf_cogames.missions import Mission, build_mission
from daf_cogames.play import decoding
from daf_cogames.play.decoding import fast_decoding, is_exact
from daf_cogames.play.episodes import EpisodeRunner
from daf_cogames.policies import PolicySource
from daf_cogames.seating import EpisodePlan

MISSION = Mission("cogsguard_arena.basic", cogs=2, max_steps=20)


@pytest.fixture(autouse=True)
def unchecked() -> Iterator[None]:
    is_exact.cache_clear()
    yield
    is_exact.cache_clear()


@pytest.mark.parametrize(
    "mission",
    [
        MISSION,
        Mission("cogsguard_machina_1.miner_tutorial", cogs=4),
        Mission("cogsguard_evals.eval_balanced_spread", variants=("dark_side",)),
        Mission("evals.diagnostic_memory", cogs=3),
    ],
)
def test_an_observation_is_the_same_in_values_and_types(mission: Mission) -> None:
    simulation = Simulator().new_simulation(build_mission(mission), seed=3)
    generator = np.random.default_rng(0)

    for _ in range(50):
        for agent in simulation.agents():
            expected = agent.observation
            with fast_decoding():
                found = agent.observation
                locations = [token.location for token in found.tokens]
            assert locations == [token.location for token in expected.tokens]
            assert found.agent_id == expected.agent_id
            assert len(found.tokens) == len(expected.tokens) > 0
            for one, other in zip(found.tokens, expected.tokens, strict=True):
                assert one.feature is other.feature
                assert (one.value, type(one.value)) == (other.value, type(other.value))
                assert type(one.raw_token) is type(other.raw_token)
                assert np.array_equal(one.raw_token, other.raw_token)
                assert one.location == other.location
            agent.set_action(str(generator.choice(simulation.action_names)))
        simulation.step()


def test_it_is_on_in_the_block_and_off_after_it() -> None:
    original = vars(SimulationAgent)["observation"]

    with pytest.raises(RuntimeError, match="in the block"), fast_decoding():
        assert vars(SimulationAgent)["observation"] is not original
        raise RuntimeError("in the block")

    assert vars(SimulationAgent)["observation"] is original


@pytest.mark.parametrize("kind", [int, np.uint8])
def test_every_location_is_the_same(kind: type) -> None:
    tokens = [ObservationToken(feature=None, value=0, raw_token=(kind(byte), 0, 0)) for byte in range(256)]
    expected = [(token.location, token.row(), token.col()) for token in tokens]

    with fast_decoding():
        found = [(token.location, token.row(), token.col()) for token in tokens]

    assert found == expected
    assert [type(location) for location, *_ in found] == [type(location) for location, *_ in expected]


def test_an_episode_is_the_same_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = EpisodeRunner(MISSION, [PolicySource("starter")])
    plan = EpisodePlan(0, 5, (0, 0))
    fast = runner.run(plan)

    monkeypatch.setattr("daf_cogames.play.decoding.is_exact", lambda: False)

    assert runner.run(plan).digest == fast.digest


def one_token_less(agent: SimulationAgent) -> AgentObservation:
    observation = decoding._original.__get__(agent)
    return AgentObservation(observation.agent_id, observation.tokens[:-1])


def another_type(agent: SimulationAgent) -> AgentObservation:
    observation = decoding._original.__get__(agent)
    for token in observation.tokens:
        token.value = np.uint8(token.value)
    return observation


def an_error(agent: SimulationAgent) -> AgentObservation:
    raise AttributeError("mettagrid has no such attribute any more")


@pytest.mark.parametrize("wrong", [one_token_less, another_type, an_error])
def test_a_decoding_that_is_not_exact_stays_off_and_says_so(
    wrong: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = vars(SimulationAgent)["observation"]
    monkeypatch.setattr(decoding, "_observation", wrong)

    with caplog.at_level(logging.WARNING), fast_decoding():
        assert vars(SimulationAgent)["observation"] is original

    assert "stays off" in caplog.text
