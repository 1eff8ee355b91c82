from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from packaging.requirements import Requirement

from daf.config import DAFEvaluationConfig, DAFSweepConfig, DAFTrainingConfig
from daf.convert import (
    evaluation_config,
    evaluation_spec,
    sweep_config,
    sweep_spec,
    training_config,
    training_spec,
)
from daf.missions import OwnMission
from daf.parameters import Parameters
from daf.user_code import UserCode
from daf_common.errors import InvalidArgument, Unimplemented
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.policy_pb2 import Policy, PolicyCheckpoint, PolicyClass
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.scheduler.v1.sweep_pb2 import SweepSpec
from daf_protos.training.v1.catalog_service_pb2 import HyperparameterInfo, MissionInfo
from daf_protos.training.v1.training_job_pb2 import TrainingSpec

NO_WORD_YET = {"successive_halving", "custom", "version"}
"""Search strategies that no service has yet, and documents neither; and versions of packages, for which a client sends
their bundles."""

SPECIAL = {
    "sha256": "ab" * 32,
    "direction": sweep_pb2.DIRECTION_MINIMIZE,
    "logarithmic": False,  # excludes the step, which has a case of its own
    "minimum": 1.0,
    "maximum": 9.0,
    "step": 2.0,
    "min_workers": 1,  # at most as many as there are workers
}
KEYS = {"trainer": "gamma", "arguments": "size", "space": "trainer.gamma"}


class NothingToResolve:
    """Knows the parameters of the messages below; whatever else is asked for is a failure."""

    def parameters(self, policy: str, code: UserCode | Artifact | None) -> Parameters:
        return Parameters([HyperparameterInfo(name="trainer.gamma"), HyperparameterInfo(name="policy.size")])

    def code(self, code: UserCode) -> Artifact:
        raise AssertionError

    def wheels(self, requirements: Sequence[Requirement]) -> bytes | None:
        raise AssertionError

    def requirements(self, archive: bytes) -> Artifact:
        raise AssertionError

    def runner_modules(self) -> frozenset[str]:
        raise AssertionError

    def weights(self, path: Path) -> Artifact:
        raise AssertionError

    def checkpoint(self, name: str) -> PolicyCheckpoint:
        raise AssertionError

    def bundle(self, path: Path) -> Artifact:
        raise AssertionError

    def version(self, name: str) -> Artifact:
        raise AssertionError

    def mission(self, mission: OwnMission) -> Artifact:
        raise AssertionError

    def missions(self) -> Sequence[MissionInfo]:
        raise AssertionError

    def policy_warnings(self, policy: str) -> Sequence[str]:
        return ()


def fill(message: Message, choose: dict[str, str], numbers: Iterator[int]) -> None:
    """Sets every field to a value of its own; of a oneof, the chosen field."""
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof and not oneof.name.startswith("_") and choose[oneof.full_name] != field.name:
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            entry = getattr(message, field.name)[KEYS[field.name]]
            fill(entry, choose, numbers)
        elif field.message_type and field.is_repeated:
            fill(getattr(message, field.name).add(), choose, numbers)
        elif field.message_type:
            inner = getattr(message, field.name)
            inner.SetInParent()
            fill(inner, choose, numbers)
        elif field.is_repeated:
            getattr(message, field.name).append(value_of(field, numbers))
        else:
            setattr(message, field.name, value_of(field, numbers))


def value_of(field: FieldDescriptor, numbers: Iterator[int]) -> Any:
    if field.name in SPECIAL:
        return SPECIAL[field.name]
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return f"name{next(numbers)}"
        case FieldDescriptor.CPPTYPE_BOOL | FieldDescriptor.CPPTYPE_ENUM:
            return 1
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return next(numbers) + 0.5
        case _:
            return next(numbers)


def oneofs(message: type[Message]) -> dict[str, list[str]]:
    """The choices of all oneofs in a kind of message."""
    found: dict[str, list[str]] = {}
    seen, waiting = set(), [message.DESCRIPTOR]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name in seen:
            continue
        seen.add(descriptor.full_name)
        for oneof in descriptor.oneofs:
            if not oneof.name.startswith("_"):
                found[oneof.full_name] = [field.name for field in oneof.fields if field.name not in NO_WORD_YET]
        waiting += [field.message_type for field in descriptor.fields if field.message_type]
    return found


