"""Seeds of the ranks and attempts of one run, far enough apart that none sees another's maps."""

from __future__ import annotations

import random

import numpy as np
import torch

MAX_SEED = 2**31 - 1

# Environment i plays its episode e on the map of about seed + i + e. So 67 ranks of a million maps each keep to
# themselves, in 32 attempts.
RANK_STRIDE = 1_000_003
ATTEMPT_STRIDE = 67_108_879


def rank_seed(seed: int, rank: int, attempt: int = 1) -> int:
    """The seed of a rank, from 0, in an attempt, from 1; that of rank 0 in the first is the run's own."""
    return (seed + rank * RANK_STRIDE + (attempt - 1) * ATTEMPT_STRIDE) % (MAX_SEED + 1)


def seed_generators(seed: int) -> None:
    """Seed the global random generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
