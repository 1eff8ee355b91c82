"""A small trainable policy for CoGames that learns on a laptop: an example of a policy of your own.

Name it in a sweep file by its class path, and name this file (or its folder) as code to take along:

    policy: grid_policy.GridPolicy
    code: [policies/grid_policy.py]

The arguments of `GridPolicy.__init__` are hyperparameters that a sweep may vary (`policy.hidden_size`). They must be
named: an argument swallowed by `**kwargs` changes nothing and nobody notices.

Three things make a class trainable through CoGames: `network()` returns the module that is optimised, that module has
`forward_eval` (one step for a batch of agents, while collecting) and `forward` (whole sequences, while learning), and
`is_recurrent()` says whether to keep an LSTM state between steps.
"""

import numpy as np
import torch
from mettagrid.policy.policy import AgentPolicy, MultiAgentPolicy, StatefulAgentPolicy, StatefulPolicyImpl
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator import Action, AgentObservation
from torch import nn

EMPTY = 255  # the location byte of a token that holds nothing
LOCATIONS = 256  # a location is one byte: row and column, or a mark for what is not at a place
LARGEST_VALUE = 4.0  # values are divided by their feature's usual size; what is still larger says "a lot"


class GridNetwork(nn.Module):
    """Actor and critic over token observations.

    An observation is a list of tokens (location, feature, value). Seen as a grid it is a mostly empty array of
    features x locations, so the first layer is an EmbeddingBag with one vector for each (feature, location), weighted
    by the value: the same result as a linear layer over the whole array, at a small part of its cost.
    """

    def __init__(self, environment: PolicyEnvInterface, hidden_size: int, recurrent: bool) -> None:
        super().__init__()
        self.hidden_size = hidden_size  # CoGames reads it to make room for the LSTM state
        self._features = 1 + max(feature.id for feature in environment.obs_features)
        scale = torch.ones(256)
        for feature in environment.obs_features:
            scale[feature.id] = max(feature.normalization, 1.0)
        self.register_buffer("_scale", scale)

        nothing = self._features * LOCATIONS
        self._tokens = nn.EmbeddingBag(nothing + 1, hidden_size, mode="sum", padding_idx=nothing)
        self._tokens_bias = nn.Parameter(torch.zeros(hidden_size))
        self._hidden = nn.Linear(hidden_size, hidden_size)
        self._memory = nn.LSTM(hidden_size, hidden_size, batch_first=True) if recurrent else None
        self._action = nn.Linear(hidden_size, len(environment.action_names))
        self._value = nn.Linear(hidden_size, 1)
        self._initialise()

    def forward_eval(self, observations, state=None):
        """Logits [N, actions] and values [N, 1] for observations [N, tokens, 3] or [segments, time, tokens, 3].

        N is every agent (and time) of the batch. The LSTM's state is read from and left in `state["lstm_h"]` and
        `state["lstm_c"]`, each [agents, hidden] or None for a fresh one.
        """
        segments, time = observations.shape[:2] if observations.dim() == 4 else (len(observations), 1)
        hidden = self._encode(observations.flatten(0, -3))
        if self._memory is not None:
            hidden = self._remember(hidden.view(segments, time, -1), state).flatten(0, 1)
        return self._action(hidden), self._value(hidden)

    def forward(self, observations, state=None):
        return self.forward_eval(observations, state)

    def _encode(self, tokens):
        location, feature, value = tokens[..., 0].long(), tokens[..., 1].long(), tokens[..., 2].float()
        present = (location != EMPTY) & (feature < self._features)
        index = torch.where(present, feature * LOCATIONS + location, self._tokens.padding_idx)
        weight = torch.where(present, value / self._scale[feature], 0.0).clamp(max=LARGEST_VALUE)
        embedded = self._tokens(index, per_sample_weights=weight) + self._tokens_bias
        return torch.relu(self._hidden(torch.relu(embedded)))

    def _remember(self, hidden, state):
        before = None
        if state is not None and state.get("lstm_h") is not None:
            before = (state["lstm_h"].unsqueeze(0), state["lstm_c"].unsqueeze(0))
        hidden, (lstm_h, lstm_c) = self._memory(hidden, before)
        if state is not None:
            state["lstm_h"], state["lstm_c"] = lstm_h[0], lstm_c[0]
        return hidden

    def _initialise(self):
        nn.init.normal_(self._tokens.weight, std=0.3)
        with torch.no_grad():
            self._tokens.weight[self._tokens.padding_idx].zero_()
        nn.init.orthogonal_(self._hidden.weight, gain=2**0.5)
        nn.init.orthogonal_(self._action.weight, gain=0.01)  # nearly uniform actions at the start
        nn.init.orthogonal_(self._value.weight)
        for layer in (self._hidden, self._action, self._value):
            nn.init.zeros_(layer.bias)


class GridPolicy(MultiAgentPolicy):
    """One network for all agents of a team, each with an LSTM state of its own."""

    def __init__(
        self,
        policy_env_info: PolicyEnvInterface,
        device: str = "cpu",
        hidden_size: int = 128,
        recurrent: bool = True,
    ) -> None:
        super().__init__(policy_env_info, device=device)
        self._recurrent = recurrent
        self._network = GridNetwork(policy_env_info, hidden_size, recurrent).to(device)

    def network(self) -> nn.Module:
        return self._network

    def is_recurrent(self) -> bool:
        return self._recurrent

    def agent_policy(self, agent_id: int) -> AgentPolicy:
        return StatefulAgentPolicy(_Actor(self._network, self._policy_env_info), self._policy_env_info, agent_id)

    def load_policy_data(self, policy_data_path: str) -> None:
        self._network.load_state_dict(torch.load(policy_data_path, map_location="cpu", weights_only=True))

    def save_policy_data(self, policy_data_path: str) -> None:
        torch.save(self._network.state_dict(), policy_data_path)


class _Actor(StatefulPolicyImpl):
    """Plays one agent: an observation and the agent's LSTM state in, an action and the next state out."""

    def __init__(self, network: GridNetwork, environment: PolicyEnvInterface) -> None:
        self._network = network
        self._environment = environment

    def initial_agent_state(self):
        return {"lstm_h": None, "lstm_c": None}

    def step_with_state(self, obs: AgentObservation, state):
        # Padded as the environment pads while training, or the network would see something new.
        tokens = np.full(self._environment.observation_shape, EMPTY, dtype=np.uint8)
        raw = [token.raw_token for token in obs.tokens[: len(tokens)]]
        if raw:
            tokens[: len(raw)] = raw
        device = next(self._network.parameters()).device
        state = dict(state)
        logits, _ = self._network.forward_eval(torch.from_numpy(tokens)[None].to(device), state)
        # From torch's global generator, so that whoever runs an episode can repeat it by seeding that.
        action = int(torch.multinomial(logits[0].softmax(-1), 1))
        return Action(name=self._environment.action_names[action]), state
