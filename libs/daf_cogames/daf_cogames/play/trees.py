"""Tensors in tuples, lists and dictionaries, as networks are given and give them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch


class UnknownTree(TypeError):
    """Something is neither a tensor, nor a container of them, nor a plain value."""


@dataclass(frozen=True)
class Tree:
    """structure: all but the tensors, to be compared; leaves: the tensors, in order."""

    structure: Any
    leaves: list[torch.Tensor]

    @property
    def kind(self) -> object:
        """What is equal for trees that differ in their tensors' values only."""
        return self.structure, [(leaf.shape, leaf.dtype) for leaf in self.leaves]

    def cloned(self) -> Tree:
        """With copies of the tensors."""
        return Tree(self.structure, [leaf.clone() for leaf in self.leaves])


def structure_of(value: object, leaves: list[torch.Tensor], known: Sequence[object] = ()) -> Any:
    """Takes a value apart: its tensors are appended to `leaves`; of `known` objects in it only the number is kept.

    Raises UnknownTree.
    """
    if isinstance(value, torch.Tensor):
        leaves.append(value)
        return torch.Tensor
    for number, one in enumerate(known):
        if value is one:
            return _Known, number
    if type(value) in (tuple, list):
        return type(value), [structure_of(part, leaves, known) for part in value]  # type: ignore[attr-defined]
    if type(value) is dict:
        return dict, list(value), [structure_of(part, leaves, known) for part in value.values()]
    if value is None or type(value) in (bool, int, float, str):
        return type(value), value
    raise UnknownTree(f"its network is given or gives a {type(value).__name__}")


def built(structure: Any, leaves: Iterator[torch.Tensor], known: Sequence[object] = ()) -> Any:
    """The reverse of `structure_of`."""
    if structure is torch.Tensor:
        return next(leaves)
    kind, *rest = structure
    if kind is _Known:
        return known[rest[0]]
    if kind is dict:
        keys, parts = rest
        return {key: built(part, leaves, known) for key, part in zip(keys, parts, strict=True)}
    if kind in (tuple, list):
        return kind(built(part, leaves, known) for part in rest[0])
    return rest[0]


class _Known:
    """Marks a known object."""
