"""Whatever goes wrong in a policy's code while an episode is played is reported as that policy's failure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from mettagrid.policy.policy import AgentPolicy, MultiAgentPolicy
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator import Action, AgentObservation, Simulation

from daf_cogames.policies import last_line

Stage = Literal["load", "start", "step"]


class PolicyFailure(RuntimeError):
    """A policy that could not play an episode.

    policy: its index; seat: the agent it was to play, None while loading; stage: where it failed; message: the last
    line of its traceback. The error itself is the `__cause__`.
    """

    def __init__(self, policy: int, seat: int | None, stage: Stage, message: str) -> None:
        where = "" if seat is None else f" in seat {seat}"
        super().__init__(f"policy {policy}{where} failed to {stage}: {message}")
        self.policy = policy
        self.seat = seat
        self.stage = stage
        self.message = message


class SeatedPolicy(MultiAgentPolicy):
    """A policy under its index in an episode; its agents' policies are SeatedAgents."""

    def __init__(self, index: int, policy: MultiAgentPolicy, environment: PolicyEnvInterface) -> None:
        super().__init__(environment)
        self._index = index
        self._policy = policy

    def agent_policy(self, agent_id: int) -> AgentPolicy:
        with _blame(self._index, agent_id, "start"):
            agent = self._policy.agent_policy(agent_id)
        return SeatedAgent(self._index, agent_id, agent, self.policy_env_info)


class SeatedAgent(AgentPolicy):
    """One agent's policy, which knows its seat: passes everything on, and checks that what comes back is an action."""

    def __init__(self, policy: int, seat: int, agent: AgentPolicy, environment: PolicyEnvInterface) -> None:
        super().__init__(environment)
        self._policy = policy
        self._seat = seat
        self._agent = agent
        self._action_names = frozenset(environment.all_action_names)

    def reset(self, simulation: Simulation | None = None) -> None:
        with _blame(self._policy, self._seat, "start"):
            self._agent.reset()  # without an argument, as the rollout calls it

    def step(self, obs: AgentObservation) -> Action:
        # Written out, since _blame would cost as much as a fast policy's whole step.
        try:
            return self._checked(self._agent.step(obs))
        except (Exception, SystemExit) as error:
            raise PolicyFailure(self._policy, self._seat, "step", last_line(error)) from error

    @property
    def infos(self) -> dict[str, Any]:
        with _blame(self._policy, self._seat, "step"):
            return self._agent.infos

    def can_step_group(self, policies: Sequence[AgentPolicy]) -> bool:
        with _blame(self._policy, self._seat, "step"):
            return self._agent.can_step_group([_unseated(policy) for policy in policies])

    def step_group(self, observations: list[tuple[int, AgentObservation]]) -> list[Action]:
        with _blame(self._policy, self._seat, "step"):
            return [self._checked(action) for action in self._agent.step_group(observations)]

    def _checked(self, action: object) -> Action:
        if not isinstance(action, Action):
            raise TypeError(f"step() returned {type(action).__name__} instead of an Action")
        if action.name not in self._action_names or (action.vibe is not None and action.vibe not in self._action_names):
            raise ValueError(f"step() returned {action!r:.200}, which is no action of this environment")
        return action


@contextmanager
def _blame(policy: int, seat: int, stage: Stage) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:  # SystemExit, too: a policy does not end the process
        raise PolicyFailure(policy, seat, stage, last_line(error)) from error


def _unseated(policy: AgentPolicy) -> AgentPolicy:
    return policy._agent if isinstance(policy, SeatedAgent) else policy
