"""Which sweeps are accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from daf_common.errors import FailedPrecondition, InvalidArgument
from daf_common.values import to_value
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.scheduler.v1 import sweep_pb2
from daf_scheduler.validation import check_spec
from daf_training.profiles import MAX_WORKERS

S = sweep_pb2


def space(name: str, **domain: Any) -> Callable[[S.SweepSpec], None]:
    def change(spec: S.SweepSpec) -> None:
        if "values" in domain:
            spec.space[name].choices.values.extend(map(to_value, domain["values"]))
        else:
            spec.space[name].interval.CopyFrom(S.Interval(**domain))

    return change


def set_field(path: str, value: Any) -> Callable[[S.SweepSpec], None]:
    def change(spec: S.SweepSpec) -> None:
        *parents, last = path.split(".")
        message: Any = spec
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, last, value)

    return change


def trained_with(**fields: int) -> Callable[[S.SweepSpec], None]:
    def change(spec: S.SweepSpec) -> None:
        for name, value in fields.items():
            setattr(spec.training, name, value)

    return change


def large_grid(spec: S.SweepSpec) -> None:
    for name in ("gamma", "gae_lambda", "ent_coef"):
        spec.space[f"trainer.{name}"].interval.CopyFrom(S.Interval(minimum=0, maximum=1, step=0.01))


BAD: dict[str, tuple[Callable[[S.SweepSpec], Any], str, str]] = {
    "nothing": (lambda s: s.Clear(), "spec.training.missions", "at least one mission"),
    "empty space": (lambda s: s.ClearField("space"), "spec.space", "at least one parameter"),
    "no strategy": (lambda s: s.ClearField("search"), "spec.search", "grid, random or bayesian"),
    "min over max": (space("trainer.gamma", minimum=0.9, maximum=0.5), "spec.space[trainer.gamma]", "greater than"),
    "log from zero": (
        space("trainer.ent_coef", minimum=0, maximum=0.1, logarithmic=True),
        "spec.space[trainer.ent_coef].minimum",
        "above 0",
    ),
    "infinite interval": (
        space("trainer.gamma", minimum=0.5, maximum=float("inf")),
        "spec.space[trainer.gamma]",
        "finite",
    ),
    "NaN": (space("trainer.gamma", values=[float("nan")]), "spec.space[trainer.gamma].choices[0]", "finite"),
    "duplicates": (space("trainer.gamma", values=[0.9, 0.95, 0.9]), "spec.space[trainer.gamma]", "listed twice"),
    "mixed types": (space("trainer.gamma", values=[0.9, "high"]), "spec.space[trainer.gamma]", "mix numbers and texts"),
    "no values": (space("trainer.gamma", values=[]), "spec.space[trainer.gamma]", "list"),
    "no kind": (lambda s: s.space["trainer.gamma"].Clear(), "spec.space[trainer.gamma]", "list choices"),
    "value without kind": (
        lambda s: s.space["trainer.gamma"].choices.values.append(Value()),
        "spec.space[trainer.gamma].choices[0]",
        "no value",
    ),
    "grid of an interval": (space("trainer.gamma", minimum=0.5, maximum=1), "spec.space[trainer.gamma]", "step"),
    "grid over a million": (large_grid, "spec.space", "1000000"),
    "unknown name": (
        space("trainer.learning_rat", values=[0.1]),
        "spec.space[trainer.learning_rat]",
        "did you mean 'trainer.learning_rate'",
    ),
    "unknown name lists the known": (space("trainer.zzz", values=[1]), "spec.space[trainer.zzz]", "trainer.gae_lambda"),
    "no place": (space("gamma", values=[0.9]), "spec.space[gamma]", "trainer.gamma"),
    "no place and unknown": (space("zzz", values=[1]), "spec.space[zzz]", "trainer.gae_lambda"),
    "other name": (space("trainer.lr", values=[0.1]), "spec.space[trainer.lr]", "'trainer.learning_rate'"),
    "value out of bounds": (space("trainer.gamma", values=[0.9, 1.5]), "spec.space[trainer.gamma]", "at most 1"),
    "interval out of bounds": (
        space("trainer.gamma", minimum=0.5, maximum=2, step=0.5),
        "spec.space[trainer.gamma]",
        "at most 1",
    ),
    "real for a whole number": (
        space("trainer.update_epochs", minimum=1, maximum=2, step=0.5),
        "spec.space[trainer.update_epochs]",
        "whole",
    ),
    "fixed unknown name": (
        lambda s: s.training.trainer["gama"].CopyFrom(to_value(0.9)),
        "spec.training.trainer[gama]",
        "trainer.gamma",
    ),
    "argument that the class hard-codes": (
        space("policy.hidden_size", values=[32]),
        "spec.space[policy.hidden_size]",
        "hidden_size",
    ),
    "no argument's name": (space("policy.a b", values=[32]), "spec.space[policy.a b]", "argument"),
    "NUL": (
        lambda s: s.space["env.variant"].choices.values.append(to_value("a\0b")),
        "spec.space[env.variant].choices[0]",
        "NUL",
    ),
    "unknown mission": (
        lambda s: s.training.missions.append(Mission(name="nowhere")),
        "spec.training.missions[1].name",
        "unknown mission",
    ),
    "mission that is a path": (
        lambda s: s.evaluation.missions.append(Mission(name="../x.py")),
        "spec.evaluation.missions[0].name",
        "no name but a path or a pattern",
    ),
    "unknown policy": (
        set_field("training.policy_class.class_path", "lstmm"),
        "spec.training.policy_class.class_path",
        "lstm",
    ),
    "no agent steps": (set_field("training.agent_steps", 0), "spec.training.agent_steps", "at least 1"),
    "no episodes": (set_field("evaluation.episodes", 0), "spec.evaluation.episodes", "1 to"),
    "negative episodes": (set_field("held_out.episodes", -5), "spec.held_out.episodes", "1 to"),
    "seeds over 2^32": (set_field("held_out.seed", 2**32 - 5), "spec.held_out.seed", "2^32"),
    "negative seed": (set_field("evaluation.seed", -1), "spec.evaluation.seed", "2^32"),
    "overlapping seeds": (set_field("held_out.seed", 1019), "spec.held_out.seed", "1000 to 1019"),
    "training seed among the held-out": (set_field("training.seed", 5029), "spec.held_out.seed", "training"),
    "training seed among the episodes": (set_field("training.seed", 1000), "spec.evaluation.seed", "training"),
    "maps of an environment among the episodes": (
        trained_with(seed=990, environments=16),
        "spec.evaluation.seed",
        "map of seed 1000",
    ),
    "maps of a worker among the episodes": (
        trained_with(seed=2**31 - 999_003, workers=2),
        "spec.evaluation.seed",
        "map of seed 1000",
    ),
    "maps of a restart among the episodes": (
        trained_with(seed=2**31 - 67_107_879, max_restarts=1),
        "spec.evaluation.seed",
        "map of seed 1000",
    ),
    "maps of an attempt with fewer workers among the episodes": (
        trained_with(seed=2**31 - 67_107_879, workers=2, min_workers=1),
        "spec.evaluation.seed",
        "map of seed 1000",
    ),
    "maps of a second worker, which the profile has for sure, among the episodes": (
        trained_with(seed=2**31 - 999_003, min_workers=2),
        "spec.evaluation.seed",
        "map of seed 1000",
    ),
    "no worker": (trained_with(workers=0), "spec.training.workers", f"must be between 1 and {MAX_WORKERS}, not 0"),
    "too many workers": (trained_with(workers=MAX_WORKERS + 1), "spec.training.workers", f"and {MAX_WORKERS}"),
    "no worker would do": (trained_with(min_workers=0), "spec.training.min_workers", "must be between 1 and"),
    "more workers needed than there may be": (
        trained_with(min_workers=MAX_WORKERS + 1),
        "spec.training.min_workers",
        f"and {MAX_WORKERS}",
    ),
    "more workers needed than there are": (
        trained_with(workers=2, min_workers=3),
        "spec.training.min_workers",
        "must be at most 2, as many as there are workers, not 3",
    ),
    "no evaluation": (lambda s: s.ClearField("evaluation"), "spec.evaluation", "episodes"),
    "baselines without episodes": (lambda s: s.ClearField("held_out"), "spec.held_out", "baselines"),
    "no objective": (set_field("objective.metric", ""), "spec.objective.metric", "reward"),
    "unknown objective": (set_field("objective.metric", "rewards"), "spec.objective.metric", "did you mean 'reward'"),
    "NUL in the objective": (set_field("objective.metric", "a\0"), "spec.objective.metric", "reward"),
    "unknown direction": (set_field("objective.direction", 9), "spec.objective.direction", "9"),
    "negative slots": (set_field("max_parallel_trials", -1), "spec.max_parallel_trials", "0 to"),
    "negative failures": (set_field("max_failed_trials", -1), "spec.max_failed_trials", "negative"),
    "random without trials": (lambda s: s.search.random.SetInParent(), "spec.search.random.trials", "1 to"),
    "too many baselines": (lambda s: s.baselines.extend([s.baselines[0]] * 15), "spec.baselines", "more than 15"),
    "baseline without source": (lambda s: s.baselines.append(Policy()), "spec.baselines[1]", "where"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_sweep_is_refused_by_the_field(case: str, sweep_spec: S.SweepSpec) -> None:
    change, field, message = BAD[case]
    change(sweep_spec)

    with pytest.raises(InvalidArgument) as caught:
        check_spec(sweep_spec)

    said = {violation.field: violation.message for violation in caught.value.violations}
    assert field in said, said
    assert message in said[field]


def test_all_that_is_wrong_is_said_at_once(sweep_spec: S.SweepSpec) -> None:
    sweep_spec.training.agent_steps = 0
    sweep_spec.evaluation.episodes = 0
    sweep_spec.space["trainer.zzz"].choices.values.append(to_value(1))
    with pytest.raises(InvalidArgument) as caught:
        check_spec(sweep_spec)
    assert len(caught.value.violations) == 3


def test_a_good_sweep_passes(sweep_spec: S.SweepSpec) -> None:
    check_spec(sweep_spec)
    for workers in ({"min_workers": 2}, {"workers": 2, "min_workers": 2}, {"workers": MAX_WORKERS}):
        trained_with(**workers)(sweep_spec)
        check_spec(sweep_spec)


def test_a_class_that_is_not_of_cogames_comes_with_its_code(sweep_spec: S.SweepSpec) -> None:
    sweep_spec.training.policy_class.class_path = "my_module.MyPolicy"
    with pytest.raises(InvalidArgument, match="send its code along"):
        check_spec(sweep_spec)


def test_what_cogames_itself_cannot_do_is_said_before_anything_is_trained(sweep_spec: S.SweepSpec) -> None:
    sweep_spec.training.missions[0].name = "training_facility.easy_hearts_training"
    with pytest.raises(FailedPrecondition, match="does not build"):
        check_spec(sweep_spec)


def test_an_argument_that_the_class_needs_may_come_from_the_search(sweep_spec: S.SweepSpec) -> None:
    sweep_spec.training.policy_class.CopyFrom(PolicyClass(class_path="puffer"))
    sweep_spec.space["policy.hidden_size"].choices.values.extend([to_value(32), to_value(64)])
    check_spec(sweep_spec)


def test_a_users_own_class_takes_any_argument(sweep_spec: S.SweepSpec) -> None:
    code = Artifact(sha256="0" * 64, size_bytes=1, owner="deployment")
    sweep_spec.training.policy_class.CopyFrom(PolicyClass(class_path="my.Policy", code=code))
    sweep_spec.space["policy.whatever"].choices.values.extend([to_value(32)])
    check_spec(sweep_spec)


def test_requirements_that_are_no_artifact_are_refused(sweep_spec: S.SweepSpec) -> None:
    code = Artifact(sha256="0" * 64, size_bytes=1, owner="deployment")
    wheels = Artifact(sha256="../wheels", owner="deployment")
    sweep_spec.training.policy_class.CopyFrom(PolicyClass(class_path="my.Policy", code=code, requirements=wheels))
    with pytest.raises(InvalidArgument, match=r"policy_class\.requirements\.sha256"):
        check_spec(sweep_spec)


def test_a_minibatch_and_a_horizon_that_are_both_searched_are_judged_trial_by_trial(sweep_spec: S.SweepSpec) -> None:
    sweep_spec.space["trainer.minibatch_size"].choices.values.extend(map(to_value, (96, 256)))
    sweep_spec.space["trainer.bptt_horizon"].choices.values.extend(map(to_value, (32, 64)))
    check_spec(sweep_spec)
    del sweep_spec.space["trainer.bptt_horizon"]
    with pytest.raises(InvalidArgument, match="multiple"):  # of the default horizon of 64
        check_spec(sweep_spec)


OWN_FILE = Artifact(sha256="ab" * 32, size_bytes=1, owner="deployment")


def test_missions_of_ones_own_are_trained_and_scored_on(sweep_spec: S.SweepSpec) -> None:
    sweep_spec.training.missions.add(name="mine", file=OWN_FILE)
    sweep_spec.evaluation.missions.add(name="mine", file=OWN_FILE, max_steps=20)
    check_spec(sweep_spec)


@pytest.mark.parametrize(
    ("mission", "field"),
    [
        (Mission(name="mine.py", file=OWN_FILE), "name"),
        (Mission(name="mine", file=OWN_FILE, cogs=4), "cogs"),
        (Mission(name="mine", file=Artifact(sha256="../x", owner="deployment")), r"file\.sha256"),
    ],
)
def test_a_mission_of_ones_own_that_cannot_be_is_refused(sweep_spec: S.SweepSpec, mission: Mission, field: str) -> None:
    sweep_spec.evaluation.missions.append(mission)
    with pytest.raises(InvalidArgument, match=rf"evaluation\.missions\[\d\]\.{field}"):
        check_spec(sweep_spec)


@pytest.mark.parametrize("name", ["variant", "cogs", "difficulty"])
def test_a_search_cannot_change_what_a_mission_of_ones_own_says_itself(sweep_spec: S.SweepSpec, name: str) -> None:
    sweep_spec.training.missions.add(name="mine", file=OWN_FILE)
    values = [to_value(4)] if name == "cogs" else [to_value("easy")]
    sweep_spec.space[f"env.{name}"].choices.values.extend(values)
    with pytest.raises(InvalidArgument, match="says this itself, so a sweep cannot change it"):
        check_spec(sweep_spec)
