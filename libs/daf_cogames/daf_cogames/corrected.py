"""Policies of CoGames that see in an episode what they saw in training; as shipped they do not.

While a policy is trained, the environment pads its observations with the bytes 255, 255, 255 and hands them over as
they are. In an episode the policy is given a list of tokens and makes the padding itself: the shipped `lstm` and
`puffer` write 255, 0, 0, and `pufferlib_cogs` divides by 255 what it did not divide in training. So they score below
what they have learnt. The classes here differ from those in nothing else: weights of one load into the other.

Nothing of this package is imported: the file travels with checkpoints, so that plain CoGames can load them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cogames.policy.pufferlib_policy import PufferlibCogsPolicy as StockPufferlibCogsPolicy
from mettagrid.config.id_map import ObservationFeatureSpec
from mettagrid.policy.lstm import LSTMAgentPolicy
from mettagrid.policy.lstm import LSTMPolicy as StockLSTMPolicy
from mettagrid.policy.lstm import LSTMPolicyNet as StockLSTMPolicyNet
from mettagrid.policy.policy import AgentPolicy
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.policy.puffer_default import PufferDefaultPolicy as StockPufferDefaultPolicy
from mettagrid.policy.puffer_default import _PufferDefaultStatefulImpl
from mettagrid.policy.pufferlib import PufferlibStatefulImpl
from mettagrid.policy.stateless import StatelessPolicy as StockStatelessPolicy
from mettagrid.policy.utils import LSTMState
from mettagrid.simulator import Action, AgentObservation
from mettagrid.simulator.interface import ObservationToken

__all__ = ["LSTMPolicy", "PufferDefaultPolicy", "PufferlibCogsPolicy", "StatelessPolicy"]

PADDING = 255
"""What the environment writes into every byte of a token that is not there."""


class LSTMPolicy(StockLSTMPolicy):
    """LSTM policy whose padding in an episode is the one of training, and whose width can be set."""

    def __init__(self, policy_env_info: PolicyEnvInterface, device: str = "cpu", hidden_size: int = 128) -> None:
        """With another `hidden_size` than 128, the weights do not fit the shipped class."""
        super().__init__(policy_env_info, device=device)
        if hidden_size != self._net.hidden_size:
            self._net = _LSTMPolicyNet(policy_env_info, hidden_size).to(self._device)
        self._agent_policy = _LSTMAgentPolicy(self._net, self._device, policy_env_info)


class PufferDefaultPolicy(StockPufferDefaultPolicy):
    """PufferLib's default LSTM policy, whose padding in an episode is the one of training."""

    def __init__(self, policy_env_info: PolicyEnvInterface, *, hidden_size: int = 256, device: str = "cpu") -> None:
        super().__init__(policy_env_info, hidden_size=hidden_size, device=device)
        self._stateful_impl = _PufferAgent(self._net, policy_env_info, self._device, hidden_size=hidden_size)


class PufferlibCogsPolicy(StockPufferlibCogsPolicy):
    """PufferLib's feed-forward policy, which in an episode sees whole numbers from 0 to 255, as in training.

    For weights that CoGames has trained. PufferLib's own training divides by 255: its weights are for the shipped one.
    """

    def __init__(self, policy_env_info: PolicyEnvInterface, *, hidden_size: int = 256, device: str = "cpu") -> None:
        super().__init__(policy_env_info, hidden_size=hidden_size, device=device)
        self._undo_division()

    def load_policy_data(self, policy_data_path: str) -> None:
        super().load_policy_data(policy_data_path)
        self._undo_division()

    def _undo_division(self) -> None:
        self._stateful_impl = PufferlibStatefulImpl(
            _Undivided(self._net), self._policy_env_info, self._device, is_recurrent=self._is_recurrent
        )


class StatelessPolicy(StockStatelessPolicy):
    """Feed-forward policy that can play an episode; the shipped one leaves its agents without what a rollout reads."""

    def agent_policy(self, agent_id: int) -> AgentPolicy:
        agent = super().agent_policy(agent_id)
        AgentPolicy.__init__(agent, self._policy_env_info)
        return agent


class _LSTMPolicyNet(StockLSTMPolicyNet):
    def __init__(self, policy_env_info: PolicyEnvInterface, hidden_size: int) -> None:
        self._hidden_size = hidden_size
        super().__init__(policy_env_info)

    @property
    def hidden_size(self) -> int:
        return self._hidden_size

    @hidden_size.setter
    def hidden_size(self, shipped: int) -> None:
        """Lets the shipped constructor, which sets 128 and goes by what it then reads, build another width."""


class _LSTMAgentPolicy(LSTMAgentPolicy):
    def step_with_state(self, obs: AgentObservation, state: LSTMState) -> tuple[Action, LSTMState]:
        missing = self._policy_env_info.observation_space.shape[0] - len(obs.tokens)
        return super().step_with_state(AgentObservation(obs.agent_id, [*obs.tokens, *[_NO_TOKEN] * missing]), state)


class _PufferAgent(_PufferDefaultStatefulImpl):
    def step_with_state(
        self, obs: AgentObservation | npt.NDArray[np.uint8], state: dict[str, torch.Tensor | None]
    ) -> tuple[Action, dict[str, torch.Tensor | None]]:
        seen = _padded(obs, self._obs_shape) if isinstance(obs, AgentObservation) else obs
        return super().step_with_state(seen, state)


class _Undivided(torch.nn.Module):
    """A network whose input was divided by 255."""

    network: Any

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward_eval(self, observations: torch.Tensor, state: dict[str, torch.Tensor | None] | None) -> Any:
        return self.network.forward_eval((observations * 255).round(), state)


_NO_TOKEN = ObservationToken(
    feature=ObservationFeatureSpec(id=PADDING, name="", normalization=1.0), value=PADDING, raw_token=(PADDING,) * 3
)


def _padded(observation: AgentObservation, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    padded = np.full(shape, PADDING, dtype=np.uint8)
    tokens = [token.raw_token for token in observation.tokens[: shape[0]]]
    if tokens:
        padded[: len(tokens)] = tokens
    return padded
