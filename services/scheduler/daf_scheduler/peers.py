"""Calls to the services that a sweep needs: training, evaluation, statistics."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from daf_common.auth import on_behalf_of
from daf_common.channel import raising, streaming
from daf_common.errors import AlreadyExists, DafError, InvalidArgument, NotFound
from daf_common.names import EVALUATION, TRAINING_JOB
from daf_common.values import scalars
from daf_protos.evaluation.v1 import evaluation_service_pb2 as evaluation_pb
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_protos.scheduler.v1.sweep_pb2 import BaselineResult, HeldOutResult, SweepSpec
from daf_protos.statistics.v1 import statistics_service_pb2 as statistics_pb
from daf_protos.statistics.v1.comparison_pb2 import ComparisonDesign, EpisodeSource, PairComparison, PolicyEpisodes
from daf_protos.statistics.v1.comparison_service_pb2 import ComparePoliciesRequest, ComparePoliciesResponse
from daf_protos.statistics.v1.metric_pb2 import Metric
from daf_protos.training.v1 import training_service_pb2 as training_pb
from daf_protos.training.v1.training_job_pb2 import TrainingSpec
from daf_scheduler.children import Child
from daf_scheduler.convert import difference_of, evaluation_seen, job_seen, score_of
from daf_scheduler.sweeps import HeldOut
from daf_scheduler.trials import Measured

if TYPE_CHECKING:
    from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceAsyncStub
    from daf_protos.statistics.v1.comparison_service_pb2_grpc import ComparisonServiceAsyncStub
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub
    from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceAsyncStub


@dataclass(frozen=True)
class Sightings:
    """What a watch of children has to say."""

    children: Sequence[Child]
    deleted: Sequence[str]
    """Resource names."""
    cursor: str


class ChildService[Spec](Protocol):
    """A service that runs children. All methods raise `DafError`."""

    name: Callable[..., str]
    """The resource name of a child, from its id."""

    async def create(self, id: str, spec: Spec, creator: str) -> Child:
        """Creates a child for whoever created its parent, or finds the one that an earlier call created."""
        ...

    async def get(self, id: str) -> Child | None:
        """A child as it is now."""
        ...

    async def cancel(self, id: str) -> Child | None:
        """Asks a child to stop."""
        ...

    def watch(self, cursor: str) -> AsyncIterator[Sightings]:
        """All children as they change."""
        ...


class TrainingJobs:
    """The training service as a `ChildService`."""

    name = TRAINING_JOB.format

    def __init__(self, stub: TrainingServiceAsyncStub) -> None:
        self._stub = stub

    async def create(self, id: str, spec: TrainingSpec, creator: str) -> Child:
        """See `ChildService.create`."""
        request = training_pb.CreateTrainingJobRequest(request_id=id, job_id=id, spec=spec)
        try:
            call = self._stub.CreateTrainingJob(request, metadata=on_behalf_of(creator))
            answer: training_pb.CreateTrainingJobResponse = await raising(call)
            return job_seen(answer.training_job)
        except AlreadyExists:
            # Request ids are forgotten after a day, so the job may still be the one that was asked for then.
            found = await self._get(id)
            if found is None or not _same_training(found.training_job.spec, spec):
                raise
            return job_seen(found.training_job)

    async def get(self, id: str) -> Child | None:
        """See `ChildService.get`."""
        found = await self._get(id)
        return job_seen(found.training_job) if found else None

    async def _get(self, id: str) -> training_pb.GetTrainingJobResponse | None:
        request = training_pb.GetTrainingJobRequest(name=self.name(id))
        try:
            answer: training_pb.GetTrainingJobResponse = await raising(self._stub.GetTrainingJob(request))
            return answer
        except NotFound:
            return None

    async def cancel(self, id: str) -> Child | None:
        """See `ChildService.cancel`."""
        request = training_pb.CancelTrainingJobRequest(name=self.name(id))
        try:
            answer: training_pb.CancelTrainingJobResponse = await raising(self._stub.CancelTrainingJob(request))
            return job_seen(answer.training_job)
        except NotFound:
            return None

    async def watch(self, cursor: str) -> AsyncIterator[Sightings]:
        """See `ChildService.watch`."""
        changes: AsyncIterator[training_pb.WatchTrainingJobsResponse]
        changes = streaming(self._stub.WatchTrainingJobs(training_pb.WatchTrainingJobsRequest(cursor=cursor)))
        async for change in changes:
            yield Sightings([job_seen(job) for job in change.training_jobs], list(change.deleted), change.cursor)


class Evaluations:
    """The evaluation service as a `ChildService`."""

    name = EVALUATION.format

    def __init__(self, stub: EvaluationServiceAsyncStub) -> None:
        self._stub = stub

    async def create(self, id: str, spec: EvaluationSpec, creator: str) -> Child:
        """See `ChildService.create`."""
        request = evaluation_pb.CreateEvaluationRequest(request_id=id, evaluation_id=id, spec=spec)
        try:
            call = self._stub.CreateEvaluation(request, metadata=on_behalf_of(creator))
            answer: evaluation_pb.CreateEvaluationResponse = await raising(call)
            return evaluation_seen(answer.evaluation)
        except AlreadyExists:
            found = await self._get(id)
            if found is None or not _same_evaluation(found.evaluation.spec, spec):
                raise
            return evaluation_seen(found.evaluation)

    async def get(self, id: str) -> Child | None:
        """See `ChildService.get`."""
        found = await self._get(id)
        return evaluation_seen(found.evaluation) if found else None

    async def _get(self, id: str) -> evaluation_pb.GetEvaluationResponse | None:
        request = evaluation_pb.GetEvaluationRequest(name=self.name(id))
        try:
            answer: evaluation_pb.GetEvaluationResponse = await raising(self._stub.GetEvaluation(request))
            return answer
        except NotFound:
            return None

    async def cancel(self, id: str) -> Child | None:
        """See `ChildService.cancel`."""
        request = evaluation_pb.CancelEvaluationRequest(name=self.name(id))
        try:
            answer: evaluation_pb.CancelEvaluationResponse = await raising(self._stub.CancelEvaluation(request))
            return evaluation_seen(answer.evaluation)
        except NotFound:
            return None

    async def watch(self, cursor: str) -> AsyncIterator[Sightings]:
        """See `ChildService.watch`."""
        changes: AsyncIterator[evaluation_pb.WatchEvaluationsResponse]
        changes = streaming(self._stub.WatchEvaluations(evaluation_pb.WatchEvaluationsRequest(cursor=cursor)))
        async for change in changes:
            yield Sightings([evaluation_seen(e) for e in change.evaluations], list(change.deleted), change.cursor)


class Numbers:
    """The statistics service: where scores are read."""

    def __init__(self, stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub) -> None:
        self._stub, self._comparisons = stub, comparisons

    async def objective(self, evaluation: str, metric: str) -> Measured:
        """The score of the one policy in a trial's evaluation."""
        try:
            answer = await self._summarize(evaluation, metric)
        except InvalidArgument as error:
            return Measured(math.nan, message=error.message)
        summary = next((policy for policy in answer.policies if policy.policy == 0), None)
        if summary is None or not summary.HasField("mean"):
            return Measured(math.nan, message=f"no episode of {evaluation} counts: the policy could not play")
        score = score_of(summary, answer.digest)
        return Measured(summary.mean, score.SerializeToString(deterministic=True))

    async def held_out(self, evaluation: str, spec: SweepSpec, creator: str) -> HeldOut:
        """How the best trial (policy 0) did beside the baselines (the policies after it), for a sweep's creator."""
        result = HeldOutResult(evaluation=evaluation)
        metric = spec.objective.metric
        try:
            answer = await self._summarize(evaluation, metric)
        except InvalidArgument:
            return HeldOut(math.nan, b"")
        summaries = {policy.policy: policy for policy in answer.policies if policy.HasField("mean")}
        if 0 not in summaries:
            return HeldOut(math.nan, b"")
        result.best.CopyFrom(score_of(summaries[0], answer.digest))
        comparisons = await self._compare(evaluation, answer.digest, metric, len(spec.baselines), creator)
        for number, baseline in enumerate(spec.baselines, start=1):
            line = BaselineResult(label=baseline.label or f"baseline {number}")
            if number in summaries:
                line.score.CopyFrom(score_of(summaries[number], answer.digest))
                if comparisons[number].HasField("difference"):
                    line.difference.CopyFrom(difference_of(comparisons[number], answer.digest))
            result.baselines.append(line)
        return HeldOut(summaries[0].mean, result.SerializeToString(deterministic=True))

    async def _summarize(self, evaluation: str, metric: str) -> statistics_pb.SummarizeEvaluationResponse:
        request = statistics_pb.SummarizeEvaluationRequest(evaluation=evaluation, metric=Metric(name=metric))
        answer: statistics_pb.SummarizeEvaluationResponse = await raising(self._stub.SummarizeEvaluation(request))
        return answer

    async def _compare(
        self, evaluation: str, digest: str, metric: str, baselines: int, creator: str
    ) -> dict[int, PairComparison]:
        """Every baseline, by its number, compared with the best trial."""
        if not baselines:
            return {}
        request = ComparePoliciesRequest(
            request_id=f"{evaluation} {digest[:32]}",  # asked again, it is the same comparison
            design=ComparisonDesign(metric=metric, baseline=0),
            policies=[
                PolicyEpisodes(sources=[EpisodeSource(evaluation=evaluation, policy=number)])
                for number in range(baselines + 1)
            ],
        )
        call = self._comparisons.ComparePolicies(request, metadata=on_behalf_of(creator))
        answer: ComparePoliciesResponse = await raising(call)
        return {pair.first: pair for pair in answer.comparison.pairs}


def is_final(error: DafError) -> bool:
    """Whether a service will answer a creation so for ever, so that the child will never be."""
    return error.code in _FINAL


_FINAL = frozenset(
    {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "ALREADY_EXISTS", "UNIMPLEMENTED", "PERMISSION_DENIED"}
)


def _same_training(found: TrainingSpec, wanted: TrainingSpec) -> bool:
    """Whether two specs mean the same run; a service may store names and defaults in another form."""
    return (
        (found.seed, found.agent_steps) == (wanted.seed, wanted.agent_steps)
        and sorted(map(repr, scalars(found.trainer).values())) == sorted(map(repr, scalars(wanted.trainer).values()))
        and scalars(found.policy_class.arguments) == scalars(wanted.policy_class.arguments)
    )


def _same_evaluation(found: EvaluationSpec, wanted: EvaluationSpec) -> bool:
    return (found.seed, found.episodes) == (wanted.seed, wanted.episodes) and (
        [policy.checkpoint.weights for policy in found.policies]
        == [policy.checkpoint.weights for policy in wanted.policies]
    )
