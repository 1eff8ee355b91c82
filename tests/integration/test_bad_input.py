"""Bad requests to all five services: refused with the field named, nothing written, and the services go on."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from daf.client import Client
from daf_common.errors import (
    AlreadyExists,
    DafError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from daf_protos.deployment.v1.artifact_service_pb2 import UploadArtifactRequest
from daf_protos.deployment.v1.deployment_service_pb2 import CreatePolicyVersionRequest
from daf_protos.evaluation.v1.evaluation_service_pb2 import CreateEvaluationRequest
from daf_protos.scheduler.v1.scheduler_service_pb2 import CreateSweepRequest, GetSweepRequest, ListSweepsRequest
from daf_protos.statistics.v1.comparison_service_pb2 import ComparePoliciesRequest
from daf_protos.statistics.v1.statistics_service_pb2 import (
    RecordEpisodesRequest,
    RecordMetricsRequest,
    SummarizeEvaluationRequest,
)
from daf_protos.training.v1.training_service_pb2 import CreateTrainingJobRequest
from daf_standalone.settings import Home
from tests.requests import MISSION, sweep_request

MEGABYTE = "a" * (1 << 20)
SERVICES = (
    "daf.scheduler.v1.SchedulerService",
    "daf.training.v1.TrainingService",
    "daf.training.v1.TrainingWorkerService",
    "daf.training.v1.CatalogService",
    "daf.evaluation.v1.EvaluationService",
    "daf.evaluation.v1.EvaluationWorkerService",
    "daf.statistics.v1.StatisticsService",
    "daf.statistics.v1.ComparisonService",
    "daf.deployment.v1.DeploymentService",
    "daf.deployment.v1.ArtifactService",
)
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
}

METHODS: list[MethodDescriptor] = [
    method
    for service in SERVICES
    for method in descriptor_pool.Default().FindServiceByName(service).methods  # type: ignore[no-untyped-call]
]


@pytest.fixture
def nothing_written(home: Home, client: Client) -> Iterator[None]:
    """Around a test: no table of any service has another number of rows after it, and the services answer."""
    before = _rows(home)
    yield
    assert _rows(home) == before
    client.scheduler.ListSweeps(ListSweepsRequest())


def _rows(home: Home) -> dict[str, int]:
    counts = {}
    for path in sorted((home.directory / "state").glob("*.db")):
        database = sqlite3.connect(path)
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            (counts[f"{path.stem}.{name}"],) = database.execute(f'SELECT count(*) FROM "{name}"').fetchone()
        database.close()
    # Leases are taken when services have started.
    return {table: count for table, count in counts.items() if not table.endswith(".leases")}


# Any request, whatever its fields hold


def _empty(_: FieldDescriptor) -> Any:
    return None


def _of(**by_type: Any) -> Callable[[FieldDescriptor], Any]:
    def value(field: FieldDescriptor) -> Any:
        kinds = {
            FieldDescriptor.CPPTYPE_STRING: "text",
            FieldDescriptor.CPPTYPE_INT32: "number",
            FieldDescriptor.CPPTYPE_INT64: "number",
            FieldDescriptor.CPPTYPE_DOUBLE: "real",
            FieldDescriptor.CPPTYPE_ENUM: "enum",
        }
        found = by_type.get(kinds.get(field.cpp_type, ""))
        return found.encode() if field.type == FieldDescriptor.TYPE_BYTES and isinstance(found, str) else found

    return value


FILLINGS = {
    "empty": _empty,
    "nul": _of(text="a\0b", number=1, real=1.0, enum=1),
    "long": _of(text="a" * 100_000, number=1, real=1.0, enum=1),
    "path": _of(text="../../etc/passwd", number=1, real=1.0, enum=1),
    "negative": _of(text="x", number=-1, real=-1.0, enum=1),
    "huge": _of(text="x", number=2**31 - 1, real=1e308, enum=1),
    "not-a-number": _of(text="x", number=1, real=float("nan"), enum=1),
    "unknown-enum": _of(text="x", number=1, real=1.0, enum=99),
}


def _fill(message: Message, value: Callable[[FieldDescriptor], Any], depth: int = 0) -> Message:
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry or depth > 4 or value is _empty:
                continue
            inner = getattr(message, field.name)
            _fill(inner.add() if field.is_repeated else inner, value, depth + 1)
        elif (given := value(field)) is not None:
            if field.is_repeated:
                getattr(message, field.name).append(given)
            else:
                setattr(message, field.name, given)
    return message


def _status(address: str, method: MethodDescriptor, raw: bytes) -> grpc.StatusCode:
    """How a call ends. A stream counts as served once it yields something: an endless one does so at once."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    with grpc.insecure_channel(address) as channel:
        kind = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
        call = getattr(channel, "_".join(kind))(path)
        try:
            answer = call(iter([raw]) if method.client_streaming else raw, timeout=30)
            if method.server_streaming:
                next(answer, None)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.usefixtures("nothing_written")
