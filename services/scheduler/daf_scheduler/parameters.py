"""Where a parameter lands: in the trainer, in the policy or in the missions that are trained on. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from daf_cogames import catalog, params
from daf_cogames.arguments import Parameter
from daf_cogames.parameter_table import ENVIRONMENT_PARAMETERS, TRAINER_PARAMETERS
from daf_cogames.suggestions import did_you_mean
from daf_common.errors import Violation
from daf_common.values import Scalar, scalars, to_value
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.training.v1.training_job_pb2 import TrainingSpec
from daf_scheduler.space import Choices, Domain, Parameters, Space

# A minibatch is made of whole segments, so the two are only right or wrong together.
_PARTNERS = {
    "trainer.minibatch_size": "trainer.bptt_horizon",
    "trainer.bptt_horizon": "trainer.minibatch_size",
}


def apply(base: TrainingSpec, parameters: Parameters) -> TrainingSpec:
    """The training run of a trial: the sweep's own, with the trial's parameters in place of its values."""
    spec = TrainingSpec()
    spec.CopyFrom(base)
    for name, value in parameters.items():
        place, _, key = name.partition(".")
        match place:
            case "trainer":
                for other in [other for other in spec.trainer if params.canonical_name(f"trainer.{other}") == name]:
                    del spec.trainer[other]  # the base may call it by another of its names
                spec.trainer[key].CopyFrom(to_value(value))
            case "policy":
                spec.policy_class.arguments[key].CopyFrom(to_value(value))
            case _:
                for mission in spec.missions:
                    _apply_to_mission(mission, key, value)
    return spec


def _apply_to_mission(mission: Mission, key: str, value: Scalar) -> None:
    match key:
        case "variant":
            mission.variants.append(str(value))
        case "difficulty":
            mission.difficulty = str(value)
        case "cogs":
            mission.cogs = int(value)
        case "max_steps":
            mission.max_steps = int(value)


def policy_parameters(training: TrainingSpec) -> tuple[Parameter, ...]:
    """The constructor's parameters of the policy class; none for a user's own, which only the runner knows."""
    policy_class = training.policy_class
    entry = None if policy_class.HasField("code") else catalog.find_policy(policy_class.class_path)
    return entry.parameters if entry else ()


def check_trainer(field: str, training: TrainingSpec) -> Iterator[Violation]:
    """What is wrong with the trainer's values that are the same for all trials."""
    for problem in params.check_trainer_parameters(_trainer(training)):
        yield Violation(f"{field}[{problem.name.removeprefix('trainer.')}]", problem.message)


def check_space(field: str, space: Space, training: TrainingSpec) -> Iterator[Violation]:
    """What is wrong with the names and values of a space, whose domains are sound in themselves."""
    for name, domain in space.items():
        where = f"{field}[{name[:100]}]"
        place, dot, key = name.partition(".")
        if not dot or place not in ("trainer", "policy", "env"):
            yield Violation(where, _misplaced(name, training))
        elif place == "policy":
            yield from _check_policy_argument(where, key, domain, training)
        elif params.canonical_name(name) != name:
            yield Violation(where, f"call it {params.canonical_name(name)!r}")
        elif place == "env" and key != "max_steps" and any(mission.HasField("file") for mission in training.missions):
            yield Violation(where, "a mission of your own says this itself, so a sweep cannot change it")
        else:
            yield from _check_values(where, name, domain, space, training)


def _misplaced(name: str, training: TrainingSpec) -> str:
    arguments = [parameter.name for parameter in policy_parameters(training)]
    full = params.canonical_name(name, arguments)
    if full != name:
        return f"say where it belongs: {full!r}"
    known = [parameter.name for parameter in (*TRAINER_PARAMETERS, *ENVIRONMENT_PARAMETERS)]
    known += [f"policy.{argument}" for argument in arguments]
    near = did_you_mean(name, known)
    listed = "" if near.startswith("; known") else f" (known: {', '.join(known)})"
    return f"unknown parameter {name[:100]!r}{near}{listed}"


def _check_values(where: str, name: str, domain: Domain, space: Space, training: TrainingSpec) -> Iterator[Violation]:
    values = domain.values if isinstance(domain, Choices) else _ends(domain)
    check = params.check_environment_parameters
    fixed: dict[str, Scalar] = {}
    if name.startswith("trainer."):
        check = params.check_trainer_parameters
        fixed = {full: value for full, value in _canonical(_trainer(training)).items() if full not in space}
    for value in values:
        given = {**fixed, name: value}
        if (partner := _PARTNERS.get(name)) in space and partner is not None:
            given[partner] = value  # whether they fit is for each trial to find out
        for problem in check(given):
            if problem.name != _PARTNERS.get(name) or problem.name in fixed:
                yield Violation(where, problem.message)
                return  # an unknown name is unknown with every value


def _ends(domain: Domain) -> tuple[Scalar, ...]:
    """The smallest and the largest value of an interval, as trials get them."""
    return tuple(dict.fromkeys((domain.draw(0.0), domain.draw(1.0 - 2**-53))))


def _check_policy_argument(where: str, key: str, domain: Domain, training: TrainingSpec) -> Iterator[Violation]:
    if not key.isidentifier() or len(key) > 100:
        yield Violation(where, "is not the name of a constructor's argument")
        return
    entry = catalog.find_policy(training.policy_class.class_path)
    if entry is None or training.policy_class.HasField("code"):
        return  # a user's own class: the runner reads its constructor
    fixed = scalars(training.policy_class.arguments)
    for value in domain.values if isinstance(domain, Choices) else _ends(domain):
        for problem in catalog.check_policy(entry.name, {**fixed, key: value}, training=True):
            if problem.field == f"arguments.{key}":
                yield Violation(where, problem.message)
                return


def _trainer(training: TrainingSpec) -> dict[str, Scalar]:
    return {f"trainer.{name}": value for name, value in scalars(training.trainer).items()}


def _canonical(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {params.canonical_name(name): value for name, value in values.items()}
