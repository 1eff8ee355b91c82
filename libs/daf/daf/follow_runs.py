"""Follows training jobs and evaluations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from daf.client import Client
from daf_common.errors import TRANSIENT, Unavailable
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation
from daf_protos.evaluation.v1.evaluation_service_pb2 import GetEvaluationRequest
from daf_protos.training.v1 import training_job_pb2
from daf_protos.training.v1.training_job_pb2 import TrainingJob
from daf_protos.training.v1.training_service_pb2 import GetTrainingJobRequest

POLL_SECONDS = 0.5
EVALUATION_POLL_SECONDS = 0.1
"""At first, as a small evaluation takes no longer."""
GIVE_UP_SECONDS = 300.0

JOB_ENDED = frozenset(
    {
        training_job_pb2.TRAINING_JOB_STATE_SUCCEEDED,
        training_job_pb2.TRAINING_JOB_STATE_FAILED,
        training_job_pb2.TRAINING_JOB_STATE_CANCELLED,
    }
)
EVALUATION_ENDED = frozenset(
    {
        evaluation_pb2.EVALUATION_STATE_SUCCEEDED,
        evaluation_pb2.EVALUATION_STATE_FAILED,
        evaluation_pb2.EVALUATION_STATE_CANCELLED,
    }
)


def follow_job(client: Client, name: str, on_trouble: Callable[[str], None] = lambda _: None) -> Iterator[TrainingJob]:
    """A training job, twice a second until it has ended.

    Args:
        client: where.
        name: the job.
        on_trouble: told why nothing new is heard at the moment, and of the end of that by an empty text.

    Raises:
        NotFound: there is none of this name.
        DafError: the service has been away for minutes.
    """
    request = GetTrainingJobRequest(name=name)
    return _poll(
        lambda: client.training.GetTrainingJob(request).training_job, lambda job: job.state in JOB_ENDED, on_trouble
    )


def follow_evaluation(client: Client, name: str) -> Iterator[Evaluation]:
    """An evaluation, at first more often and then twice a second until it has ended. Raises as `follow_job`."""
    request = GetEvaluationRequest(name=name)
    return _poll(
        lambda: client.evaluation.GetEvaluation(request).evaluation,
        lambda evaluation: evaluation.state in EVALUATION_ENDED,
        lambda _: None,
        EVALUATION_POLL_SECONDS,
    )


def _poll[T](
    read: Callable[[], T],
    has_ended: Callable[[T], bool],
    on_trouble: Callable[[str], None],
    pause: float = POLL_SECONDS,
) -> Iterator[T]:
    heard = time.monotonic()
    while True:
        try:
            found = read()
        except TRANSIENT as error:
            if time.monotonic() - heard > GIVE_UP_SECONDS:
                raise
            away = isinstance(error, Unavailable)
            on_trouble("the services do not answer; trying again" if away else error.message)
        else:
            heard = time.monotonic()
            on_trouble("")
            yield found
            if has_ended(found):
                return
        time.sleep(min(pause, POLL_SECONDS))
        pause *= 1.25
