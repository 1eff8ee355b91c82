"""Training documents from the arguments of a Python call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daf.config import DAFTrainingConfig, TrainingSettings
from daf.documents import Scalar
from daf.missions import given_mission, pack_config
from daf.references import MissionConfig, is_weights_file
from daf_common.errors import InvalidArgument

GPU_PROFILE = "gpu-1"
"""The profile of a run whose device is `cuda` and that names none."""


def training_document(
    config: DAFTrainingConfig | str | Path | None,
    *,
    env_cfg: Any,
    missions: Sequence[str | Mapping[str, Any] | MissionConfig | tuple[str, Any]],
    policy: str,
    device: Any,
    start: str | Path | None,
    agent_steps: int | None,
    workers: int | None,
    profile: str,
    hyperparameters: Mapping[str, Scalar],
    code: Sequence[str | Path],
    seed: int | None,
) -> DAFTrainingConfig:
    """A document, or a copy of one, with what arguments say in its place; see `daf_launch_distributed_training`.

    Raises:
        InvalidArgument: an argument cannot be used; names it.
        ValueError: the whole cannot be used.
        FileNotFoundError: there is no such document.
    """
    if env_cfg is not None and missions:
        raise InvalidArgument.field("env_cfg", "and missions exclude each other")
    trained_on = [given_mission(mission, index) for index, mission in enumerate(missions)]
    fields: dict[str, Any] = {
        "missions": trained_on if env_cfg is None else [pack_config(env_cfg)],
        "policy_class_path": policy,
        "code": [str(Path(path).absolute()) for path in code],
        "seed": seed,
    }
    given = {name: value for name, value in fields.items() if value not in (None, "", [])}
    if config is None:
        for name, argument in (("missions", "missions"), ("policy_class_path", "policy_class_path")):
            if name not in given:
                raise InvalidArgument.field(argument, "is missing: give it, or a config")
        document = DAFTrainingConfig.model_validate(given)
    else:
        read = config if isinstance(config, DAFTrainingConfig) else DAFTrainingConfig.from_yaml(config)
        document = read.model_copy(deep=True)
        for name, value in given.items():
            setattr(document, name, value)
    settings = {
        "agent_steps": agent_steps,
        "workers": workers,
        "profile": profile or (GPU_PROFILE if _is_cuda(device) and not document.training.profile else None),
        "start": _start(str(start)) if start is not None else None,
    }
    for name, value in settings.items():
        if value is not None:
            setattr(document.training, name, value)
    for name, value in hyperparameters.items():
        if name.startswith("policy."):
            document.policy_arguments = {**document.policy_arguments, name.removeprefix("policy."): value}
        else:
            named = TrainingSettings(trainer={name: value}).trainer
            document.training.trainer = {**document.training.trainer, **named}
    return document


def _start(text: str) -> str:
    """Where to start from; a file is meant relative to where the program is and not to a document."""
    return str(Path(text).expanduser().absolute()) if is_weights_file(text) else text


def _is_cuda(device: object) -> bool:
    """Whether a device is a GPU.

    Raises:
        InvalidArgument: it is none that workers have.
    """
    kind = str(device or "auto").partition(":")[0]
    if kind not in ("auto", "cpu", "cuda"):
        raise InvalidArgument.field("device", f"{kind[:80]!r} is not one of auto, cpu, cuda")
    return kind == "cuda"
