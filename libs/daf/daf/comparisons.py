"""Comparisons as the client sees them: planned, played, computed, and read again by name."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress

from daf.client import Client
from daf.config import DAFComparisonConfig, DAFEvaluationConfig
from daf.convert import evaluation_spec
from daf.convert.metrics import metric_message
from daf.evaluations import check_metric, forfeit_reasons
from daf.follow_runs import follow_evaluation
from daf.references import PolicyConfig
from daf.resources import Resources
from daf.run_ids import new_id
from daf.trained_maps import trained_maps_problems
from daf_common.errors import AlreadyExists, DafError, FailedPrecondition, InvalidArgument
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation, EvaluationSpec
from daf_protos.evaluation.v1.evaluation_service_pb2 import CreateEvaluationRequest, GetEvaluationRequest
from daf_protos.statistics.v1 import comparison_pb2, metric_pb2
from daf_protos.statistics.v1.comparison_pb2 import (
    Comparison,
    ComparisonDesign,
    EpisodeSource,
    PolicyEpisodes,
    PolicyValues,
)
from daf_protos.statistics.v1.comparison_service_pb2 import (
    ComparePoliciesRequest,
    CompareValuesRequest,
    GetComparisonRequest,
    PlanComparisonRequest,
    PlanComparisonResponse,
)

COMPARING_SECONDS = 300.0

_AGGREGATIONS = {
    "mean": metric_pb2.AGGREGATION_MEAN,
    "sum": metric_pb2.AGGREGATION_SUM,
    "min": metric_pb2.AGGREGATION_MINIMUM,
    "max": metric_pb2.AGGREGATION_MAXIMUM,
}
_FAMILIES = {"holm": comparison_pb2.FAMILY_HOLM, "bh": comparison_pb2.FAMILY_BENJAMINI_HOCHBERG}


class ComparisonFailed(DafError, RuntimeError):
    """The episodes could not be played. `evaluation` says how far they got."""

    exit_code = 1
    default_reason = "COMPARISON_FAILED"

    def __init__(self, evaluation: Evaluation) -> None:
        state = evaluation_pb2.EvaluationState.Name(evaluation.state).removeprefix("EVALUATION_STATE_").lower()
        super().__init__(f"{evaluation.name} {state}: {evaluation.failure.message or 'without a reason'}")
        self.evaluation = evaluation


class PolicyComparison:
    """One comparison of policies that play: what it is going to be, and then its steps, which are taken in order."""

    def __init__(self, client: Client, config: DAFComparisonConfig, id: str = "") -> None:
        """Uploads what the policies need; starts nothing.

        Args:
            client: where.
            config: what to compare.
            id: of the evaluation and of the comparison; otherwise the name with something random behind it.

        Raises:
            DafError: something in it is not known; names the field.
        """
        check_metric(client, metric_message(config.metric, config.aggregation), config.missions)
        self._client, self.id = client, id or new_id(config.name)
        self.spec = evaluation_spec(evaluation_config(config), Resources(client))
        self.design = design_of(config, self.spec)

    def plan(self) -> PlanComparisonResponse:
        """What the design needs; among its warnings those of policies that may have been trained on these maps.

        Raises:
            FailedPrecondition: it is strict, and the planned episodes cannot reach its alpha, or a policy may have been
                trained on their maps.
        """
        request = PlanComparisonRequest(
            design=self.design, policies=len(self.spec.policies), missions=len(self.spec.missions)
        )
        plan = self._client.comparison.PlanComparison(request)
        plan.warnings.extend(self.check_maps())
        return plan

    def check_maps(self) -> list[str]:
        """Which policies may have been trained on these maps, as sentences.

        Raises:
            FailedPrecondition: the design is strict, and one may have been.
        """
        problems = trained_maps_problems(self._client, self.spec)
        if problems and self.design.strict:
            raise FailedPrecondition(" ".join(problems), reason="TRAINED_MAPS")
        return problems

    def start(self) -> Evaluation:
        """Creates the evaluation, or finds it where the same comparison was started before.

        Raises:
            DafError: it is refused.
        """
        return create_or_find(self._client, self.id, self.spec)

    def compute(self, evaluation: Evaluation) -> Comparison:
        """Compares what was played.

        Raises:
            ComparisonFailed: the evaluation failed or was cancelled.
            InvalidArgument: there is no such metric; lists those that there are.
        """
        if evaluation.state != evaluation_pb2.EVALUATION_STATE_SUCCEEDED:
            raise ComparisonFailed(evaluation)
        policies = [
            PolicyEpisodes(sources=[EpisodeSource(evaluation=evaluation.name, policy=number)], label=policy.label)
            for number, policy in enumerate(self.spec.policies)
        ]
        request_id = f"{evaluation.name} {evaluation.digest[:32]}"
        return compare_or_find(self._client, self.id, request_id, self.design, policies)

    def forfeits(self, evaluation: Evaluation, comparison: Comparison) -> list[str]:
        """Why policies could not play, if any could not."""
        forfeited = any(policy.values.forfeits for policy in comparison.policies)
        return forfeit_reasons(self._client, evaluation) if forfeited else []


def create_or_find(client: Client, id: str, spec: EvaluationSpec) -> Evaluation:
    """Creates an evaluation, or finds the one with this id if it is the same: what was interrupted goes on.

    Raises:
        AlreadyExists: there is another one with this id.
        DafError: it is refused.
    """
    request = CreateEvaluationRequest(request_id=uuid.uuid4().hex, evaluation_id=id, spec=spec)
    try:
        return client.evaluation.CreateEvaluation(request).evaluation
    except AlreadyExists:
        found = client.evaluation.GetEvaluation(GetEvaluationRequest(name=f"evaluations/{id}")).evaluation
        if found.spec != spec:
            message = f"there is an evaluation {id!r} with other policies, missions or episodes: choose another name"
            raise AlreadyExists(message) from None
        return found


def compare_or_find(
    client: Client, id: str, request_id: str, design: ComparisonDesign, policies: Sequence[PolicyEpisodes]
) -> Comparison:
    """Compares, or finds the comparison with this id if it is of the same episodes.

    Raises:
        AlreadyExists: there is another one with this id.
        DafError: it is refused.
    """
    request = ComparePoliciesRequest(request_id=request_id, comparison_id=id, design=design, policies=policies)
    try:
        return client.comparison.ComparePolicies(request, timeout=COMPARING_SECONDS).comparison
    except AlreadyExists:
        found = read_comparison(client, f"comparisons/{id}")
        if [policy.episodes for policy in found.policies] != list(policies) or found.design != design:
            raise
        return found


def play_and_compare(
    client: Client,
    config: DAFComparisonConfig,
    on_change: Callable[[Evaluation], None] = lambda _: None,
    id: str = "",
) -> Comparison:
    """Plays and compares, in one look. Raises as the steps of `PolicyComparison`."""
    comparison = PolicyComparison(client, config, id)
    check(comparison)
    return comparison.compute(followed(client, comparison.start().name, on_change))


def check(comparison: PolicyComparison) -> None:
    """Checks a comparison before anything is played: warns of policies that may have been trained on its maps.

    Raises:
        FailedPrecondition: it is strict, and there is something wrong with it.
    """
    if comparison.design.strict:
        comparison.plan()
    for problem in comparison.check_maps():
        warnings.warn(problem, UserWarning, stacklevel=4)


def followed(client: Client, name: str, on_change: Callable[[Evaluation], None]) -> Evaluation:
    """An evaluation, once it has ended; `on_change` is told twice a second how far it is."""
    for evaluation in follow_evaluation(client, name):
        on_change(evaluation)
    return evaluation


def compare_values(
    client: Client, values: Sequence[PolicyValues], design: ComparisonDesign, id: str = ""
) -> Comparison:
    """Compares values from elsewhere.

    Raises:
        InvalidArgument: they cannot be compared; names what is wrong.
    """
    request = CompareValuesRequest(request_id=uuid.uuid4().hex, comparison_id=id, design=design, policies=values)
    return client.comparison.CompareValues(request, timeout=COMPARING_SECONDS).comparison


def read_comparison(client: Client, name: str) -> Comparison:
    """A comparison by its name.

    Raises:
        NotFound: there is none.
    """
    return client.comparison.GetComparison(GetComparisonRequest(name=name)).comparison


def plan_from_pilot(client: Client, pilot: Comparison, difference: float, power: float) -> PlanComparisonResponse:
    """How many episodes find a difference with a power, if spread and correlation are those of a comparison.

    Raises:
        InvalidArgument: there is no such difference or power.
    """
    design = ComparisonDesign()
    design.CopyFrom(pilot.design)
    design.strict = False
    request = PlanComparisonRequest(design=design, pilot=pilot.name, difference=difference, power=power)
    return client.comparison.PlanComparison(request)


def make_design(
    metric: str,
    alpha: float = 0.05,
    margin: float | None = None,
    family: str = "holm",
    baseline: int | None = None,
    episodes: int = 0,
    strict: bool = False,
    aggregation: str = "mean",
    looks: int = 1,
) -> ComparisonDesign:
    """A design as a message.

    Raises:
        InvalidArgument: there is no such family or aggregation.
    """
    for field, value, known in (("family", family, _FAMILIES), ("aggregation", aggregation, _AGGREGATIONS)):
        if value not in known:
            raise InvalidArgument.field(field, f"{value[:40]!r} is not one of {', '.join(known)}")
    return ComparisonDesign(
        metric=metric,
        alpha=alpha,
        margin=margin,
        family=_FAMILIES[family],
        baseline=baseline,
        episodes=episodes,
        strict=strict,
        aggregation=_AGGREGATIONS[aggregation],
        looks=looks,
    )


def evaluation_config(config: DAFComparisonConfig) -> DAFEvaluationConfig:
    """The evaluation whose episodes a comparison compares: each policy alone, all on the same seeds."""
    evaluation = DAFEvaluationConfig(
        name=config.name,
        policies=config.policies,
        code=config.code,
        requirements=config.requirements,
        missions=config.missions,
        episodes=config.episodes_per_mission,
        seed=config.seed,
        team="solo",
        max_action_time_ms=config.max_action_time_ms,
        fast=config.fast,
        isolated=config.isolated,
        time_limit_seconds=config.time_limit_seconds,
        profile=config.profile,
        workers=config.workers,
        objective_metric=config.metric,
    )
    evaluation._directory = config.directory
    return evaluation


def design_of(config: DAFComparisonConfig, spec: EvaluationSpec) -> ComparisonDesign:
    """The design in a document.

    Args:
        config: the document.
        spec: its evaluation, in which the policies have their labels.

    Raises:
        InvalidArgument: there is no such baseline.
    """
    baseline = None
    if config.baseline is not None:
        labels = [policy.label for policy in spec.policies]
        baseline = baseline_number(config.baseline, labels, config.policies)
    return make_design(
        config.metric,
        config.alpha,
        config.margin,
        config.family,
        baseline,
        config.episodes_per_mission,
        config.strict,
        config.aggregation,
        config.looks,
    )


def baseline_number(baseline: str, labels: Sequence[str], policies: Sequence[PolicyConfig] = ()) -> int:
    """The number of the policy that a baseline names.

    Args:
        baseline: its label, or the policy as documents and commands name it.
        labels: what the policies are called.
        policies: the policies.

    Raises:
        InvalidArgument: none is called so.
    """
    if baseline in labels:
        return list(labels).index(baseline)
    with suppress(ValueError):
        return list(policies).index(PolicyConfig.model_validate(baseline))
    raise InvalidArgument.field("baseline", f"{baseline[:80]!r} is not one of {', '.join(labels)}")
