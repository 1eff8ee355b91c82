"""Training on several missions at once: environment i of all ranks plays mission i modulo their number.

cogames asks for a mission once and gives that one to all environments, however many it was told of.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mettagrid import MettaGridConfig, PufferMettaGridEnv
from mettagrid.policy.policy_env_interface import PolicyEnvInterface

from daf_cogames.missions import Mission, MissionError
from daf_cogames.training.cogames_trainer import cogames_train

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when its parent ends."""

_SAME: Mapping[str, Callable[[PolicyEnvInterface], object]] = {
    "number of agents": lambda environment: environment.num_agents,
    "observation shape": lambda environment: environment.observation_shape,
    "actions": lambda environment: environment.action_names,
    "vibe actions": lambda environment: environment.vibe_action_names,
    "observation features": lambda environment: [feature.name for feature in environment.obs_features],
    "object tags": lambda environment: environment.tags,
}


class RotatingEnvironments(cogames_train._EnvCreator):
    """Makes environment number `seed` of a rank (so cogames numbers them, from 0) on the mission whose turn it is."""

    def __init__(self, missions: Sequence[Mission], configs: Sequence[MettaGridConfig], first: int, *args: Any) -> None:
        """first: the number of the rank's first environment among those of all ranks."""
        super().__init__(*args)
        self._missions, self._configs, self._first = missions, configs, first
        self._trainer_process = os.getpid()

    def __call__(
        self, cfg: MettaGridConfig | None = None, buf: Any = None, seed: int | None = None
    ) -> PufferMettaGridEnv:
        if os.getpid() != self._trainer_process:
            _end_with_the_trainer()
        turn = (self._first + (seed or 0)) % len(self._configs)
        environment = super().__call__(self._configs[turn], buf, seed)
        if self._missions[turn].map_seed is not None:
            _keep_map(environment)
        return environment


def check_interchangeable(missions: Sequence[Mission], configs: Sequence[MettaGridConfig]) -> None:
    """Raise MissionError unless one policy can play them all: the same agents, actions and observations."""
    first, *others = (PolicyEnvInterface.from_mg_cfg(config) for config in configs)
    for mission, other in zip(missions[1:], others, strict=True):
        for what, value in _SAME.items():
            if value(other) != value(first):
                raise MissionError(
                    "name",
                    f"{mission.name} cannot be trained on together with {missions[0].name}: "
                    f"the {what} differ ({_short(value(other))} and {_short(value(first))})",
                )


def _keep_map(environment: PufferMettaGridEnv) -> None:
    """Play the map of the config's seed in every episode: with each reset, the simulator goes on to the next one."""
    vars(environment._simulator)["next_map_seed"] = lambda seed: seed


def _end_with_the_trainer() -> None:
    """Let this process of some environments end with the trainer's, which may be killed: it would wait for the next
    action for ever, and not idly."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    trainer = multiprocessing.parent_process()
    if trainer is not None and not trainer.is_alive():
        os._exit(1)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
