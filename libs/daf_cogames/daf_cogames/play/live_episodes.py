"""An episode from its first step to its last, which may take turns with others in one process.

What `mettagrid.runner.rollout.single_episode_rollout` does around mettagrid's own `Rollout` is said again here, as its
loop cannot be interrupted. Two things that it leaves to chance are fixed: policies of one episode step one after
another instead of in threads that share random state, and every episode keeps its own random state.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from mettagrid import MettaGridConfig
from mettagrid.simulator.interface import SimulatorEventHandler
from mettagrid.simulator.replay_log_writer import InMemoryReplayWriter
from mettagrid.simulator.rollout import Rollout, StepResult
from mettagrid.simulator.simulator import Simulation
from mettagrid.simulator.time_averaged_stats import TimeAveragedStatsHandler

from daf_cogames.play.digests import digest
from daf_cogames.play.failures import PolicyFailure, SeatedPolicy
from daf_cogames.play.stopwatches import stop_timing
from daf_cogames.seating import EpisodePlan


class StepsAgents(Protocol):
    """Steps all of a policy's agents in an episode at once; exact: to the bit as they would step themselves."""

    exact: bool

    def step_agents(self, episode: LiveEpisode, agents: Sequence[int]) -> list[StepResult]:
        """One result for each agent, as mettagrid's `Rollout._step_group` returns them."""


class WatchesAgent(Protocol):
    """Looks on while one agent steps."""

    def before(self) -> None:
        """Called before the agent's policy is."""

    def after(self, result: tuple[Any, ...]) -> None:
        """Called with what mettagrid's `Rollout._measure_single_step` returns."""


class LiveEpisode:
    """An episode that is being played. It begins, with the policies' reset, when it is made.

    config: with the map's seed; map_digest: SHA-256 (hex) of what stood where at the start; policies: those that play,
    by number; together: what steps all agents of a policy, by the policy's number, where something does; watched: what
    looks on, by agent; over: whether it has ended or cannot go on; failure: why it cannot.
    """

    def __init__(
        self,
        plan: EpisodePlan,
        config: MettaGridConfig,
        policies: Mapping[int, SeatedPolicy],
        max_action_time_ms: int,
        *,
        replay: bool = False,
    ) -> None:
        """The global random state is the one after loading the policies. Raises PolicyFailure."""
        self.plan = plan
        self.config = config
        self.policies = policies
        self.together: dict[int, StepsAgents] = {}
        self.watched: dict[int, WatchesAgent] = {}
        self.failure: PolicyFailure | None = None
        self.agents = [policies[policy].agent_policy(agent) for agent, policy in enumerate(plan.seats)]
        self._averages = TimeAveragedStatsHandler()
        self._replays = InMemoryReplayWriter() if replay else None  # type: ignore[no-untyped-call]
        handlers: list[SimulatorEventHandler] = [self._averages]
        if self._replays is not None:
            handlers.append(self._replays)
        try:
            self._rollout = _RolloutInTurn(
                self,
                config,
                self.agents,
                policy_names=[f"policy_{policy}" for policy in plan.seats],
                max_action_time_ms=max_action_time_ms,
                render_mode=None,
                seed=plan.seed,
                event_handlers=handlers,
                policy_group_keys=plan.seats,
            )
        except PolicyFailure:
            self._close()
            raise
        stop_timing(self.simulation)
        self.map_digest = _map_digest(self.simulation)
        self.over = self._rollout.is_done()
        self._random = _RandomState()

    @property
    def simulation(self) -> Simulation:
        """mettagrid's simulation."""
        return self._rollout._sim

    @property
    def observations(self) -> npt.NDArray[np.uint8]:
        """What the agents see, [agents, tokens, (location, feature, value)], until the next step."""
        seen: npt.NDArray[np.uint8] = self.simulation._c_sim.observations()
        return seen

    @property
    def generator(self) -> torch.Generator:
        """Where its agents' next random numbers of torch come from."""
        return torch.default_generator if self._needs_global_state else self._random.torch

    def run_until_done(self) -> None:
        """Play it to the end without a pause. Raises PolicyFailure."""
        try:
            self._rollout.run_until_done()
        finally:
            self._close()
        self.over = True

    def step(self) -> None:
        """One step of all agents, in the episode's own random state. A policy's failure becomes `failure`."""
        turn = self._random.put_up() if self._needs_global_state else nullcontext()
        try:
            with turn:
                self._rollout.step()
        except PolicyFailure as failure:
            self.failure = failure
        self.over = self.failure is not None or self._rollout.is_done()
        if self.over:
            self._close()

    @property
    def rewards(self) -> tuple[float, ...]:
        """So far, for each agent."""
        return tuple(float(reward) for reward in self.simulation.episode_rewards)

    @property
    def action_timeouts(self) -> tuple[int, ...]:
        """So far, for each agent."""
        return tuple(self._rollout.timeout_counts)

    @property
    def time_averaged_game_stats(self) -> Mapping[str, float]:
        """Over the steps so far."""
        return self._averages.time_averaged_game_stats

    def write_replay(self, path: Path) -> None:
        """Write what mettagrid's own player shows; the episode has ended, and was begun with `replay`."""
        assert self._replays is not None
        (replay,) = self._replays.get_completed_replays()
        replay.write_replay(str(path))

    def _close(self) -> None:
        for policy in self.policies.values():
            policy.close()

    @property
    def _needs_global_state(self) -> bool:
        return not self.together.keys() >= set(self.plan.seats)


class _RolloutInTurn(Rollout):
    """The same steps in the same order as in mettagrid, without the threads whose interleaving nothing repeats."""

    def __init__(self, episode: LiveEpisode, *args: Any, **kwargs: Any) -> None:
        self._episode = episode
        super().__init__(*args, **kwargs)

    def _execute_group_steps(self, group_indices: list[list[int]]) -> list[StepResult]:
        return [result for indices in group_indices for result in self._step_group(indices)]

    def _step_group(self, indices: list[int]) -> list[StepResult]:
        policy = self._episode.plan.seats[indices[0]]
        if (together := self._episode.together.get(policy)) is not None:
            return together.step_agents(self._episode, indices)
        if self._episode.policies[policy].takes_rows:
            return self._step_by_rows(self._episode.policies[policy], indices)
        return super()._step_group(indices)

    def _step_by_rows(self, policy: SeatedPolicy, indices: list[int]) -> list[StepResult]:
        seen = self._episode.observations
        started = time.time_ns()
        actions = policy.step_rows([(index, seen[index].tobytes()) for index in indices])
        taken = time.time_ns() - started
        return [
            (index, action, taken / 1_000_000, {}, started, taken)
            for index, action in zip(indices, actions, strict=True)
        ]

    def _measure_single_step(self, index: int) -> tuple[Any, ...]:
        watcher = self._episode.watched.get(index)
        if watcher is None:
            return super()._measure_single_step(index)
        watcher.before()
        result = super()._measure_single_step(index)
        watcher.after(result)
        return result


class _RandomState:
    """The state of Python's, numpy's and torch's global generators as one episode has left it."""

    def __init__(self) -> None:
        self.torch = torch.Generator()
        self._take()

    @contextmanager
    def put_up(self) -> Iterator[None]:
        """For the time of the block it is the process's; afterwards it is what the block has made of it."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self.torch.get_state())
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state()
        self.torch.set_state(torch.get_rng_state())


def _map_digest(begun: Simulation) -> str:
    objects = begun.grid_objects().values()
    return digest(sorted([int(thing["r"]), int(thing["c"]), str(thing["type_name"])] for thing in objects))
