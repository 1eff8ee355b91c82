"""How the agents of CoGames' network policies step, said in terms of a batch.

Agents are recognised by their class, whoever's policy makes them and whatever network they are given. That what is said
here is what their code does is checked on every use (see `daf_cogames.play.batching`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from cogames.policy.tutorial_policy import TutorialAgentPolicy
from mettagrid.policy.lstm import LSTMAgentPolicy
from mettagrid.policy.policy import AgentPolicy, StatefulAgentPolicy
from mettagrid.policy.puffer_default import _PufferDefaultStatefulImpl
from mettagrid.policy.pufferlib import PufferlibStatefulImpl
from mettagrid.policy.stateless import StatelessAgentPolicyImpl
from mettagrid.policy.utils import LSTMState

from daf_cogames import corrected

State = dict[str, torch.Tensor | None] | None
"""What a network is given beside observations, and changes: of all rows, the first dimension."""

HIDDEN, CELL = "lstm_h", "lstm_c"


@dataclass(frozen=True)
class Stepping:
    """How agents of one class step.

    see: from what the environment gives (uint8, [rows, tokens, 3]) to what the network is given; method: of the
    network, called with that and a state; start: the state of so many agents at the start, from one agent's
    implementation; probabilities: of the actions, from logits. An action is drawn as `torch.multinomial` draws it.
    """

    see: Callable[[torch.Tensor], torch.Tensor]
    method: str
    start: Callable[[Any, int], State]
    probabilities: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class KnownAgent:
    """An agent of a known class; implementation: the object that holds the network."""

    stepping: Stepping
    agent: AgentPolicy
    implementation: Any

    @property
    def network(self) -> torch.nn.Module:
        """It may be shared by several agents."""
        network: torch.nn.Module = self.implementation._net
        return network

    @property
    def state(self) -> Sequence[torch.Tensor]:
        """What it remembers after a step."""
        match getattr(self.agent, "_state", None):
            case LSTMState() as state:
                return [state.hidden, state.cell]
            case dict() as state if state:
                return [state[HIDDEN], state[CELL]]
        return []


def known_agent(agent: AgentPolicy) -> KnownAgent | None:
    """What is known of how an agent steps, if anything."""
    implementation = agent._base_policy if type(agent) is StatefulAgentPolicy else agent
    stepping = _STEPPING.get(type(implementation))
    return None if stepping is None else KnownAgent(stepping, agent, implementation)


def as_it_is(seen: torch.Tensor) -> torch.Tensor:
    """The bytes."""
    return seen


def padded_with_zeros(seen: torch.Tensor) -> torch.Tensor:
    """The environment pads with 255, 255, 255; these agents with 255, 0, 0."""
    missing = seen[..., 1] == corrected.PADDING
    seen[..., 1:][missing] = 0
    return seen


def multiplied(seen: torch.Tensor) -> torch.Tensor:
    """Numbers from 0 to 1, by a multiplication."""
    return seen.float() * (1.0 / 255.0)


def _own_zeros(implementation: Any, rows: int) -> State:
    start = implementation.initial_agent_state()
    return {
        HIDDEN: start.hidden.unsqueeze(0).repeat(rows, 1, 1),
        CELL: start.cell.unsqueeze(0).repeat(rows, 1, 1),
    }


def _nothing_yet(implementation: Any, rows: int) -> State:
    return dict(implementation.initial_agent_state())


def _nothing_yet_if_recurrent(implementation: Any, rows: int) -> State:
    return dict(implementation.initial_agent_state()) if implementation._is_recurrent else None


def _no_state(implementation: Any, rows: int) -> State:
    return None


def _of_categorical(logits: torch.Tensor) -> torch.Tensor:
    """As `torch.distributions.Categorical` computes them."""
    return torch.softmax(logits - logits.logsumexp(-1, keepdim=True), -1)


def _of_sample_logits(logits: torch.Tensor) -> torch.Tensor:
    """As `pufferlib.pytorch.sample_logits` computes them."""
    return torch.softmax(logits, -1)


_LSTM_AS_SHIPPED = Stepping(padded_with_zeros, "forward_eval", _own_zeros, _of_categorical)
_LSTM = Stepping(as_it_is, "forward_eval", _own_zeros, _of_categorical)
_PUFFER_AS_SHIPPED = Stepping(padded_with_zeros, "forward_eval", _nothing_yet, _of_sample_logits)
_PUFFER = Stepping(as_it_is, "forward_eval", _nothing_yet, _of_sample_logits)
_PUFFERLIB = Stepping(multiplied, "forward_eval", _nothing_yet_if_recurrent, _of_sample_logits)
_TUTORIAL = Stepping(as_it_is, "forward", _own_zeros, _of_categorical)
_STATELESS = Stepping(torch.Tensor.float, "forward_eval", _no_state, _of_categorical)

_STEPPING: Mapping[type, Stepping] = {
    LSTMAgentPolicy: _LSTM_AS_SHIPPED,
    corrected._LSTMAgentPolicy: _LSTM,
    _PufferDefaultStatefulImpl: _PUFFER_AS_SHIPPED,
    corrected._PufferAgent: _PUFFER,
    PufferlibStatefulImpl: _PUFFERLIB,
    TutorialAgentPolicy: _TUTORIAL,
    StatelessAgentPolicyImpl: _STATELESS,
}
