"""The state of the random generators that all code of a process shares."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch


@dataclass(frozen=True)
class GlobalRandomState:
    """Plain values, which can be sent to another process of this machine."""

    python: Any
    numpy: Any
    torch: bytes

    @classmethod
    def of_this_process(cls) -> Self:
        """The state now."""
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state().numpy().tobytes())

    def restore(self) -> None:
        """Makes it that of this process."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(torch.frombuffer(bytearray(self.torch), dtype=torch.uint8))
