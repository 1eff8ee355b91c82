"""Seeds of the ranks and attempts of one run, far enough apart that none sees another's maps."""

from __future__ import annotations

import random

import numpy as np
import torch

from daf_common.map_seeds import MAX_TRAINING_SEED as MAX_SEED
from daf_common.map_seeds import rank_seed

__all__ = ["MAX_SEED", "rank_seed", "seed_generators"]


def seed_generators(seed: int) -> None:
    """Seed the global random generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
