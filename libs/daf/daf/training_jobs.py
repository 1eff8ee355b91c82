"""Training jobs as the client sees them: created, read and resumed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from daf.client import Client, all_pages
from daf.config import DAFTrainingConfig
from daf.convert import training_spec
from daf.resources import Resources
from daf.run_ids import new_id
from daf_protos.training.v1.training_job_pb2 import TrainingAttempt, TrainingJob
from daf_protos.training.v1.training_service_pb2 import (
    CreateTrainingJobRequest,
    GetTrainingJobRequest,
    ListAttemptsRequest,
    ResumeTrainingJobRequest,
)

_PAGE_SIZE = 200


def training_job_name(given: str) -> str:
    """The resource name of a job that may be given by its id alone, or as `job/ID`."""
    return f"trainingJobs/{given.removeprefix('trainingJobs/').removeprefix('job/')}"


def create_training_job(
    client: Client, config: DAFTrainingConfig, job_id: str = "", validate_only: bool = False
) -> TrainingJob:
    """Uploads what a training run needs and creates it; sending it again because no answer came creates it once.

    Args:
        client: where.
        config: what to train.
        job_id: its id; otherwise its name with something random behind it.
        validate_only: creates nothing.

    Raises:
        DafError: it is refused.
    """
    request = CreateTrainingJobRequest(
        request_id=uuid.uuid4().hex,
        job_id=job_id or new_id(config.name),
        spec=training_spec(config, Resources(client)),
        validate_only=validate_only,
    )
    return client.training.CreateTrainingJob(request).training_job


def read_training_job(client: Client, name: str) -> TrainingJob:
    """A training job as it is now.

    Raises:
        NotFound: there is none of this name.
    """
    return client.training.GetTrainingJob(GetTrainingJobRequest(name=name)).training_job


def resume_training_job(
    client: Client, name: str, workers: int | None = None, agent_steps: int | None = None
) -> TrainingJob:
    """Lets a job that has ended go on from its newest checkpoint.

    Args:
        client: where.
        name: the job.
        workers: with how many; as before if not given.
        agent_steps: length of the whole run; as before if not given.

    Raises:
        NotFound: there is none of this name.
        FailedPrecondition: it has not ended, or it has succeeded and is not to become longer.
    """
    request = ResumeTrainingJobRequest(name=name, request_id=uuid.uuid4().hex, workers=workers, agent_steps=agent_steps)
    return client.training.ResumeTrainingJob(request).training_job


def list_attempts(client: Client, job_name: str) -> Iterator[TrainingAttempt]:
    """The attempts of a job, newest first.

    Raises:
        NotFound: there is no such job.
    """

    def read(token: str) -> tuple[list[TrainingAttempt], str]:
        request = ListAttemptsRequest(parent=job_name, page_token=token, page_size=_PAGE_SIZE)
        answer = client.training.ListAttempts(request)
        return list(answer.attempts), answer.next_page_token

    return all_pages(read)
