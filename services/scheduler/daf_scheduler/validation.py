"""What a sweep must be to be accepted: everything that is wrong is found at once, before anything starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from daf_cogames import catalog
from daf_cogames.seating import SEED_LIMIT
from daf_common import ids
from daf_common.artifacts import check_artifact
from daf_common.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unimplemented, Violation
from daf_common.map_seeds import MAX_TRAINING_SEED, overlap, training_maps
from daf_common.values import scalars
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.training.v1.training_job_pb2 import TrainingSpec
from daf_scheduler import parameters
from daf_scheduler.space import MAX_TRIALS, Parameters, Space, check_domain, check_grid, from_message

MAX_SPEC_BYTES = 256 << 10
MAX_PARALLEL_TRIALS = 1000
MAX_SWEEP_ID = 28
"""Children are called `{sweep}-t{trial}-r{rung}`, and trials are numbered up to a million."""
MAX_EPISODES = 100_000
MAX_WORKERS = 1024
"""Of a training run: the training service takes no more."""
_MOST_RANKS = 64
"""And attempts, of which the maps are looked at."""
MAX_BASELINES = 15
"""With the best trial, as many policies as one comparison holds."""


class _Broken(Violation):
    """Something that is in order, but that cogames itself cannot do."""


def check_spec(spec: sweep_pb2.SweepSpec) -> None:
    """Checks a sweep.

    Raises:
        InvalidArgument: it cannot be run; names every wrong field.
        FailedPrecondition: it is in order, but cogames cannot do what it asks for.
        ResourceExhausted: it is too large to be stored.
        Unimplemented: it asks for what is not built yet.
    """
    size = spec.ByteSize()
    if size > MAX_SPEC_BYTES:
        raise ResourceExhausted(f"the spec has {size} bytes, more than the {MAX_SPEC_BYTES} allowed")
    found = list(_check(spec))
    wrong = [violation for violation in found if not isinstance(violation, _Broken)]
    if wrong:
        raise InvalidArgument.of(wrong)
    if found:
        message = "; ".join(f"{violation.field}: {violation.message}" for violation in found)
        raise FailedPrecondition(message, reason="BROKEN_UPSTREAM", violations=found)
    if any(policy.WhichOneof("source") in ("bundle", "version") for policy in spec.baselines):
        raise Unimplemented("a bundle or a policy version as a baseline is not built yet: use a class or a checkpoint")


def check_id(id: str) -> None:
    """Checks the id that a user chose for a sweep.

    Raises:
        InvalidArgument: names of trials, jobs and evaluations cannot be made of it.
    """
    if len(id) > MAX_SWEEP_ID or not ids.is_valid(id):
        message = f"use at most {MAX_SWEEP_ID} of a-z, 0-9 and -, starting with a letter and not ending with -"
        raise InvalidArgument.field("sweep_id", message)


def _check(spec: sweep_pb2.SweepSpec) -> Iterator[Violation]:
    yield from _check_training("spec.training", spec)
    yield from _check_search(spec)
    yield from _check_objective("spec.objective", spec.objective)
    yield from _check_evaluations(spec)
    for index, policy in enumerate(spec.baselines):
        yield from _check_baseline(f"spec.baselines[{index}]", policy)
    if len(spec.baselines) > MAX_BASELINES:
        yield Violation("spec.baselines", f"there are {len(spec.baselines)}, more than {MAX_BASELINES}")
    if spec.baselines and not spec.HasField("held_out"):
        yield Violation("spec.held_out", "baselines are compared on held-out episodes: say which")
    if not 0 <= spec.max_parallel_trials <= MAX_PARALLEL_TRIALS:
        yield Violation("spec.max_parallel_trials", f"must be 0 to {MAX_PARALLEL_TRIALS}")
    if spec.HasField("max_failed_trials") and spec.max_failed_trials < 0:
        yield Violation("spec.max_failed_trials", "must not be negative")


def _check_training(field: str, spec: sweep_pb2.SweepSpec) -> Iterator[Violation]:
    training, policy_class = spec.training, spec.training.policy_class
    known = {parameter.name for parameter in parameters.policy_parameters(training)}
    searched = {name.removeprefix("policy."): domain.draw(0.0) for name, domain in _sound_space(spec).items()}
    searched = {name: value for name, value in searched.items() if name in known}
    yield from _check_policy_class(f"{field}.policy_class", policy_class, training=True, searched=searched)
    if not training.missions:
        yield Violation(f"{field}.missions", "name at least one mission to train on")
    for index, mission in enumerate(training.missions):
        yield from _check_mission(f"{field}.missions[{index}]", mission)
    if training.agent_steps < 1:
        yield Violation(f"{field}.agent_steps", f"must be at least 1, not {training.agent_steps}")
    if not 0 <= training.seed <= MAX_TRAINING_SEED:
        yield Violation(f"{field}.seed", f"must be between 0 and {MAX_TRAINING_SEED}")
    yield from _check_workers(field, training)
    yield from parameters.check_trainer(f"{field}.trainer", training)


def _check_workers(field: str, training: TrainingSpec) -> Iterator[Violation]:
    given = {name: getattr(training, name) for name in ("workers", "min_workers") if training.HasField(name)}
    wrong = [name for name, value in given.items() if not 1 <= value <= MAX_WORKERS]
    for name in wrong:
        yield Violation(f"{field}.{name}", f"must be between 1 and {MAX_WORKERS}, not {given[name]}")
    if len(given) == 2 and not wrong and training.min_workers > training.workers:
        message = f"must be at most {training.workers}, as many as there are workers, not {training.min_workers}"
        yield Violation(f"{field}.min_workers", message)


def _check_search(spec: sweep_pb2.SweepSpec) -> Iterator[Violation]:
    if not spec.space:
        yield Violation("spec.space", "name at least one parameter to search")
    for name in sorted(spec.space):
        yield from check_domain(f"spec.space[{name[:100]}]", spec.space[name])
    kind = spec.search.WhichOneof("strategy")
    if kind is None:
        yield Violation("spec.search", "say how to search: grid, random or bayesian")
    space = _sound_space(spec)
    yield from parameters.check_space("spec.space", space, spec.training)
    if kind == "grid":
        yield from check_grid("spec.space", space)
    if kind in ("random", "bayesian"):
        trials = getattr(spec.search, kind).trials
        if not 1 <= trials <= MAX_TRIALS:
            yield Violation(f"spec.search.{kind}.trials", f"must be 1 to {MAX_TRIALS}, not {trials}")
    if spec.search.bayesian.startup_trials < 0:
        yield Violation("spec.search.bayesian.startup_trials", "must not be negative")


def _sound_space(spec: sweep_pb2.SweepSpec) -> Space:
    """The domains that are sound in themselves."""
    return {name: domain for name, domain in from_message(spec).items() if not any(check_domain("", spec.space[name]))}


def _check_objective(field: str, objective: sweep_pb2.Objective) -> Iterator[Violation]:
    name = objective.metric
    if not name or len(name) > 200 or not name.isprintable():
        yield Violation(f"{field}.metric", "name the metric, for example `reward`, in at most 200 characters")
    elif problem := catalog.check_metric(name):  # found only after the first training otherwise
        yield Violation(f"{field}.metric", problem)
    if objective.direction not in sweep_pb2.Direction.values():
        yield Violation(f"{field}.direction", f"{objective.direction} is not a direction that this service knows")


def _check_evaluations(spec: sweep_pb2.SweepSpec) -> Iterator[Violation]:
    if not spec.HasField("evaluation"):
        yield Violation("spec.evaluation", "say on which episodes trials are scored")
    plans = {"spec.evaluation": spec.evaluation}
    if spec.HasField("held_out"):
        plans["spec.held_out"] = spec.held_out
    trained = _trained_maps(spec.training)
    for field, plan in plans.items():
        for index, mission in enumerate(plan.missions):
            yield from _check_mission(f"{field}.missions[{index}]", mission)
        if not 1 <= plan.episodes <= MAX_EPISODES:
            yield Violation(f"{field}.episodes", f"must be 1 to {MAX_EPISODES}, not {plan.episodes}")
        if plan.seed < 0 or plan.seed + plan.episodes > SEED_LIMIT:
            yield Violation(f"{field}.seed", "the seeds of all episodes must lie between 0 and 2^32 - 1")
        if (shared := overlap(trained, [range(plan.seed, plan.seed + plan.episodes)])) is not None:
            message = f"training plays the map of seed {shared.start}, which is one of these episodes': choose another"
            yield Violation(f"{field}.seed", message)
    if spec.HasField("held_out") and _overlap(spec.evaluation, spec.held_out):
        end = spec.evaluation.seed + spec.evaluation.episodes - 1
        message = f"shares seeds with the evaluation, which has {spec.evaluation.seed} to {end}: choose another"
        yield Violation("spec.held_out.seed", message)


def _trained_maps(training: TrainingSpec) -> list[range]:
    """Seeds of maps that every trial surely trains on."""
    if not 0 <= training.seed <= MAX_TRAINING_SEED or not any(not m.HasField("map_seed") for m in training.missions):
        return []
    # Where their number is the profile's, at least so many.
    workers = min(max(1, training.workers, training.min_workers), _MOST_RANKS)
    # Each time that it starts, an elastic job may have fewer and fewer workers, in one attempt after the other.
    most_in_a_row = 1 + max(0, workers - training.min_workers) if training.HasField("min_workers") else 1
    return training_maps(
        training.seed,
        workers=workers,
        attempts=min((1 + max(0, training.max_restarts)) * most_in_a_row, _MOST_RANKS),
        environments=max(1, training.environments),
    )


def _overlap(one: sweep_pb2.EvaluationPlan, other: sweep_pb2.EvaluationPlan) -> bool:
    return one.seed < other.seed + other.episodes and other.seed < one.seed + one.episodes


def _check_mission(field: str, mission: Mission) -> Iterator[Violation]:
    changes = (
        tuple(mission.variants),
        mission.cogs if mission.HasField("cogs") else None,
        mission.max_steps if mission.HasField("max_steps") else None,
        mission.difficulty or None,
    )
    if mission.HasField("file"):
        yield from _check_reference(f"{field}.file", mission.file)
        yield from _violations(field, catalog.check_own_mission(mission.name, *changes))
    else:
        yield from _violations(field, catalog.check_mission(catalog.resolve_mission(mission.name).name, *changes))
    if mission.HasField("map_seed") and not 0 <= mission.map_seed < SEED_LIMIT:
        yield Violation(f"{field}.map_seed", "must be between 0 and 2^32 - 1")


def _check_baseline(field: str, policy: Policy) -> Iterator[Violation]:
    match policy.WhichOneof("source"):
        case "policy_class":
            yield from _check_policy_class(f"{field}.policy_class", policy.policy_class, training=False)
        case "checkpoint":
            checkpoint = policy.checkpoint
            yield from _check_policy_class(f"{field}.checkpoint.policy_class", checkpoint.policy_class, training=False)
            yield from _check_reference(f"{field}.checkpoint.weights", checkpoint.weights)
        case None:
            yield Violation(field, "say where the policy comes from")


def _check_policy_class(
    field: str, policy: PolicyClass, *, training: bool, searched: Parameters | None = None
) -> Iterator[Violation]:
    """searched: example values of the constructor's arguments that the sweep searches."""
    path = policy.class_path
    dotted = len(path) <= 300 and all(part.isidentifier() for part in path.split("."))
    if not dotted and path not in catalog.catalog().policies:
        yield Violation(f"{field}.class_path", "name the policy's class, or a policy that `daf policies` lists")
        return
    if policy.HasField("requirements"):
        yield from _check_reference(f"{field}.requirements", policy.requirements)
    if policy.HasField("code"):
        yield from _check_reference(f"{field}.code", policy.code)
        return  # a user's own class: the runner reads its constructor
    arguments = {**scalars(policy.arguments), **(searched or {})}
    problems = catalog.check_policy(path, arguments, training=False)
    if training:
        if "." in path and catalog.find_policy(path) is None:
            yield Violation(f"{field}.code", f"{path} is no policy of cogames: send its code along")
        problems = [*catalog.check_policy(path, arguments, training=True), *problems]
    yield from _violations(field, list(dict.fromkeys(problems)))


def _violations(field: str, problems: Iterable[catalog.Problem]) -> Iterator[Violation]:
    for problem in problems:
        kind = _Broken if problem.broken else Violation
        yield kind(f"{field}.{problem.field}", problem.message)


def _check_reference(field: str, artifact: Artifact) -> Iterator[Violation]:
    try:
        check_artifact(artifact, field)
    except InvalidArgument as error:
        yield from error.violations
