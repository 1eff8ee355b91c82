"""Training on a tiny scale in this process."""

import torch

from daf_cogames.missions import Mission
from daf_cogames.training.train import TrainingPlan, train
from libs.daf_cogames.tests.training_policies import Recurrent, policy

MISSION = Mission("cogsguard_arena.basic", cogs=4, max_steps=40)
UPDATE = 512  # agent steps


class Training:
    """Runs a plan and keeps what it reported."""

    def __init__(self, directory):
        self.directory = directory
        self.progress = []
        self.checkpoints = []

    def run(self, *, stop=lambda: None, on_progress=lambda progress: None, **changes):
        plan = TrainingPlan(
            **{
                "missions": (MISSION,),
                "policy": policy(Recurrent),
                "agent_steps": 2 * UPDATE,
                "num_envs": 2,
                "seed": 1,
                "directory": self.directory,
                "progress_interval_s": 0.0,
                **changes,
            }
        )

        def report(progress):
            self.progress.append(progress)
            on_progress(progress)

        return train(plan, on_progress=report, on_checkpoint=self.checkpoints.append, stop=stop)


def weights_of(checkpoint):
    return torch.load(checkpoint.weights.path, weights_only=True)
