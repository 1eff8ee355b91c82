"""One process that trains, for the benchmarks of training: `python -m benchmarks.training_process JSON`.

Trains as plain cogames (`"plain": true`) or as a worker of ours, alone or as the rank that torchrun's variables say.
Prints a line of JSON: the wall time and the process's CPU time in seconds and the agent steps of all ranks after each
update, and the final weights.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

import daf_cogames.training.train as ours
from daf_cogames.missions import Mission, build_mission
from daf_cogames.parameter_table import DEFAULT_MINIBATCH_SIZE
from daf_cogames.policies import PolicySource
from daf_cogames.training.cogames_trainer import cogames_train, pufferl
from daf_cogames.training.trainer import Trainer
from daf_cogames.training.world import World


@dataclass(frozen=True)
class Work:
    """What to train. agent_steps: of all ranks; environments: of each."""

    plain: bool
    mission: str
    max_steps: int
    policy: str
    agent_steps: int
    environments: int
    seed: int
    directory: str
    cogs: int = 4
    arguments: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    """Put on the import path, for a policy of one's own."""

    def command(self) -> list[str]:
        """Starts the process."""
        return [sys.executable, "-W", "ignore", "-m", "benchmarks.training_process", json.dumps(asdict(self))]


type Updates = list[tuple[float, float, int]]


def _recorded(trainer: Any, updates: Updates) -> Any:
    """The class of a trainer, which takes the time after each update: for both sides in the same way."""

    class Recorded(trainer):  # type: ignore[misc]
        def train(self) -> Any:
            try:
                return super().train()
            finally:
                updates.append((time.perf_counter(), time.process_time(), self.global_step))

    return Recorded


def _train_plainly(work: Work, updates: Updates) -> Path:
    random.seed(work.seed)
    np.random.seed(work.seed)
    torch.manual_seed(work.seed)
    torch.set_num_threads(1)
    setattr(cogames_train, "pufferl", SimpleNamespace(PuffeRL=_recorded(pufferl.PuffeRL, updates)))  # noqa: B010
    cogames_train.train(
        env_cfg=build_mission(Mission(work.mission, cogs=work.cogs, max_steps=work.max_steps)),
        policy_class_path=work.policy,
        device=torch.device("cpu"),
        initial_weights_path=None,
        num_steps=work.agent_steps,
        checkpoints_path=Path(work.directory),
        seed=work.seed,
        minibatch_size=DEFAULT_MINIBATCH_SIZE,
        vector_num_envs=work.environments,
    )
    return max(Path(work.directory).glob("*/model_*.pt"))


def _train_ours(work: Work, updates: Updates) -> Path | None:
    setattr(ours, "Trainer", _recorded(Trainer, updates))  # noqa: B010
    plan = ours.TrainingPlan(
        missions=(Mission(work.mission, cogs=work.cogs, max_steps=work.max_steps),),
        policy=PolicySource(work.policy, work.arguments),
        agent_steps=work.agent_steps,
        num_envs=work.environments,
        seed=work.seed,
        directory=Path(work.directory),
        trainer=work.trainer,
        device="cpu",
        world=World.from_environment(os.environ),
    )
    outcome = ours.train(plan, on_progress=lambda _: None, on_checkpoint=lambda _: None, stop=lambda: None)
    return outcome.checkpoint.weights.path if outcome.checkpoint else None


def main() -> None:
    """Trains and prints."""
    work = Work(**json.loads(sys.argv[1]))
    sys.path.append(work.path)
    printed, sys.stdout = sys.stdout, io.StringIO()  # plain cogames draws its dashboard there
    updates: Updates = []
    weights = (_train_plainly if work.plain else _train_ours)(work, updates)
    digest = hashlib.sha256()
    for tensor in torch.load(weights, weights_only=True).values() if weights else ():
        digest.update(tensor.numpy().tobytes())
    result = {"updates": updates, "weights": str(weights), "digest": digest.hexdigest()}
    print(json.dumps(result), file=printed)


if __name__ == "__main__":
    main()
