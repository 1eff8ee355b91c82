"""What is wrong with the spec of a training job, and the same spec with nothing left to defaults. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from daf_cogames import catalog
from daf_cogames.params import canonical_name, check_minibatch, check_trainer_parameters
from daf_cogames.suggestions import did_you_mean
from daf_common import names
from daf_common.artifacts import check_artifact
from daf_common.errors import DafError, FailedPrecondition, InvalidArgument, Violation
from daf_common.values import Scalar, from_value, scalars
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.training.v1.training_job_pb2 import TrainingSpec
from daf_training.admission import Capacity, never_fits
from daf_training.checkpoints import DEFAULT_METRIC, kept_checkpoints
from daf_training.profiles import MAX_ENVIRONMENTS, MAX_WORKERS, Profile, Profiles, resized

MAX_SEED = 2**31 - 1
"""NumPy and PuffeRL take no larger one."""
MAX_AGENT_STEPS = 10**14
MAX_MISSIONS = 64
MAX_RESTARTS = 100
MAX_CHECKPOINTS = 1000
MAX_NAME = 200
"""Characters of a metric's name."""

_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_TRAINER = "trainer."


def check_spec(spec: TrainingSpec, profiles: Profiles) -> None:
    """Checks a spec as far as it can be checked without its artifacts.

    Raises:
        InvalidArgument: names everything that is wrong.
        FailedPrecondition: it is in order, but CoGames itself cannot do what it asks for.
    """
    broken: list[Violation] = []
    wrong = [
        *_check_policy(spec.policy_class, "spec.policy_class"),
        *_check_missions(spec, broken),
        *_check_numbers(spec, profiles),
        *_check_trainer(spec.trainer),
        *_check_start(spec),
        *_check_metric(spec.best_metric),
    ]
    if not wrong and not broken:
        wrong = list(_check_minibatch(spec, profiles))
    if wrong:
        raise InvalidArgument.of([*wrong, *broken])
    if broken:
        message = "; ".join(f"{violation.field}: {violation.message}" for violation in broken)
        raise FailedPrecondition(message, violations=broken)


def compute_of(spec: TrainingSpec, profiles: Profiles) -> Profile:
    """The compute that a checked spec asks for."""
    profile = profiles.find(spec.profile)
    assert profile is not None, "the spec was checked"
    return resized(
        profile,
        workers=spec.workers if spec.HasField("workers") else None,
        environments=spec.environments if spec.HasField("environments") else None,
    )


def check_fits(compute: Profile, capacity: Capacity) -> None:
    """Refuses what could not even start if nothing else ran.

    Raises:
        FailedPrecondition: says what there is, and what changes it.
    """
    if beyond := never_fits(compute.needs, capacity):
        workers = "worker" if compute.workers == 1 else "workers"
        raise FailedPrecondition(
            f"{compute.workers} {workers} of profile {compute.name} need {beyond}: use fewer workers (`workers`) or "
            "another `profile`, or let the service have more (DAF_TRAINING_CPUS, DAF_TRAINING_MEMORY_GIB, "
            "DAF_TRAINING_GPUS)",
            reason="DOES_NOT_FIT",
        )


def artifacts_of(spec: TrainingSpec) -> Iterator[tuple[str, Artifact]]:
    """Every artifact that a spec names, by its field."""
    if spec.policy_class.HasField("code"):
        yield "spec.policy_class.code", spec.policy_class.code
    if spec.policy_class.HasField("requirements"):
        yield "spec.policy_class.requirements", spec.policy_class.requirements
    for index, mission in enumerate(spec.missions):
        if mission.HasField("file"):
            yield f"spec.missions[{index}].file", mission.file
    if spec.HasField("start"):
        yield "spec.start.weights", spec.start.weights


def resolve_spec(spec: TrainingSpec, compute: Profile) -> TrainingSpec:
    """The spec that a worker gets: names in full, the numbers of its compute filled in."""
    resolved = TrainingSpec()
    resolved.CopyFrom(spec)
    if not spec.policy_class.HasField("code"):
        resolved.policy_class.class_path = catalog.resolve_policy(spec.policy_class.class_path).name
    for mission in resolved.missions:
        if not mission.HasField("file"):
            mission.name = catalog.resolve_mission(mission.name).name
    resolved.ClearField("trainer")
    for name, value in spec.trainer.items():
        resolved.trainer[canonical_name(_full_name(name)).removeprefix(_TRAINER)].CopyFrom(value)
    resolved.profile = compute.name
    resolved.environments = compute.environments
    resolved.workers = compute.workers
    resolved.max_checkpoints = kept_checkpoints(spec)
    resolved.max_restarts = spec.max_restarts
    resolved.best_metric = spec.best_metric or DEFAULT_METRIC
    return resolved


def _check_policy(policy: PolicyClass, field: str) -> Iterator[Violation]:
    if not policy.class_path:
        yield Violation(f"{field}.class_path", "must not be empty: name a policy that `daf policies` lists, or a class")
        return
    yield from _check_values(policy.arguments, f"{field}.arguments")
    if policy.HasField("requirements"):
        yield from _check_artifact(policy.requirements, f"{field}.requirements")
    if policy.HasField("code"):
        if len(policy.class_path) > 200 or not _CLASS_PATH.fullmatch(policy.class_path):
            yield Violation(f"{field}.class_path", f"{policy.class_path[:80]!r} is not a class path like module.Class")
        yield from _check_artifact(policy.code, f"{field}.code")
        return
    if catalog.find_policy(policy.class_path) is None:
        message = f"{policy.class_path[:80]!r} is no policy of CoGames: send its code along, or use one of them"
        if "." in policy.class_path:
            yield Violation(f"{field}.class_path", message)
            return
    for problem in catalog.check_policy(policy.class_path, scalars(policy.arguments), training=True):
        yield Violation(f"{field}.{problem.field}", problem.message)


