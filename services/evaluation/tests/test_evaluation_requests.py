"""Bad requests: refused by the field, and nothing is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from daf_cogames.catalog import catalog
from daf_common.channel import raising
from daf_common.errors import DafError, FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from daf_evaluation import convert
from daf_evaluation.validation import check_spec
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyCheckpoint, PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.evaluation.v1 import evaluation_service_pb2 as pb
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec, Team

if TYPE_CHECKING:
    from .conftest import Stack

ARTIFACT = Artifact(sha256="ab" * 32, size_bytes=3, media_type="application/zip", owner="deployment")
STARTER = Policy(policy_class=PolicyClass(class_path="starter"))
ARENA = Mission(name="cogsguard_arena.basic", cogs=4)
ALONE = Mission(name="cogsguard_arena.basic", cogs=1)
OWN = Mission(name="own", file=ARTIFACT)


def spec() -> EvaluationSpec:
    return EvaluationSpec(
        policies=[Policy(policy_class=PolicyClass(class_path="starter"))],
        missions=[Mission(name="cogsguard_arena.basic", cogs=4, max_steps=20)],
        episodes=8,
        seed=100,
    )


def changed(**fields: Any) -> Callable[[EvaluationSpec], None]:
    return lambda spec: spec.MergeFrom(EvaluationSpec(**fields))


def mission(**fields: Any) -> Callable[[EvaluationSpec], None]:
    return lambda spec: spec.missions[0].MergeFrom(Mission(**fields))


def own_mission(**fields: Any) -> Callable[[EvaluationSpec], None]:
    return lambda spec: spec.missions[0].CopyFrom(Mission(**{"name": "own", "file": ARTIFACT, **fields}))


def policy(class_path: str, **fields: Any) -> Callable[[EvaluationSpec], None]:
    return lambda spec: spec.policies[0].CopyFrom(Policy(policy_class=PolicyClass(class_path=class_path, **fields)))


def _set(field: str, value: object) -> Callable[[EvaluationSpec], None]:
    return lambda spec: setattr(spec, field, value)


WRONG: list[tuple[str, Callable[[EvaluationSpec], None]]] = [
    ("spec.episodes", _set("episodes", 0)),
    ("spec.episodes", _set("episodes", -1)),
    ("spec.episodes", _set("episodes", 2_000_000)),
    ("spec.seed", _set("seed", -1)),
    ("spec.seed", _set("seed", 2**32 - 7)),
    ("spec.team", _set("team", 77)),
    ("spec.profile", _set("profile", "gpu-900")),
    ("spec.workers", _set("workers", 0)),
    ("spec.max_action_time_ms", _set("max_action_time_ms", -1)),
    ("spec.policies", lambda spec: spec.ClearField("policies")),
    ("spec.missions", lambda spec: spec.ClearField("missions")),
    ("spec.proportions", changed(proportions=[math.nan])),
    ("spec.proportions", changed(proportions=[-1.0])),
    ("spec.proportions", changed(proportions=[0.0])),
    ("spec.proportions", changed(proportions=[math.inf])),
    ("spec.proportions", changed(proportions=[1.0, 1.0])),
    ("spec.proportions", changed(proportions=[1.0], team=Team.TEAM_SOLO)),
    ("spec.proportions", changed(proportions=[1.0, 1.0], policies=[STARTER], team=Team.TEAM_PICKUP)),
    ("spec.policies", _set("team", Team.TEAM_PICKUP)),
    ("spec.policies", _set("team", Team.TEAM_PAIRS)),
    ("spec.episodes", changed(policies=[STARTER], team=Team.TEAM_PICKUP, episodes=200_001)),
    ("spec.episodes", changed(policies=[STARTER] * 2, team=Team.TEAM_PAIRS, episodes=166_667)),
    ("spec.missions", changed(policies=[STARTER] * 99, missions=[ARENA] * 2, team=Team.TEAM_PAIRS)),
    ("spec.missions[1].file", changed(policies=[STARTER], missions=[OWN], team=Team.TEAM_PICKUP)),
    ("spec.missions[1].file", changed(policies=[STARTER], missions=[OWN], team=Team.TEAM_PAIRS)),
    ("spec.missions[1].cogs", changed(policies=[STARTER], missions=[ALONE], team=Team.TEAM_PAIRS)),
    ("spec.time_limit_seconds", _set("time_limit_seconds", -1.0)),
    ("spec.time_limit_seconds", _set("time_limit_seconds", 86_401.0)),
    ("spec.time_limit_seconds", _set("time_limit_seconds", math.inf)),
    ("spec.time_limit_seconds", _set("time_limit_seconds", math.nan)),
    ("spec.save_replays", changed(save_replays=True, episodes=1001)),
    ("spec.policies[0].bundle.sha256", lambda spec: spec.policies[0].bundle.CopyFrom(Artifact(sha256="../x"))),
    ("spec.policies[0]", lambda spec: spec.policies[0].ClearField("source")),
    ("spec.policies[0].label", lambda spec: setattr(spec.policies[0], "label", "a\x00b")),
    ("spec.policies[0].policy_class.class_path", policy("startr")),
    ("spec.policies[0].policy_class.class_path", policy("")),
    ("spec.policies[0].policy_class.class_path", policy("../../etc/passwd")),
    ("spec.policies[0].policy_class.class_path", policy("a.b\x00")),
    ("spec.policies[0].policy_class.class_path", policy("x" * 1_000_000)),
    ("spec.policies[0].policy_class.arguments", policy("starter", arguments={"hiden": Value(integer=1)})),
    ("spec.policies[0].policy_class.arguments", policy("a.B", arguments={"x": Value(real=math.nan)})),
    ("spec.policies[0].policy_class.arguments", policy("a.B", arguments={"x": Value()})),
    ("spec.policies[0].policy_class.arguments", policy("a.B", arguments={"x y": Value(integer=1)})),
    ("spec.policies[0].policy_class.code.sha256", policy("a.B", code=Artifact(sha256="../x", owner="deployment"))),
    ("spec.policies[0].policy_class.requirements.sha256", policy("starter", requirements=Artifact(sha256="../x"))),
    ("spec.policies[0].policy_class.code.owner", policy("a.B", code=Artifact(sha256="ab" * 32, owner="me"))),
    ("spec.missions[0].name", mission(name="cogsguard_arena.basics")),
    ("spec.missions[0].name", mission(name="Cogsguard_arena.basic")),
    ("spec.missions[0].name", mission(name="cogsguard_arena.basic ")),
    ("spec.missions[0].name", mission(name="*")),
    ("spec.missions[0].name", mission(name="/tmp/mission.py")),
    ("spec.missions[0].name", mission(name="mission.yaml")),
    ("spec.missions[0].name", mission(name="\x00")),
    ("spec.missions[0].name", own_mission(name="own.yaml")),
    ("spec.missions[0].name", own_mission(name="../own")),
    ("spec.missions[0].name", own_mission(name="own*")),
    ("spec.missions[0].name", own_mission(name="x" * 1_000_000)),
    ("spec.missions[0].cogs", mission(file=ARTIFACT)),
    ("spec.missions[0].variants[0]", own_mission(variants=["dark_side"])),
    ("spec.missions[0].difficulty", own_mission(difficulty="easy")),
    ("spec.missions[0].max_steps", own_mission(max_steps=0)),
    ("spec.missions[0].map_seed", own_mission(map_seed=-1)),
    ("spec.missions[0].file.sha256", own_mission(file=Artifact(sha256="../x"))),
    ("spec.missions[0].cogs", mission(cogs=0)),
    ("spec.missions[0].cogs", mission(cogs=100_000)),
    ("spec.missions[0].max_steps", mission(max_steps=0)),
    ("spec.missions[0].max_steps", mission(max_steps=-3)),
    ("spec.missions[0].map_seed", mission(map_seed=-1)),
    ("spec.missions[0].map_seed", mission(map_seed=2**32)),
    ("spec.missions[0].difficulty", mission(difficulty="nightmare")),
    ("spec.missions[0].variants[0]", mission(variants=["no_such_variant"])),
]


@pytest.mark.parametrize(("field", "spoil"), WRONG, ids=[f"{n}-{field}" for n, (field, _) in enumerate(WRONG)])
def test_a_wrong_field_is_named(field: str, spoil: Callable[[EvaluationSpec], None]) -> None:
    wrong = spec()
    spoil(wrong)
    with pytest.raises(InvalidArgument) as raised:
        check_spec(wrong)
    assert raised.value.violations
    assert all(violation.field.startswith(field) for violation in raised.value.violations)


def test_a_mission_of_ones_own_may_be_called_like_one_of_cogames() -> None:
    for name in ("cogsguard_arena.basic", "assembler_2", "my-mission"):
        wanted = spec()
        wanted.missions[0].CopyFrom(Mission(name=name, file=ARTIFACT, max_steps=10, map_seed=3))
        check_spec(wanted)


def test_every_policy_of_the_catalogue_has_a_name_that_can_be_asked_for() -> None:
    for name, entry in catalog().policies.items():
        if not entry.problem and not any(parameter.required for parameter in entry.parameters):
            wanted = spec()
            policy(name)(wanted)
            check_spec(wanted)


def test_all_that_is_wrong_is_said_at_once() -> None:
    wrong = spec()
    wrong.episodes, wrong.seed, wrong.missions[0].name = 0, -1, "nothing"
    with pytest.raises(InvalidArgument) as raised:
        check_spec(wrong)
    assert {v.field for v in raised.value.violations} == {"spec.episodes", "spec.seed", "spec.missions[0].name"}


def test_the_nearest_right_name_is_offered() -> None:
    wrong = spec()
    wrong.missions[0].name = "cogsguard_arena.basics"
    wrong.missions.add(name="miner_tutorial")
    wrong.policies[0].policy_class.class_path = "startr"
    with pytest.raises(InvalidArgument) as raised:
        check_spec(wrong)
    assert "'cogsguard_arena.basic'" in str(raised.value)
    assert "did you mean 'cogsguard_machina_1.miner_tutorial'?" in str(raised.value)
    assert "'starter'" in str(raised.value)


def test_a_mission_that_cogames_cannot_build_is_no_fault_of_the_request() -> None:
    wrong = spec()
    wrong.missions[0].CopyFrom(Mission(name="training_facility.easy_hearts_training"))
    with pytest.raises(FailedPrecondition, match="does not build"):
        check_spec(wrong)


def test_a_version_is_resolved_by_those_who_ask() -> None:
    wanted = spec()
    wanted.policies[0].CopyFrom(Policy(version="policyPackages/p/versions/1.0.0"))
    with pytest.raises(Unimplemented, match="bundle"):
        check_spec(wanted)


@pytest.mark.parametrize(
    "change",
    [
        changed(policies=[STARTER], team=Team.TEAM_PICKUP, episodes=200_000),
        changed(policies=[STARTER], team=Team.TEAM_PAIRS),
        changed(policies=[STARTER], missions=[ALONE], team=Team.TEAM_PICKUP),
        changed(save_replays=True, episodes=1000),
        changed(fast=True, isolated=True, time_limit_seconds=86_400.0),
        changed(policies=[Policy(bundle=ARTIFACT)]),
    ],
)
def test_what_is_just_possible_is_taken(change: Callable[[EvaluationSpec], None]) -> None:
    wanted = spec()
    change(wanted)
    check_spec(wanted)


def test_a_bundle_is_looked_for_and_stays_as_it_is_for_workers() -> None:
    wanted = spec()
    wanted.policies.add(bundle=ARTIFACT)
    assert convert.artifacts(wanted) == [("spec.policies[1].bundle", ARTIFACT)]
    assert convert.resolved(wanted).policies[1] == wanted.policies[1]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "request_",
    [
        pb.CreateEvaluationRequest(),
        pb.CreateEvaluationRequest(evaluation_id="Upper Case", spec=spec()),
        pb.CreateEvaluationRequest(evaluation_id="x" * 41, spec=spec()),
        pb.CreateEvaluationRequest(request_id="r" * 1_000_000, spec=spec()),
        pb.CreateEvaluationRequest(request_id="r\x00", spec=spec()),
    ],
    ids=["empty", "case", "long", "huge request id", "NUL"],
)
async def test_a_refused_creation_writes_nothing(stack: Stack, request_: pb.CreateEvaluationRequest) -> None:
    with pytest.raises(InvalidArgument):
        await raising(stack.evaluations.CreateEvaluation(request_))
    assert not (await raising(stack.evaluations.ListEvaluations(pb.ListEvaluationsRequest()))).evaluations


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_artifacts_must_be_there(stack: Stack) -> None:
    wanted = spec()
    policy_class = PolicyClass(class_path="my.Policy", code=ARTIFACT)
    weights = Artifact(sha256="cd" * 32, size_bytes=1, owner="training")
    wanted.policies.append(Policy(checkpoint=PolicyCheckpoint(policy_class=policy_class, weights=weights)))
    wanted.missions.add(name="own", file=Artifact(sha256="ef" * 32, size_bytes=1, owner="deployment"))
    with pytest.raises(InvalidArgument) as raised:
        await raising(stack.evaluations.CreateEvaluation(pb.CreateEvaluationRequest(spec=wanted)))
    fields = {violation.field for violation in raised.value.violations}
    assert fields == {
        "spec.policies[1].checkpoint.policy_class.code",
        "spec.policies[1].checkpoint.weights",
        "spec.missions[1].file",
    }


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_names_pages_and_cursors_that_are_none_are_refused(stack: Stack) -> None:
    async def refused(call: Any, kind: type[DafError] = InvalidArgument) -> None:
        with pytest.raises(kind):
            await raising(call)

    stub = stack.evaluations
    await refused(stub.GetEvaluation(pb.GetEvaluationRequest(name="evaluations/nobody")), NotFound)
    await refused(stub.CancelEvaluation(pb.CancelEvaluationRequest(name="evaluations/nobody")), NotFound)
    await refused(stub.DeleteEvaluation(pb.DeleteEvaluationRequest(name="evaluations/nobody")), NotFound)
    for name in ("", "sweeps/a", "evaluations/", "evaluations/../x", "evaluations/" + "a" * 1_000_000, "\x00"):
        await refused(stub.GetEvaluation(pb.GetEvaluationRequest(name=name)))
    await refused(stub.ListEvaluations(pb.ListEvaluationsRequest(page_size=-1)))
    await refused(stub.ListEvaluations(pb.ListEvaluationsRequest(page_token="stale")))
    await raising(stub.ListEvaluations(pb.ListEvaluationsRequest(page_size=10**9)))
    with pytest.raises(Exception, match="cursor"):
        await anext(aiter(stub.WatchEvaluations(pb.WatchEvaluationsRequest(cursor="stale"))))
