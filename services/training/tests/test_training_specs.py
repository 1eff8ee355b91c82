"""What is refused of a training spec, and what a worker gets of it."""

from __future__ import annotations

from typing import Any

import pytest

from daf_common.errors import FailedPrecondition, InvalidArgument
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import PolicyCheckpoint, PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.training.v1.training_job_pb2 import TrainingSpec
from daf_training.admission import Capacity
from daf_training.profiles import BUILT_IN, Profile, Profiles
from daf_training.specs import artifacts_of, check_fits, check_spec, compute_of, resolve_spec

PROFILES = Profiles.of()
NAN = float("nan")
CODE = Artifact(sha256="a" * 64, size_bytes=3, owner="deployment")


def spec(**changes: Any) -> TrainingSpec:
    values: dict[str, Any] = {
        "policy_class": PolicyClass(class_path="lstm"),
        "missions": [Mission(name="cogsguard_machina_1.basic", cogs=4)],
        "agent_steps": 1000,
    }
    return TrainingSpec(**{**values, **changes})


def mission(**changes: Any) -> dict[str, Any]:
    return {"missions": [Mission(**{"name": "cogsguard_machina_1.basic", "cogs": 4, **changes})]}


def own_mission(**changes: Any) -> dict[str, Any]:
    return {"missions": [Mission(**{"name": "mine", "file": CODE, **changes})]}


def trainer(**values: Value) -> dict[str, Any]:
    return {"trainer": values}