def test_no_request_is_too_strange_for_a_service(address: str, filling: str) -> None:
    wrong = {}
    for method in METHODS:
        request = _fill(message_factory.GetMessageClass(method.input_type)(), FILLINGS[filling])
        code = _status(address, method, request.SerializeToString())
        if code not in REFUSALS and code is not grpc.StatusCode.OK:  # reading nothing is fine; writing would be seen
            wrong[method.full_name] = code

    assert wrong == {}


@pytest.mark.usefixtures("nothing_written")
def test_bytes_that_are_no_message_are_refused(address: str) -> None:
    codes = {method.full_name: _status(address, method, b"\xff\x00 no message") for method in METHODS}

    assert set(codes.values()) == {grpc.StatusCode.INVALID_ARGUMENT}


@pytest.mark.usefixtures("nothing_written")
def test_a_message_of_100_megabytes_is_refused(address: str) -> None:
    method = next(method for method in METHODS if method.name == "CreateSweep")

    assert _status(address, method, b"\0" * (100 << 20)) is grpc.StatusCode.RESOURCE_EXHAUSTED


# What is wrong is named

SWEEP = MessageToDict(sweep_request("bad", 2, parallel=1), preserving_proto_field_name=True)
TRAINING = {"job_id": "bad", "spec": SWEEP["spec"]["training"] | {"trainer": {"learning_rate": {"real": 0.001}}}}
EVALUATION: dict[str, Any] = {
    "evaluation_id": "bad",
    "spec": {
        "policies": [{"policy_class": {"class_path": "random"}}, {"policy_class": {"class_path": "noop"}}],
        "missions": [MessageToDict(MISSION, preserving_proto_field_name=True)],
        "episodes": 4,
        "seed": 1000,
    },
}
PICKUP = {**EVALUATION, "spec": {**EVALUATION["spec"], "team": "TEAM_PICKUP"}}
REPLAYED = {**EVALUATION["spec"], "save_replays": True}
METRICS = {"source": "trainingJobs/bad", "points": [{"step": 1, "values": {"loss": 1.0}}]}
EPISODE = {
    "evaluation": "evaluations/bad",
    "seats": [0],
    "rewards": [1.0],
    "action_timeouts": [0],
    "steps": 10,
    "max_steps": 10,
    "agent_statistics": [{"values": {"reward": 1.0}}],
    "digest": "0" * 64,
}
SUMMARY = {"evaluation": "evaluations/none", "metric": {"name": "reward"}}
COMPARISON = {
    "policies": [{"sources": [{"evaluation": f"evaluations/{name}", "policy": 0}]} for name in ("a", "b")],
    "design": {"metric": "reward", "alpha": 0.05},
}


