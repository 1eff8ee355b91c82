"""Which maps a policy may have been trained on, by what its job's attempts had."""

from __future__ import annotations

from typing import Any

import pytest

from daf.client import Client
from daf.trained_maps import trained_maps_problems
from daf_common.map_seeds import rank_seed
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyCheckpoint
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_protos.training.v1 import training_job_pb2
from daf_protos.training.v1.training_job_pb2 import (
    TrainingAttempt,
    TrainingJob,
    TrainingProgress,
    TrainingSpec,
    TrainingWorker,
)

SEED = 7
MISSIONS = [Mission(name="cogsguard_machina_1.basic")]
LAST_OF_FOUR = rank_seed(SEED, rank=3)
BY_ONE_ALONE = SEED + 800
"""The map of an episode that a worker plays only where it does the 1000 steps of all."""


@pytest.mark.parametrize(
    ("had", "fields", "seed", "trained_on"),
    [
        ([4, 4], {"workers": 4}, LAST_OF_FOUR, True),
        ([4, 2], {"workers": 4, "min_workers": 2}, LAST_OF_FOUR, True),
        ([4, 1], {"workers": 1}, LAST_OF_FOUR, True),  # resumed with fewer
        ([4, 1], {"workers": 1}, BY_ONE_ALONE, True),
        ([1, 4], {"workers": 4}, BY_ONE_ALONE, True),  # resumed with more
        ([4, 2], {}, LAST_OF_FOUR, True),  # as many as the profile has
        ([4, 4], {"workers": 4}, BY_ONE_ALONE, False),
        ([1, 1], {}, LAST_OF_FOUR, False),
    ],
)
def test_maps_of_all_attempts_are_trained_on(
    client: Client, services: Any, had: list[int], fields: dict[str, Any], seed: int, trained_on: bool
) -> None:
    job = TrainingJob(
        name="trainingJobs/one",
        spec=TrainingSpec(missions=MISSIONS, agent_steps=1000, seed=SEED, **fields),
        state=training_job_pb2.TRAINING_JOB_STATE_SUCCEEDED,
        attempt=len(had),
        progress=TrainingProgress(
            total_agent_steps=1000, workers=[TrainingWorker(rank=rank) for rank in range(had[-1])]
        ),
    )
    services.training.jobs[job.name] = job
    services.training.attempts[job.name] = [
        TrainingAttempt(number=number, workers=workers) for number, workers in enumerate(had, start=1)
    ]
    policy = Policy(label="mine", checkpoint=PolicyCheckpoint(checkpoint=f"{job.name}/checkpoints/7"))
    spec = EvaluationSpec(policies=[policy], missions=MISSIONS, episodes=1, seed=seed)

    problems = trained_maps_problems(client, spec)

    assert [f"seed {seed} is one of trainingJobs/one" in problem for problem in problems] == [True] * trained_on