def _check_missions(spec: TrainingSpec, broken: list[Violation]) -> Iterator[Violation]:
    if not 1 <= len(spec.missions) <= MAX_MISSIONS:
        yield Violation("spec.missions", f"name 1 to {MAX_MISSIONS} missions, not {len(spec.missions)}")
    for index, mission in enumerate(spec.missions[:MAX_MISSIONS]):
        if mission.HasField("file"):
            yield from _check_artifact(mission.file, f"spec.missions[{index}].file")
        for problem in _mission_problems(mission):
            violation = Violation(f"spec.missions[{index}].{problem.field}", problem.message)
            if problem.broken:
                broken.append(violation)
            else:
                yield violation


def _mission_problems(mission: Mission) -> list[catalog.Problem]:
    changes = (
        mission.variants,
        mission.cogs if mission.HasField("cogs") else None,
        mission.max_steps if mission.HasField("max_steps") else None,
        mission.difficulty or None,
    )
    if mission.HasField("file"):
        problems = catalog.check_own_mission(mission.name, *changes)
    else:
        problems = catalog.check_mission(catalog.resolve_mission(mission.name).name, *changes)
    if mission.HasField("map_seed") and not 0 <= mission.map_seed <= MAX_SEED:
        problems.append(catalog.Problem("map_seed", f"must be between 0 and {MAX_SEED}, not {mission.map_seed}"))
    return problems


def _check_numbers(spec: TrainingSpec, profiles: Profiles) -> Iterator[Violation]:
    bounds = {
        "agent_steps": (1, MAX_AGENT_STEPS),
        "seed": (0, MAX_SEED),
        "environments": (max(1, min(len(spec.missions), MAX_MISSIONS)), MAX_ENVIRONMENTS),
        "workers": (1, MAX_WORKERS),
        "min_workers": (1, MAX_WORKERS),
        "checkpoint_agent_steps": (1, MAX_AGENT_STEPS),
        "max_checkpoints": (1, MAX_CHECKPOINTS),
        "max_restarts": (0, MAX_RESTARTS),
    }
    given = {field.name for field, _ in spec.ListFields()} | {"agent_steps", "seed"}
    for name, (low, high) in bounds.items():
        value = getattr(spec, name)
        if name in given and not low <= value <= high:
            yield Violation(f"spec.{name}", f"must be between {low} and {high}, not {value}")
    profile = profiles.find(spec.profile)
    if profile is None:
        known = did_you_mean(spec.profile, profiles.by_name)
        yield Violation("spec.profile", f"unknown profile {spec.profile[:80]!r}{known}")
    elif not spec.HasField("environments") and len(spec.missions) > profile.environments:
        message = f"must be set to at least {len(spec.missions)}: every mission needs an environment"
        yield Violation("spec.environments", message)
    if profile is not None and spec.HasField("min_workers"):
        workers = spec.workers if spec.HasField("workers") else profile.workers
        if 1 <= workers < spec.min_workers <= MAX_WORKERS:
            message = f"must be at most {workers}, as many as there are workers, not {spec.min_workers}"
            yield Violation("spec.min_workers", message)


def _check_metric(name: str) -> Iterator[Violation]:
    if len(name) > MAX_NAME or not name.isprintable():
        message = f"{name[:80]!r} cannot be the name of a metric: use at most {MAX_NAME} printable characters"
        yield Violation("spec.best_metric", message)


def _check_trainer(trainer: Mapping[str, Value]) -> Iterator[Violation]:
    yield from _check_values(trainer, "spec.trainer", finite=False)
    for problem in check_trainer_parameters(_trainer_values(trainer)):
        yield Violation(f"spec.{problem.name[:100]}", problem.message)


def _check_minibatch(spec: TrainingSpec, profiles: Profiles) -> Iterator[Violation]:
    """Only where the number of agents is known: of a user's own mission, the trainer finds it."""
    mission = spec.missions[0]  # training goes on with missions of as many agents only
    if mission.HasField("file"):
        return
    name = catalog.resolve_mission(mission.name).name
    agents = catalog.agent_count(name, mission.variants, mission.cogs if mission.HasField("cogs") else None)
    environments = compute_of(spec, profiles).environments
    for problem in check_minibatch(_trainer_values(spec.trainer), environments, agents):
        yield Violation(f"spec.{problem.name}", problem.message)


def _check_start(spec: TrainingSpec) -> Iterator[Violation]:
    if not spec.HasField("start"):
        return
    yield from _check_artifact(spec.start.weights, "spec.start.weights")
    if spec.start.checkpoint:
        try:
            names.CHECKPOINT.parse(spec.start.checkpoint, "spec.start.checkpoint")
        except InvalidArgument as error:
            yield from error.violations


def _check_values(values: Mapping[str, Value], field: str, finite: bool = True) -> Iterator[Violation]:
    for name, message in values.items():
        value: Scalar | None = from_value(message)
        if value is None:
            yield Violation(f"{field}.{name[:100]}", "has no value")
        elif finite and isinstance(value, float) and not math.isfinite(value):
            yield Violation(f"{field}.{name[:100]}", f"must be a finite number, not {value}")


def _check_artifact(artifact: Artifact, field: str) -> Iterator[Violation]:
    try:
        check_artifact(artifact, field)
    except DafError as error:
        yield from error.violations


def _trainer_values(trainer: Mapping[str, Value]) -> dict[str, Scalar]:
    return {_full_name(name): value for name, value in scalars(trainer).items()}


def _full_name(name: str) -> str:
    return name if name.startswith(_TRAINER) else f"{_TRAINER}{name}"
