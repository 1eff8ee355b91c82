"""Policies that are to be scored on maps which they were trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from daf.client import Client
from daf.training_jobs import list_attempts
from daf_common import names
from daf_common.errors import InvalidArgument, NotFound
from daf_common.map_seeds import FIRST_UNTRAINED_SEED, overlap, training_maps, with_pinned
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_protos.training.v1.training_job_pb2 import TrainingAttempt, TrainingJob
from daf_protos.training.v1.training_service_pb2 import GetTrainingJobRequest

_ANCESTORS = 20
"""Jobs that are looked at: each may have started from a checkpoint of another."""


def trained_maps_problems(client: Client, spec: EvaluationSpec) -> list[str]:
    """For every policy of an evaluation that may have been trained on its maps, a sentence that says so.

    Only policies of training jobs that are still there can be judged.
    """
    end = spec.seed + spec.episodes
    scored = with_pinned(map(_map_seed, spec.missions), [range(spec.seed, end)])
    problems = []
    for policy in spec.policies:
        for job, attempts in _jobs(client, policy):
            shared = overlap(maps_of_job(job, attempts), scored)
            if shared is not None:
                problems.append(
                    f"{policy.label} may have been trained on these maps: seed {shared.start} is one of {job.name}, "
                    f"and the episodes have {spec.seed} to {end - 1}. Choose a seed from {FIRST_UNTRAINED_SEED} on: no "
                    "training has these."
                )
                break
    return problems


def maps_of_job(job: TrainingJob, attempts: Sequence[TrainingAttempt] = ()) -> list[range]:
    """The seeds of all maps that a training job may have trained on, of which these are the attempts: one may have had
    other workers than the job has now."""
    spec = job.spec
    had = [attempt.workers for attempt in attempts]
    workers = [number for number in (spec.workers, len(job.progress.workers), *had) if number] or [1]
    others = training_maps(
        spec.seed,
        workers=max(workers),
        min_workers=min(*workers, spec.min_workers or workers[0]),
        attempts=max(1, job.attempt),
        environments=max(1, spec.environments),
        agent_steps=max(spec.agent_steps, job.progress.total_agent_steps),
        agents=min((max(1, mission.cogs) for mission in spec.missions), default=1),
    )
    return with_pinned(map(_map_seed, spec.missions), others)


def _map_seed(mission: Mission) -> int | None:
    return mission.map_seed if mission.HasField("map_seed") else None


def _jobs(client: Client, policy: Policy) -> Iterator[tuple[TrainingJob, Sequence[TrainingAttempt]]]:
    """The job that trained a policy, and those before it, with their attempts."""
    checkpoint = policy.checkpoint.checkpoint
    for _ in range(_ANCESTORS):
        try:
            id, _ = names.CHECKPOINT.parse(checkpoint)
            request = GetTrainingJobRequest(name=names.TRAINING_JOB.format(id))
            job = client.training.GetTrainingJob(request).training_job
            attempts = list(list_attempts(client, job.name))
        except (InvalidArgument, NotFound):  # not from a job, or from one that is gone
            return
        yield job, attempts
        checkpoint = job.spec.start.checkpoint