def filled(kind: type[Message]) -> list[Message]:
    """One message for every combination of choices, with every field set."""
    choices = oneofs(kind)
    messages = []
    for combination in itertools.product(*choices.values()):
        message = kind()
        fill(message, dict(zip(choices, combination, strict=True)), itertools.count(1))
        messages.append(message)
    return messages


@pytest.mark.parametrize(
    ("kind", "to_config", "to_spec"),
    [
        (SweepSpec, sweep_config, sweep_spec),
        (TrainingSpec, training_config, training_spec),
        (EvaluationSpec, evaluation_config, evaluation_spec),
    ],
)
def test_every_field_survives_the_way_through_a_yaml_file(
    kind: Any, to_config: Any, to_spec: Any, tmp_path: Path
) -> None:
    messages = filled(kind)
    assert len(messages) >= 4

    for message in messages:
        config = to_config(message)
        config.to_yaml(tmp_path / "document.yaml")
        again = type(config).from_yaml(tmp_path / "document.yaml")

        assert to_spec(again, NothingToResolve()) == message


def test_a_logarithmic_interval_survives() -> None:
    spec = minimal_sweep()
    spec.space["trainer.gamma"].interval.CopyFrom(sweep_pb2.Interval(minimum=1, maximum=9, logarithmic=True))
    spec.search.random.trials = 3

    assert sweep_spec(sweep_config(spec), NothingToResolve()).space == spec.space


def test_two_listed_values_stay_two_values_under_random_search() -> None:
    spec = minimal_sweep()
    spec.search.random.trials = 3
    spec.space["trainer.gamma"].choices.values.add(real=0.1)
    spec.space["trainer.gamma"].choices.values.add(real=0.9)

    assert sweep_spec(sweep_config(spec), NothingToResolve()).space == spec.space


def test_the_untrained_baseline_is_the_policy_itself() -> None:
    config = sweep(baselines=["untrained", "random", {"policy": "random", "arguments": {"size": 1}}])

    spec = sweep_spec(config, NothingToResolve())

    assert spec.baselines[0] == Policy(label="untrained", policy_class=spec.training.policy_class)
    assert [baseline.label for baseline in spec.baselines] == ["untrained", "random", "random-2"]
    assert sweep_config(spec).baselines[0].policy == "untrained"


def test_the_evaluations_steps_are_those_of_missions_that_say_none() -> None:
    config = sweep(missions=["alpha", {"mission": "beta", "max_steps": 7}], evaluation={"max_steps": 50})

    spec = sweep_spec(config, NothingToResolve())

    assert [mission.max_steps for mission in spec.evaluation.missions] == [50, 7]
    assert not spec.held_out.missions
    assert not spec.training.missions[0].HasField("max_steps")


def test_defaults_keep_the_seeds_of_training_search_and_held_out_apart() -> None:
    spec = sweep_spec(sweep(), NothingToResolve())

    assert spec.training.seed == spec.seed == 42
    assert spec.evaluation.seed + spec.evaluation.episodes < spec.held_out.seed
    assert spec.evaluation.episodes == spec.held_out.episodes == 5


def test_one_parameter_under_two_names_is_refused() -> None:
    config = sweep(search_space={"gamma": [1], "trainer.gamma": [2]})

    with pytest.raises(InvalidArgument, match=r"search_space.trainer.gamma: is trainer.gamma, which"):
        sweep_spec(config, NothingToResolve())


def test_numbers_listed_together_have_one_type() -> None:
    spec = sweep_spec(sweep(search_space={"gamma": [1, 0.5]}), NothingToResolve())

    assert [value.real for value in spec.space["trainer.gamma"].choices.values] == [1.0, 0.5]


def test_code_without_the_policys_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("x = 1\n")
    config = sweep(policy="mine.Policy", code=[str(tmp_path / "other.py")])

    with pytest.raises(InvalidArgument, match=r"mine.Policy: the code that comes along has no module mine"):
        sweep_spec(config, NothingToResolve())


