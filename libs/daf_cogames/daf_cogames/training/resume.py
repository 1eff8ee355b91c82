"""Going on from a checkpoint: everything that training has besides the state of its environments.

Environments cannot be saved. A resumed run starts them anew, on other maps than those already played.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from daf_cogames.parameter_table import Value
from daf_cogames.training.checkpoints import WeightsError, nonfinite_tensors, read, read_weights, shown

FORMAT = 2
"""Of the trainer state; raised when a reader of the one before could not make sense of it."""


@dataclass(frozen=True)
class ResumePoint:
    """Where training was after an update.

    optimizer: its state_dict; update and agent_steps: done since the start, the latter on all ranks; total_agent_steps:
    where the learning rate was to reach 0; agent_steps_per_update: of all ranks; settings: what a resumed run must not
    change; random: the state of every rank's generators, by rank.
    """

    weights: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, Any]
    update: int
    agent_steps: int
    total_agent_steps: int
    agent_steps_per_update: int
    settings: Mapping[str, Value]
    random: Sequence[Mapping[str, Any]]

    def trainer_state(self, weights_sha256: str) -> dict[str, object]:
        """All but the weights, in types that `torch.load(weights_only=True)` reads."""
        return {
            "format": FORMAT,
            "weights_sha256": weights_sha256,
            "optimizer": self.optimizer,
            "update": self.update,
            "agent_steps": self.agent_steps,
            "total_agent_steps": self.total_agent_steps,
            "agent_steps_per_update": self.agent_steps_per_update,
            "settings": dict(self.settings),
            "random": list(self.random),
        }


def read_resume_point(weights: Path, trainer_state: Path) -> ResumePoint:
    """A checkpoint, read whole and checked; nothing that it contains is run.

    Raises WeightsError: a file is missing, cut off, damaged, not what it should be, of the other file's checkpoint, or
    of a newer version, or has values that are not finite.
    """
    tensors, sha256 = read_weights(weights)
    state, _ = read(trainer_state, "a trainer state")
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise WeightsError(f"{trainer_state.name} is not a trainer state")
    if state["format"] != FORMAT:
        age = "a newer" if state["format"] > FORMAT else "an older"
        raise WeightsError(
            f"{trainer_state.name} was written by {age} version (format {state['format']}, not {FORMAT})"
        )
    try:
        recorded = state["weights_sha256"]
        moments = {
            f"{name} of parameter {index}": tensor
            for index, values in state["optimizer"]["state"].items()
            for name, tensor in values.items()
        }
        point = ResumePoint(
            weights=tensors,
            optimizer=state["optimizer"],
            update=int(state["update"]),
            agent_steps=int(state["agent_steps"]),
            total_agent_steps=int(state["total_agent_steps"]),
            agent_steps_per_update=int(state["agent_steps_per_update"]),
            settings=dict(state["settings"]),
            random=tuple(state["random"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{trainer_state.name} is not a whole trainer state: {error!r}") from error
    if recorded != sha256:
        raise WeightsError(
            f"{trainer_state.name} belongs to weights with the SHA-256 {recorded}, {weights.name} has {sha256}"
        )
    if broken := nonfinite_tensors(moments):
        raise WeightsError(f"{trainer_state.name} has values that are not finite in {', '.join(broken)}")
    return point


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Let an optimizer go on from a state. Raises WeightsError if it was one of other parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    saved = [index for group in state["param_groups"] for index in group["params"]]
    differences = []
    if len(saved) != len(parameters):
        differences.append(f"{len(saved)} parameters in the state, {len(parameters)} in the network")
    for index, parameter in zip(saved, parameters, strict=False):
        shape = next((moment.shape for moment in state["state"].get(index, {}).values() if moment.dim() > 0), None)
        if shape is not None and shape != parameter.shape:
            differences.append(f"parameter {index}: {list(shape)} in the state, {list(parameter.shape)} in the network")
    if differences:
        raise WeightsError(f"the optimizer's state does not fit the network:\n{shown(differences)}")
    optimizer.load_state_dict(copy.deepcopy(dict(state)))  # it would go on in the very tensors of the state