def policy(class_path: str, code: Artifact | None = None, **arguments: Value) -> dict[str, Any]:
    return {"policy_class": PolicyClass(class_path=class_path, code=code, arguments=arguments)}


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"policy_class": None}, "spec.policy_class.class_path", "must not be empty"),
        (policy("lstmm"), "spec.policy_class.class_path", "did you mean 'lstm'"),
        (policy("no.such.Policy"), "spec.policy_class.class_path", "send its code along"),
        (policy("starter"), "spec.policy_class.class_path", "cannot be trained"),
        (policy("lstm", hiden_size=Value(integer=3)), "spec.policy_class.arguments.hiden_size", "no parameter"),
        (policy("mine.Mine", CODE, a=Value()), "spec.policy_class.arguments.a", "has no value"),
        (policy("mine.Mine", CODE, a=Value(real=NAN)), "spec.policy_class.arguments.a", "finite"),
        (policy("../mine", CODE), "spec.policy_class.class_path", "not a class path"),
        (policy("mine.Mine", Artifact(sha256="A" * 64)), "spec.policy_class.code.sha256", "lower-case"),
        (
            {"policy_class": PolicyClass(class_path="lstm", requirements=Artifact(sha256="b"))},
            "spec.policy_class.requirements.sha256",
            "hexadecimal",
        ),
        (policy("x" * 1_000_000), "spec.policy_class.class_path", "unknown policy"),
        (policy("ls\x00tm"), "spec.policy_class.class_path", "unknown policy"),
        ({"missions": []}, "spec.missions", "name 1 to"),
        ({"missions": [Mission(name="cogsguard_machina_1.basic", cogs=4)] * 65}, "spec.missions", "not 65"),
        (
            mission(name="cogsguard_machina_1.basik"),
            "spec.missions[0].name",
            "did you mean 'cogsguard_machina_1.basic'",
        ),
        (mission(name="Cogsguard_machina_1.basic"), "spec.missions[0].name", "did you mean"),
        (mission(name="cogsguard_machina_1.basic "), "spec.missions[0].name", "did you mean"),
        (mission(name="../../mission.yaml"), "spec.missions[0].name", "no name but a path or a pattern"),
        (mission(name="some/where"), "spec.missions[0].name", "no name but a path or a pattern"),
        (mission(name="evil.py"), "spec.missions[0].name", "send its file along"),
        (mission(name="evil.PY "), "spec.missions[0].name", "send its file along"),
        (mission(name="mine.yml"), "spec.missions[0].name", "send its file along"),
        (mission(name="*"), "spec.missions[0].name", "no name but a path or a pattern"),
        (own_mission(name="evil.py"), "spec.missions[0].name", "no name but a path or a pattern"),
        (own_mission(name="a/b"), "spec.missions[0].name", "no name but a path or a pattern"),
        (own_mission(name="mine *"), "spec.missions[0].name", "no name but a path or a pattern"),
        (own_mission(name="my mission"), "spec.missions[0].name", "cannot name a mission"),
        (own_mission(name=""), "spec.missions[0].name", "cannot name a mission"),
        (own_mission(name="m" * 1_000_000), "spec.missions[0].name", "cannot name a mission"),
        (own_mission(file=Artifact(sha256="A" * 64)), "spec.missions[0].file.sha256", "lower-case"),
        (own_mission(cogs=4), "spec.missions[0].cogs", "says this itself"),
        (own_mission(max_steps=0), "spec.missions[0].max_steps", "at least 1"),
        (own_mission(variants=["dark_side"]), "spec.missions[0].variants[0]", "says this itself"),
        (own_mission(difficulty="easy"), "spec.missions[0].difficulty", "says this itself"),
        (own_mission(map_seed=-1), "spec.missions[0].map_seed", "must be between"),
        (mission(name="m" * 1_000_000), "spec.missions[0].name", "unknown mission"),
        (mission(cogs=0), "spec.missions[0].cogs", "not 0"),
        (mission(max_steps=0), "spec.missions[0].max_steps", "at least 1"),
        (mission(max_steps=-3), "spec.missions[0].max_steps", "at least 1"),
        (mission(variants=["nope"]), "spec.missions[0].variants[0]", "unknown variant"),
        (mission(difficulty="nope"), "spec.missions[0].difficulty", "unknown difficulty"),
        (mission(map_seed=-1), "spec.missions[0].map_seed", "must be between"),
        ({"agent_steps": 0}, "spec.agent_steps", "not 0"),
        ({"agent_steps": -5}, "spec.agent_steps", "not -5"),
        ({"seed": -1}, "spec.seed", "not -1"),
        ({"seed": 2**31}, "spec.seed", "not 2147483648"),
        ({"environments": 0}, "spec.environments", "not 0"),
        ({"environments": 10**6}, "spec.environments", "not 1000000"),
        ({"workers": 0}, "spec.workers", "not 0"),
        ({"min_workers": 0}, "spec.min_workers", "must be between 1 and 1024, not 0"),
        ({"workers": 2, "min_workers": 3}, "spec.min_workers", "must be at most 2, as many as there are workers"),
        ({"min_workers": 2}, "spec.min_workers", "must be at most 1"),
        ({"checkpoint_agent_steps": 0}, "spec.checkpoint_agent_steps", "not 0"),
        ({"max_checkpoints": 0}, "spec.max_checkpoints", "not 0"),
        ({"best_metric": "m" * 201}, "spec.best_metric", "at most 200"),
        ({"best_metric": "a\x00b"}, "spec.best_metric", "printable"),
        ({"max_restarts": -1}, "spec.max_restarts", "not -1"),
        ({"profile": "gpu-9000"}, "spec.profile", "did you mean 'gpu-1'"),
        (trainer(lerning_rate=Value(real=0.1)), "spec.trainer.lerning_rate", "did you mean 'trainer.learning_rate'"),
        (trainer(learning_rate=Value()), "spec.trainer.learning_rate", "has no value"),
        (trainer(learning_rate=Value(real=NAN)), "spec.trainer.learning_rate", "not nan"),
        (trainer(learning_rate=Value(text="1e-3")), "spec.trainer.learning_rate", "must be a number"),
        (trainer(learning_rate=Value(real=-1)), "spec.trainer.learning_rate", "greater than 0"),
        (trainer(lr=Value(real=0.1), learning_rate=Value(real=0.1)), "spec.trainer.", "sets already"),
        ({"start": PolicyCheckpoint(weights=Artifact(sha256="x"))}, "spec.start.weights.sha256", "hexadecimal"),
        ({"start": PolicyCheckpoint(weights=CODE, checkpoint="a/b")}, "spec.start.checkpoint", "not a name like"),
    ],
)
def test_bad_input_is_refused_by_field(changes: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_spec(spec(**changes), PROFILES)
    assert [v for v in raised.value.violations if v.field.startswith(field) and message in v.message], raised.value
    assert all(len(violation.message) < 3000 for violation in raised.value.violations)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_spec(TrainingSpec(seed=-1, trainer={"nope": Value(real=1)}), PROFILES)
    fields = {violation.field for violation in raised.value.violations}
    assert fields >= {
        "spec.policy_class.class_path",
        "spec.missions",
        "spec.agent_steps",
        "spec.seed",
        "spec.trainer.nope",
    }


def test_a_mission_that_cogames_cannot_build_is_a_precondition() -> None:
    with pytest.raises(FailedPrecondition, match="does not build"):
        check_spec(spec(missions=[Mission(name="training_facility.easy_hearts_training", cogs=4)]), PROFILES)


def test_a_resolved_spec_names_things_in_full_and_keeps_what_was_asked_for() -> None:
    asked = spec(environments=3, trainer={"lr": Value(real=0.1), "gamma": Value(real=0.9)})
    resolved = resolve_spec(asked, compute_of(asked, PROFILES))

    assert resolved.policy_class.class_path.endswith("LSTMPolicy")
    assert resolved.trainer == {"learning_rate": Value(real=0.1), "gamma": Value(real=0.9)}
    assert (resolved.environments, resolved.workers, resolved.max_checkpoints) == (3, 1, 5)
    assert (resolved.missions, resolved.agent_steps) == (asked.missions, asked.agent_steps)


def test_a_user_may_send_a_class_of_any_name_along() -> None:
    mine = spec(**policy("mine.deep.Mine", CODE, whatever=Value(text="x")), start=PolicyCheckpoint(weights=CODE))
    check_spec(mine, PROFILES)
    assert [field for field, _ in artifacts_of(mine)] == ["spec.policy_class.code", "spec.start.weights"]


@pytest.mark.parametrize(
    ("changes", "minibatch"),
    [
        ({}, 384),  # 16 environments x 4 agents x 64
        ({"environments": 3}, 512),
        (mission(cogs=3), 2048),
    ],
)
def test_a_minibatch_that_does_not_divide_the_batch_is_refused_with_one_that_does(
    changes: dict[str, Any], minibatch: int
) -> None:
    wrong = spec(**changes, **trainer(minibatch_size=Value(integer=minibatch)))
    with pytest.raises(InvalidArgument, match=r"must divide the batch of .* for example") as raised:
        check_spec(wrong, PROFILES)
    assert [violation.field for violation in raised.value.violations] == ["spec.trainer.minibatch_size"]


def test_a_minibatch_on_a_users_own_mission_is_the_trainers_to_judge() -> None:
    check_spec(spec(**own_mission(), **trainer(minibatch_size=Value(integer=384))), PROFILES)


def test_a_users_own_mission_needs_no_name_that_is_known() -> None:
    mine = spec(**own_mission(name="My-mission_2.0", max_steps=3))
    mine.policy_class.requirements.CopyFrom(CODE)
    check_spec(mine, PROFILES)
    assert [field for field, _ in artifacts_of(mine)] == ["spec.policy_class.requirements", "spec.missions[0].file"]
    assert resolve_spec(mine, compute_of(mine, PROFILES)).missions[0].name == "My-mission_2.0"


def test_a_job_asks_for_its_profile_unless_it_says_otherwise() -> None:
    assert [compute_of(spec(profile=profile.name), PROFILES) for profile in BUILT_IN] == list(BUILT_IN)
    own = compute_of(spec(workers=3, environments=4), PROFILES)
    assert own == Profile("cpu-small", workers=3, environments=4, cpus=1, memory_gib=2, gpus=0)


@pytest.mark.parametrize(("workers", "most", "shared_by"), [(16, 8, 8), (4, 8, 4), (6, 4, 3), (7, 4, 1), (1, 1, 1)])
def test_every_machine_gets_as_many_workers(workers: int, most: int, shared_by: int) -> None:
    profile = Profile("big", workers, environments=8, cpus=2, memory_gib=1, gpus=0, workers_per_machine=most)
    assert profile.shared_by == shared_by


def test_an_installation_has_its_own_profiles() -> None:
    big = Profile("big", workers=4, environments=8, cpus=2, memory_gib=1, gpus=0)
    small = Profile("cpu-small", workers=2, environments=8, cpus=1, memory_gib=1, gpus=0)
    profiles = Profiles.of([big, small], default="big")

    assert (profiles.find(""), profiles.find("cpu-small")) == (big, small)
    assert profiles.find("gpu-1") is not None
    with pytest.raises(ValueError, match="no profile 'huge'"):
        Profiles.of([big], default="huge")


@pytest.mark.parametrize(
    "change", [{"workers": 0}, {"cpus": 0}, {"gpus": -1}, {"memory_gib": float("nan")}, {"name": "A b"}]
)
def test_a_profile_that_no_job_could_use_is_refused(change: dict[str, Any]) -> None:
    values = {"name": "big", "workers": 4, "environments": 8, "cpus": 2, "memory_gib": 1, "gpus": 0}
    with pytest.raises(ValueError, match=r"must be|cannot be"):
        Profile(**{**values, **change})


def test_what_can_never_start_is_refused_with_what_there_is_and_what_changes_it() -> None:
    compute = compute_of(spec(workers=4), PROFILES)
    check_fits(compute, Capacity(4, 8, 0))
    check_fits(compute, Capacity(None, None, None))
    with pytest.raises(FailedPrecondition) as raised:
        check_fits(compute, Capacity(2, 4.5, 0))
    message = raised.value.message
    assert "4 CPUs, but there are only 2, 8 GiB of memory, but there are only 4.5" in message
    assert all(word in message for word in ("`workers`", "`profile`", "DAF_TRAINING_CPUS", "4 workers", "cpu-small"))
