"""Checkpoint files: written whole or not at all, read without running anything they contain."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

SHOWN_DIFFERENCES = 8


@dataclass(frozen=True)
class StoredFile:
    """A file that is complete on the disk. sha256: hexadecimal; size: bytes."""

    path: Path
    sha256: str
    size: int


@dataclass(frozen=True)
class SavedCheckpoint:
    """The weights after an update, and what is needed to go on training from there.

    weights: a state_dict of CPU tensors, all finite, that cogames loads as the `data` of a policy; trainer_state: what
    else it takes, see `daf_cogames.training.resume`; agent_steps: taken by all agents of all environments of all ranks
    since the start; metrics: the last ones reported before.
    """

    weights: StoredFile
    trainer_state: StoredFile
    update: int
    agent_steps: int
    metrics: Mapping[str, float]


class WeightsError(ValueError):
    """A file of a checkpoint that cannot be used; the message says what is wrong with it."""


def save(value: object, path: Path) -> StoredFile:
    """Write what `torch.load(weights_only=True)` reads back. After an error (OSError, say for a full disk) or a crash,
    `path` is what it was before."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    content = buffer.getbuffer()
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)
    return StoredFile(path, hashlib.sha256(content).hexdigest(), len(content))


def load_weights(path: Path, network: nn.Module) -> None:
    """Put the weights of a file, saved on any device, into a network. Raises WeightsError, and then changes nothing."""
    weights, _ = read_weights(path)
    put_weights(weights, network, path.name)


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """A state_dict, saved on any device, as CPU tensors that are all finite, and the file's SHA-256.

    Raises WeightsError.
    """
    weights, sha256 = read(path, "a file of weights")
    if not isinstance(weights, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise WeightsError(f"{path.name} is not a state_dict: it must map names to tensors")
    broken = nonfinite_tensors(weights)
    if broken:
        raise WeightsError(f"{path.name} has values that are not finite in {', '.join(broken)}")
    return weights, sha256


def read(path: Path, what: str) -> tuple[object, str]:
    """What was saved, with tensors on the CPU, and the file's SHA-256. Raises WeightsError: it is not `what`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(f"there is no file {path.name}") from error
    try:
        value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path.name} is not {what}, or one that would run code when loaded") from error
    except Exception as error:  # torch's reader raises whatever the bytes make it stumble over
        raise WeightsError(f"{path.name} is not {what}, or is cut off or damaged") from error
    return value, hashlib.sha256(content).hexdigest()


def put_weights(weights: Mapping[str, torch.Tensor], network: nn.Module, name: str) -> None:
    """Load the weights, which messages call `name`, into a network. Raises WeightsError, and then changes nothing."""
    differences = _differences(network.state_dict(), weights)
    if differences:
        raise WeightsError(f"{name} does not fit the network {type(network).__name__}:\n{shown(differences)}")
    network.load_state_dict(weights)


def shown(differences: Sequence[str]) -> str:
    """The first differences, a line each, and how many more there are."""
    lines = [f"  {line}" for line in differences[:SHOWN_DIFFERENCES]]
    if len(differences) > SHOWN_DIFFERENCES:
        lines.append(f"  and {len(differences) - SHOWN_DIFFERENCES} more")
    return "\n".join(lines)


def nonfinite_tensors(weights: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """The names of the tensors with a NaN or an infinity in them."""
    return tuple(name for name, tensor in weights.items() if not _is_finite(tensor))


def random_state(device: torch.device) -> dict[str, object]:
    """The state of the global generators (and of the device's), in types that `torch.load(weights_only=True)` reads."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, object] = {
        "python": (version, internal, gauss),
        "numpy": (name, [int(key) for key in keys], int(position), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Let the global generators (and the device's, where its state was taken) go on from a state."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _is_finite(tensor: torch.Tensor) -> bool:
    """In a third of the time that `isfinite(tensor).all()` takes: a NaN is the largest of all numbers to `max`."""
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return True
    return bool(torch.isfinite(tensor.abs().max()))


def _differences(wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> list[str]:
    """One line for each tensor that is missing, unknown or of another shape."""
    lines = []
    for name, tensor in wanted.items():
        if name not in found:
            lines.append(f"{name}: missing from the file, {list(tensor.shape)} in the network")
        elif found[name].shape != tensor.shape:
            lines.append(f"{name}: {list(found[name].shape)} in the file, {list(tensor.shape)} in the network")
    lines.extend(
        f"{name}: {list(tensor.shape)} in the file, not in the network"
        for name, tensor in found.items()
        if name not in wanted
    )
    return lines


def _sync_directory(directory: Path) -> None:
    """Without this, a rename can be lost in a power cut though the file's content is on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