def test_a_file_of_weights_is_meant_for_the_policy_that_is_trained(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"weights")

    class Files(NothingToResolve):
        def weights(self, path: Path) -> Artifact:
            return Artifact(sha256="ab" * 32, size_bytes=len(path.read_bytes()))

    config = training(start=str(tmp_path / "w.pt"))
    config.policy_arguments = {"size": 3}

    spec = training_spec(config, Files())

    assert spec.start.weights.size_bytes == 7
    assert spec.start.policy_class == spec.policy_class
    again = training_config(spec)
    assert again.training.start is not None
    assert again.training.start.policy is None
    assert training_spec(again, NothingToResolve()) == spec


def test_a_start_at_a_checkpoint_knows_its_policy() -> None:
    class Jobs(NothingToResolve):
        def checkpoint(self, name: str) -> PolicyCheckpoint:
            return PolicyCheckpoint(policy_class=PolicyClass(class_path="other"), checkpoint=name)

    spec = training_spec(training(start="job/one/checkpoints/best"), Jobs())

    assert spec.start.checkpoint == "trainingJobs/one/checkpoints/best"
    assert spec.start.policy_class.class_path == "other"


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("none.pt", "training.start: cannot read the weights none.pt: No such file"),
        ("job/one", "'job/one' is no checkpoint: write job/NAME/checkpoints/best"),
        ("class=lstm", "there are no weights to start from"),
        ({"version": "policyPackages/a/versions/1"}, "start from a file of weights or from a checkpoint"),
        ({"weights": "a.pt", "arguments": {"size": 1}}, "belong to a policy that is named by its class"),
    ],
)
def test_a_start_without_weights_is_refused(start: Any, message: str) -> None:
    class Files(NothingToResolve):
        def weights(self, path: Path) -> Artifact:
            return Artifact(size_bytes=len(path.read_bytes()))

    with pytest.raises(ValueError, match=re.escape(message)):
        training_spec(training(start=start), Files())


def test_both_names_of_how_many_checkpoints_are_kept_are_accepted() -> None:
    assert training(max_checkpoints_to_keep=3).training == training(max_checkpoints=3).training


def test_a_strategy_without_a_word_says_so() -> None:
    spec = minimal_sweep()
    spec.search.custom.entry_point = "a:B"

    with pytest.raises(Unimplemented, match="custom"):
        sweep_config(spec)


@pytest.mark.parametrize("team", ["mixed", "solo", "pickup", "pairs"])
def test_every_kind_of_team_comes_back(team: str) -> None:
    asked = {"policies": ["random", "noop"], "missions": ["alpha"], "team": team, "time_limit_seconds": 2.5}
    config = DAFEvaluationConfig.model_validate(asked)
    spec = evaluation_spec(config, NothingToResolve())
    assert spec.team == evaluation_pb2.Team.Value(f"TEAM_{team.upper()}")
    assert evaluation_config(spec).model_dump(include={*asked}) == config.model_dump(include={*asked})


def test_an_evaluations_missing_weights_are_named() -> None:
    config = DAFEvaluationConfig.model_validate({"missions": ["alpha"], "policies": ["random", "lstm:none.pt"]})

    class Files(NothingToResolve):
        def weights(self, path: Path) -> Artifact:
            path.read_bytes()
            return Artifact()

    with pytest.raises(InvalidArgument, match=r"policies\[1\]: cannot read the weights none.pt: No such file"):
        evaluation_spec(config, Files())


def sweep(**changes: object) -> DAFSweepConfig:
    fields = {"missions": ["alpha"], "policy": "lstm", "search_space": {"gamma": [0.1, 0.2]}}
    return DAFSweepConfig.model_validate({**fields, **changes})


def training(**settings: object) -> DAFTrainingConfig:
    return DAFTrainingConfig.model_validate({"missions": ["alpha"], "policy": "lstm", "training": settings})


def minimal_sweep() -> SweepSpec:
    spec = sweep_spec(sweep(), NothingToResolve())
    spec.training.policy_class.CopyFrom(PolicyClass(class_path="lstm"))
    del spec.space["trainer.gamma"]
    return spec
