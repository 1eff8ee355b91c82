"""Small policies to be trained in tests, in a module that rank processes can import."""

import itertools
import math

import torch
import torch.distributed
from mettagrid.policy.policy import MultiAgentPolicy

from daf_cogames.policies import PolicySource


def policy(policy_class, **keywords):
    return PolicySource(f"{__name__}.{policy_class.__name__}", **keywords)


class Network(torch.nn.Module):
    """The smallest network with a memory that cogames can train; without one if `recurrent` is false."""

    def __init__(self, environment, hidden_size, recurrent):
        super().__init__()
        self.hidden_size = hidden_size
        self.body = torch.nn.Linear(math.prod(environment.observation_shape), hidden_size)
        self.memory = torch.nn.LSTM(hidden_size, hidden_size, batch_first=True) if recurrent else None
        self.action = torch.nn.Linear(hidden_size, len(environment.action_names))
        self.value = torch.nn.Linear(hidden_size, 1)

    def forward_eval(self, observations, state):
        segments, time = observations.shape[:2] if observations.dim() == 4 else (len(observations), 1)
        hidden = torch.relu(self.body(observations.reshape(segments * time, -1) / 255))
        if self.memory is not None:
            before = None if state["lstm_h"] is None else (state["lstm_h"][None], state["lstm_c"][None])
            hidden, (h, c) = self.memory(hidden.view(segments, time, -1), before)
            hidden, state["lstm_h"], state["lstm_c"] = hidden.flatten(0, 1), h[0], c[0]
        return self.action(hidden), self.value(hidden)

    def forward(self, observations, state):
        return self.forward_eval(observations, state)


class Recurrent(MultiAgentPolicy):
    def __init__(self, policy_env_info, hidden_size: int = 8):
        super().__init__(policy_env_info)
        self.net = Network(policy_env_info, hidden_size, recurrent=self.is_recurrent())

    def network(self):
        return self.net

    def is_recurrent(self):
        return True

    def load_policy_data(self, policy_data_path):
        self.net.load_state_dict(torch.load(policy_data_path, weights_only=True))


class Memoryless(Recurrent):
    def is_recurrent(self):
        return False


class LstmFree(Memoryless):
    """cogames takes it for recurrent by its name."""


class Breaking(Recurrent):
    """Its loss is not a number from the third update on."""

    def __init__(self, policy_env_info):
        super().__init__(policy_env_info)
        learned = itertools.count(1)
        self.net.register_forward_hook(
            lambda net, args, out: (out[0], out[1] * math.nan) if next(learned) >= 3 else out
        )


class Masked(Recurrent):
    """Keeps a mask of infinities among its weights."""

    def __init__(self, policy_env_info):
        super().__init__(policy_env_info)
        self.net.register_buffer("mask", torch.full((3,), -math.inf))


class Raising(Recurrent):
    def __init__(self, policy_env_info):
        super().__init__(policy_env_info)
        self.net.register_forward_hook(self.fail)

    @staticmethod
    def fail(net, args, out):
        raise RuntimeError("out of luck")


class BreakingOnRank1(Recurrent):
    """Its loss on rank 1 is not a number from the third update on."""

    def __init__(self, policy_env_info):
        super().__init__(policy_env_info)
        learned = itertools.count(1)
        self.net.register_forward_hook(
            lambda net, args, out: (
                (out[0], out[1] * math.nan) if next(learned) >= 3 and torch.distributed.get_rank() == 1 else out
            )
        )


class PartlyUsed(Recurrent):
    """Has parameters from which nothing follows."""

    def __init__(self, policy_env_info):
        super().__init__(policy_env_info)
        self.net.spare = torch.nn.Linear(3, 3)


class Changing(PartlyUsed):
    """From the third gradient step on, something follows from its spare parameters."""

    def __init__(self, policy_env_info):
        super().__init__(policy_env_info)
        learned = itertools.count(1)
        self.net.register_forward_hook(
            lambda net, args, out: (out[0], out[1] + net.spare.bias.sum()) if next(learned) >= 3 else out
        )


class RaisingOnRank1(Recurrent):
    def __init__(self, policy_env_info):
        super().__init__(policy_env_info)
        self.net.register_forward_hook(self.fail)

    @staticmethod
    def fail(net, args, out):
        if torch.distributed.get_rank() == 1:
            raise RuntimeError("out of luck")