def changed(base: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a request with another value at a path such as `spec.missions.0.cogs`."""
    copied = copy.deepcopy(dict(base))
    *parents, last = path.split(".")
    at: Any = copied
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
    at[int(last) if isinstance(at, list) else last] = value
    return copied


def send(client: Client, request: Message) -> None:
    calls: dict[type[Message], Callable[[Any], Any]] = {
        CreateSweepRequest: client.scheduler.CreateSweep,
        CreateTrainingJobRequest: client.training.CreateTrainingJob,
        CreateEvaluationRequest: client.evaluation.CreateEvaluation,
        CreatePolicyVersionRequest: client.deployment.CreatePolicyVersion,
        RecordMetricsRequest: client.statistics.RecordMetrics,
        RecordEpisodesRequest: client.statistics.RecordEpisodes,
        SummarizeEvaluationRequest: client.statistics.SummarizeEvaluation,
        ComparePoliciesRequest: client.comparison.ComparePolicies,
    }
    calls[type(request)](request)


MISSIONS = [
    ("name", "", "name"),
    ("name", "nope", "name"),
    ("name", "Cogsguard_machina_1.miner_tutorial", "name"),
    ("name", f"{MISSION.name} ", "name"),
    ("name", "/etc/mission.yaml", "name"),
    ("name", "cogsguard_*", "name"),
    ("name", "my_mission.py", "name"),
    ("name", "a\0b", "name"),
    ("name", MEGABYTE, "name"),
    ("cogs", 0, "cogs"),
    ("cogs", -1, "cogs"),
    ("cogs", 1_000_000, "cogs"),
    ("max_steps", 0, "max_steps"),
    ("max_steps", -1, "max_steps"),
    ("variants", ["nope"], "variants[0]"),
    ("difficulty", "nope", "difficulty"),
    ("map_seed", -1, "map_seed"),
]


@pytest.mark.parametrize(("key", "value", "field"), MISSIONS, ids=[f"{k}={str(v)[:20]!r}" for k, v, _ in MISSIONS])
@pytest.mark.parametrize(
    ("kind", "base", "prefix"),
    [
        (CreateSweepRequest, SWEEP, "spec.training"),
        (CreateSweepRequest, changed(SWEEP, "spec.evaluation.missions", [{"name": MISSION.name}]), "spec.evaluation"),
        (CreateTrainingJobRequest, TRAINING, "spec"),
        (CreateEvaluationRequest, EVALUATION, "spec"),
    ],
    ids=["sweep", "sweep-evaluation", "training", "evaluation"],
)
@pytest.mark.usefixtures("nothing_written")
def test_a_wrong_mission_is_named(
    client: Client, kind: type[Message], base: dict[str, Any], prefix: str, key: str, value: Any, field: str
) -> None:
    request = ParseDict(changed(base, f"{prefix}.missions.0.{key}", value), kind())

    with pytest.raises((InvalidArgument, ResourceExhausted)) as refused:
        send(client, request)

    assert f"{prefix}.missions[0].{field}" in [v.field for v in refused.value.violations] or value is MEGABYTE
    assert len(refused.value.message) < 10_000


@pytest.mark.usefixtures("nothing_written")
def test_a_mission_that_cogames_cannot_build_is_refused(client: Client) -> None:
    broken = next(
        mission for mission in client.catalog.ListMissions(_request("ListMissions", {})).missions if mission.problem
    )

    for kind, base, path in (
        (CreateSweepRequest, SWEEP, "spec.training.missions"),
        (CreateTrainingJobRequest, TRAINING, "spec.missions"),
        (CreateEvaluationRequest, EVALUATION, "spec.missions"),
    ):
        with pytest.raises(FailedPrecondition):
            send(client, ParseDict(changed(base, path, [{"name": broken.name}]), kind()))


CASES: list[tuple[type[Message], Mapping[str, Any], str, Any, str]] = [
    (CreateEvaluationRequest, EVALUATION, "spec.episodes", 0, "spec.episodes"),
    (CreateEvaluationRequest, EVALUATION, "spec.episodes", -1, "spec.episodes"),
    (CreateEvaluationRequest, EVALUATION, "spec.episodes", 10**9, "spec.episodes"),
    (CreateEvaluationRequest, EVALUATION, "spec.seed", -1, "spec.seed"),
    (CreateEvaluationRequest, EVALUATION, "spec.seed", 2**32 - 3, "spec.seed"),
    (CreateEvaluationRequest, EVALUATION, "spec.policies", [], "spec.policies"),
    (CreateEvaluationRequest, EVALUATION, "spec.missions", [], "spec.missions"),
    (CreateEvaluationRequest, EVALUATION, "spec.proportions", ["NaN", 1], "spec.proportions"),
    (CreateEvaluationRequest, EVALUATION, "spec.proportions", [-1, 2], "spec.proportions"),
    (CreateEvaluationRequest, EVALUATION, "spec.proportions", [0, 0], "spec.proportions"),
    (CreateEvaluationRequest, EVALUATION, "spec.proportions", [1, 1, 1], "spec.proportions"),
    (CreateEvaluationRequest, EVALUATION, "spec.max_action_time_ms", -1, "spec.max_action_time_ms"),
    (CreateEvaluationRequest, EVALUATION, "spec.team", 99, "spec.team"),
    (CreateEvaluationRequest, PICKUP, "spec.proportions", [1, 1], "spec.proportions"),
    (CreateEvaluationRequest, PICKUP, "spec.policies", EVALUATION["spec"]["policies"][:1], "spec.policies"),
    (CreateEvaluationRequest, PICKUP, "spec.episodes", 200_001, "spec.episodes"),
    (CreateEvaluationRequest, EVALUATION, "spec.time_limit_seconds", "NaN", "spec.time_limit_seconds"),
    (CreateEvaluationRequest, EVALUATION, "spec.time_limit_seconds", -1, "spec.time_limit_seconds"),
    (CreateEvaluationRequest, {**EVALUATION, "spec": REPLAYED}, "spec.episodes", 1001, "spec.save_replays"),
    (CreateEvaluationRequest, EVALUATION, "spec.workers", 0, "spec.workers"),
    (CreateEvaluationRequest, EVALUATION, "spec.profile", "gpu-1000", "spec.profile"),
    (CreateEvaluationRequest, EVALUATION, "spec.policies", [{}], "spec.policies[0]"),
    (CreateEvaluationRequest, EVALUATION, "spec.policies.0.label", "a\0b", "spec.policies[0].label"),
    (CreateEvaluationRequest, EVALUATION, "evaluation_id", "Not An Id", "evaluation_id"),
    (CreateEvaluationRequest, EVALUATION, "evaluation_id", "a\0b", "evaluation_id"),
    (CreateEvaluationRequest, EVALUATION, "evaluation_id", MEGABYTE, "evaluation_id"),
    (CreateEvaluationRequest, EVALUATION, "request_id", MEGABYTE, "request_id"),
    (CreateTrainingJobRequest, TRAINING, "spec.agent_steps", 0, "spec.agent_steps"),
    (CreateTrainingJobRequest, TRAINING, "spec.agent_steps", -1, "spec.agent_steps"),
    (CreateTrainingJobRequest, TRAINING, "spec.seed", -1, "spec.seed"),
    (CreateTrainingJobRequest, TRAINING, "spec.missions", [], "spec.missions"),
    (CreateTrainingJobRequest, TRAINING, "spec.environments", -1, "spec.environments"),
    (CreateTrainingJobRequest, TRAINING, "spec.profile", "gpu-1000", "spec.profile"),
    (CreateTrainingJobRequest, TRAINING, "spec.policy_class.class_path", "", "spec.policy_class.class_path"),
    (CreateTrainingJobRequest, TRAINING, "spec.policy_class.class_path", "a\0.B", "spec.policy_class.class_path"),
    (CreateTrainingJobRequest, TRAINING, "spec.trainer", {"nope": {"real": 1}}, "spec.trainer.nope"),
    (CreateTrainingJobRequest, TRAINING, "spec.trainer", {"learning_rate": {}}, "spec.trainer.learning_rate"),
    (CreateTrainingJobRequest, TRAINING, "spec.trainer.learning_rate.real", "NaN", "spec.trainer.learning_rate"),
    (CreateTrainingJobRequest, TRAINING, "job_id", "a" * 200, "job_id"),
    (CreateTrainingJobRequest, TRAINING, "job_id", "../up", "job_id"),
    (CreateSweepRequest, SWEEP, "sweep_id", "trailing-", "sweep_id"),
    (CreateSweepRequest, SWEEP, "spec.space", {}, "spec.space"),
    (CreateSweepRequest, SWEEP, "spec.search", {}, "spec.search"),
    (CreateSweepRequest, SWEEP, "spec.search.random.trials", 0, "spec.search.random.trials"),
    (CreateSweepRequest, SWEEP, "spec.search.random.trials", 2**31 - 1, "spec.search.random.trials"),
    (CreateSweepRequest, SWEEP, "spec.objective.metric", "", "spec.objective.metric"),
    (CreateSweepRequest, SWEEP, "spec.objective.metric", "a\0b", "spec.objective.metric"),
    (CreateSweepRequest, SWEEP, "spec.objective.direction", 99, "spec.objective.direction"),
    (CreateSweepRequest, SWEEP, "spec.evaluation.episodes", 0, "spec.evaluation.episodes"),
    (CreateSweepRequest, SWEEP, "spec.evaluation.seed", 2**32 - 1, "spec.evaluation.seed"),
    (CreateSweepRequest, SWEEP, "spec.held_out.seed", 10_000, "spec.held_out.seed"),
    (CreateSweepRequest, SWEEP, "spec.max_parallel_trials", -1, "spec.max_parallel_trials"),
    (CreateSweepRequest, SWEEP, "spec.baselines", [{}], "spec.baselines[0]"),
    (RecordMetricsRequest, METRICS, "source", "", "source"),
    (RecordMetricsRequest, METRICS, "source", "no/such/kind", "source"),
    (RecordMetricsRequest, METRICS, "source", "trainingJobs/a\0b", "source"),
    (RecordMetricsRequest, METRICS, "points.0.values", {"a\0b": 1.0}, "points[0].values"),
    (RecordMetricsRequest, METRICS, "points.0.step", -1, "points[0].step"),
    (RecordEpisodesRequest, {"episodes": [EPISODE]}, "episodes.0.evaluation", "x", "episodes[0].evaluation"),
    (RecordEpisodesRequest, {"episodes": [EPISODE]}, "episodes.0.rewards", [1.0, 2.0], "episodes[0].rewards"),
    (RecordEpisodesRequest, {"episodes": [EPISODE]}, "episodes.0.index", -1, "episodes[0].index"),
    (RecordEpisodesRequest, {"episodes": [EPISODE]}, "episodes.0.steps", -1, "episodes[0].steps"),
    (SummarizeEvaluationRequest, SUMMARY, "evaluation", "a\0b", "evaluation"),
    (ComparePoliciesRequest, COMPARISON, "design.alpha", "NaN", "design.alpha"),
    (ComparePoliciesRequest, COMPARISON, "design.alpha", 1.5, "design.alpha"),
    (
        ComparePoliciesRequest,
        COMPARISON,
        "policies.0.sources.0.evaluation",
        "nope",
        "policies[0].sources[0].evaluation",
    ),
    (ComparePoliciesRequest, COMPARISON, "policies.0.sources.0.policy", -1, "policies[0].sources[0].policy"),
    (CreatePolicyVersionRequest, {"version": "1.0.0"}, "package_id", "Not An Id", "package_id"),
    (CreatePolicyVersionRequest, {"package_id": "p"}, "version", "one", "version"),
    (CreatePolicyVersionRequest, {"package_id": "p", "version": "1.0.0"}, "bundle.sha256", "abc", "bundle.sha256"),
]


@pytest.mark.parametrize(
    ("kind", "base", "path", "value", "field"),
    CASES,
    ids=[f"{kind.__name__}-{path}={str(value)[:20]!r}" for kind, _, path, value, _ in CASES],
)
@pytest.mark.usefixtures("nothing_written")
def test_a_wrong_field_is_named(
    client: Client, kind: type[Message], base: Mapping[str, Any], path: str, value: Any, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        send(client, ParseDict(changed(base, path, value), kind()))

    assert any(violation.field.startswith(field) for violation in refused.value.violations), refused.value.message
    assert len(refused.value.message) < 10_000


# Lists, names, requests sent twice

LISTS = [
    method for method in METHODS if method.name.startswith("List") and "page_token" in method.input_type.fields_by_name
]


def _request(name: str, fields: Mapping[str, Any]) -> Any:
    method = next(method for method in METHODS if method.name == name)
    return ParseDict(fields, message_factory.GetMessageClass(method.input_type)())


@pytest.mark.parametrize("method", LISTS, ids=[method.name for method in LISTS])
@pytest.mark.usefixtures("nothing_written")
def test_lists_refuse_wrong_pages(address: str, method: MethodDescriptor) -> None:
    def status(**fields: Any) -> grpc.StatusCode:
        message = message_factory.GetMessageClass(method.input_type)(**fields)
        for name, value in {"parent": "sweeps/none", "evaluation": "evaluations/none"}.items():
            if name in method.input_type.fields_by_name:
                setattr(message, name, value)
        return _status(address, method, message.SerializeToString())

    built = status() is not grpc.StatusCode.UNIMPLEMENTED
    refused = grpc.StatusCode.INVALID_ARGUMENT if built else grpc.StatusCode.UNIMPLEMENTED
    assert status(page_size=-1) is refused
    assert status(page_token="stale") is refused
    assert status(page_size=10**9) is status()


@pytest.mark.usefixtures("nothing_written")
def test_what_is_not_there_is_not_found(client: Client) -> None:
    for call, request in (
        (client.scheduler.GetSweep, _request("GetSweep", {"name": "sweeps/none"})),
        (client.scheduler.GetTrial, _request("GetTrial", {"name": "sweeps/none/trials/1"})),
        (client.scheduler.CancelSweep, _request("CancelSweep", {"name": "sweeps/none"})),
        (client.training.GetTrainingJob, _request("GetTrainingJob", {"name": "trainingJobs/none"})),
        (client.evaluation.GetEvaluation, _request("GetEvaluation", {"name": "evaluations/none"})),
        (client.deployment.GetPolicyPackage, _request("GetPolicyPackage", {"name": "policyPackages/none"})),
        (client.statistics.SummarizeEvaluation, ParseDict(SUMMARY, SummarizeEvaluationRequest())),
    ):
        with pytest.raises(NotFound):
            call(request)


@pytest.mark.usefixtures("nothing_written")
def test_a_deadline_that_has_passed_ends_the_call(client: Client) -> None:
    with pytest.raises(DeadlineExceeded):
        client.scheduler.GetSweep(GetSweepRequest(name="sweeps/none"), timeout=-1)


@pytest.mark.usefixtures("nothing_written")
def test_an_upload_that_is_not_what_it_says_is_refused(client: Client) -> None:
    named = UploadArtifactRequest()
    named.artifact.sha256, named.artifact.size_bytes = "0" * 64, 3

    with pytest.raises(DafError) as refused:
        client.artifacts.UploadArtifact(iter([named, UploadArtifactRequest(chunk=b"abc")]))

    assert refused.value.code in ("INVALID_ARGUMENT", "DATA_LOSS")


def test_a_request_id_belongs_to_one_request(client: Client) -> None:
    first = ParseDict(changed(EVALUATION, "request_id", "once"), CreateEvaluationRequest())
    created = client.evaluation.CreateEvaluation(first).evaluation
    assert client.evaluation.CreateEvaluation(first).evaluation.name == created.name

    with pytest.raises(AlreadyExists):
        send(
            client,
            ParseDict(
                changed(changed(EVALUATION, "request_id", "once"), "spec.episodes", 5), CreateEvaluationRequest()
            ),
        )
    with pytest.raises(AlreadyExists):
        send(client, ParseDict(EVALUATION, CreateEvaluationRequest()))  # the name is taken
