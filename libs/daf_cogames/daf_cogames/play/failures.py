"""Whatever goes wrong in a policy's code while an episode is played is reported as that policy's failure.

While a policy's code runs it is marked (see `daf_cogames.play.marks`), for failures that nothing in this process
survives.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mettagrid.policy.policy import AgentPolicy, MultiAgentPolicy
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator import Action, AgentObservation, Simulation

from daf_cogames.play.latency import Latency
from daf_cogames.play.marks import NOBODY, SINCE, WHO, Mark, Stage, at_work, cells, encode
from daf_cogames.policies import LoaderError, PolicyElsewhere, PolicyError, last_line

FAILED, HUNG, CRASHED, FLOODED = "POLICY_FAILED", "POLICY_HUNG", "POLICY_CRASHED", "POLICY_FLOODED"
"""Reasons of a forfeit: it raised or answered nonsense; took too long; ended its process; printed without end."""


class PolicyEnded(RuntimeError):
    """The process of a policy that has one of its own is gone; `reason` is that of the forfeit."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PolicyFailure(RuntimeError):
    """A policy that could not play an episode.

    policy: its index; seat: the agent it was to play, None while loading or for several at once; stage: where it
    failed; message: the last line of its traceback; reason: of its forfeit. The error itself is the `__cause__`.
    """

    def __init__(self, policy: int, seat: int | None, stage: Stage, message: str, reason: str = FAILED) -> None:
        where = "" if seat is None else f" in seat {seat}"
        super().__init__(f"policy {policy}{where} failed to {stage}: {message}")
        self.policy = policy
        self.seat = seat
        self.stage = stage
        self.message = message
        self.reason = reason


class SeatedPolicy(MultiAgentPolicy):
    """A policy under its index in an episode; its agents' policies are SeatedAgents. `latency` is of all of them."""

    def __init__(self, index: int, policy: MultiAgentPolicy, environment: PolicyEnvInterface) -> None:
        super().__init__(environment)
        self._index = index
        self._policy = policy
        self.latency = Latency()

    def agent_policy(self, agent_id: int) -> AgentPolicy:
        with blame(self._index, agent_id, "start"):
            agent = self._policy.agent_policy(agent_id)
        return SeatedAgent(self._index, agent_id, agent, self.policy_env_info, self.latency)

    def network(self) -> torch.nn.Module | None:
        """The policy's network, if it says which it is."""
        try:
            network = self._policy.network()
        except Exception:  # asked in passing: whoever needs it to play will fail by itself
            return None
        return network if isinstance(network, torch.nn.Module) else None

    @property
    def takes_rows(self) -> bool:
        """Whether `step_rows` is the way to step it."""
        return isinstance(self._policy, PolicyElsewhere)

    def step_rows(self, observed: Sequence[tuple[int, bytes]]) -> list[Action]:
        """As `SeatedAgent.step_group`; see `daf_cogames.policies.PolicyElsewhere`, which checks its actions."""
        assert isinstance(self._policy, PolicyElsewhere)
        with blame(self._index, None, "step"):
            started = time.perf_counter_ns()
            actions = self._policy.step_rows(observed)
            self.latency.add(time.perf_counter_ns() - started, len(observed))
            return actions

    def close(self) -> None:
        """The episode is over."""
        if isinstance(self._policy, PolicyElsewhere):
            self._policy.close()


class SeatedAgent(AgentPolicy):
    """One agent's policy, which knows its seat: passes everything on, and checks that what comes back is an action."""

    def __init__(
        self, policy: int, seat: int, agent: AgentPolicy, environment: PolicyEnvInterface, latency: Latency
    ) -> None:
        super().__init__(environment)
        self._policy = policy
        self._seat = seat
        self._agent = agent
        self._latency = latency
        self._cells, self._code = cells(), encode(Mark(policy, seat, "step"))
        self._groups = getattr(type(agent), "can_step_group", None) is not AgentPolicy.can_step_group
        self._action_names = frozenset(environment.all_action_names)

    def reset(self, simulation: Simulation | None = None) -> None:
        with blame(self._policy, self._seat, "start"):
            self._agent.reset()  # without an argument, as the rollout calls it

    def step(self, obs: AgentObservation) -> Action:
        # Written out, since `blame` would cost as much as a fast policy's whole step. The rollout asks for the infos
        # next: they are fetched under the same mark.
        marked = self._cells
        marked[SINCE] = started = time.perf_counter_ns()
        marked[WHO] = self._code
        try:
            action = self._agent.step(obs)
            self._latency.add(time.perf_counter_ns() - started)
            self._infos = self._agent.infos
            checked = self._checked(action)
        except (Exception, SystemExit) as error:
            failure = _failure(self._policy, self._seat, "step", error)
            marked[WHO] = NOBODY
            raise failure from error
        marked[WHO] = NOBODY
        return checked

    def can_step_group(self, policies: Sequence[AgentPolicy]) -> bool:
        if not self._groups:
            return False
        with blame(self._policy, self._seat, "step"):
            return self._agent.can_step_group([unseated(policy) for policy in policies])

    def step_group(self, observations: list[tuple[int, AgentObservation]]) -> list[Action]:
        with blame(self._policy, None, "step"):
            started = time.perf_counter_ns()
            actions = self._agent.step_group(observations)
            self._latency.add(time.perf_counter_ns() - started, len(observations))
            return [self._checked(action) for action in actions]

    def _checked(self, action: object) -> Action:
        if not isinstance(action, Action):
            raise TypeError(f"step() returned {type(action).__name__} instead of an Action")
        if action.name not in self._action_names or (action.vibe is not None and action.vibe not in self._action_names):
            raise ValueError(f"step() returned {action!r:.200}, which is no action of this environment")
        return action


@contextmanager
def blame(policy: int, seat: int | None, stage: Stage) -> Iterator[None]:
    """Around a call of a policy's code: it is marked as at work, and what it raises becomes its PolicyFailure."""
    with at_work(policy, seat, stage):
        try:
            yield
        except LoaderError:
            raise
        except (Exception, SystemExit) as error:  # SystemExit, too: a policy does not end the process
            raise _failure(policy, seat, stage, error) from error


def _failure(policy: int, seat: int | None, stage: Stage, error: BaseException) -> PolicyFailure:
    match error:
        case PolicyEnded():
            return PolicyFailure(policy, seat, stage, str(error), error.reason)
        case PolicyError():
            return PolicyFailure(policy, seat, stage, error.message)
    return PolicyFailure(policy, seat, stage, last_line(error))


def unseated(policy: AgentPolicy) -> AgentPolicy:
    """The policy's own agent behind a SeatedAgent."""
    return policy._agent if isinstance(policy, SeatedAgent) else policy
