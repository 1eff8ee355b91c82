"""Documents as protobuf messages and back: the one place that knows both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from daf.config import (
    DAFEvaluationConfig,
    DAFSweepConfig,
    DAFTrainingConfig,
    EvaluationSettings,
    HeldOutSettings,
    TrainingSettings,
)
from daf.parameters import Parameters
from daf.references import MissionConfig, PolicyConfig, StoredArtifact
from daf.space import Choices, Interval, Strategy, explicit
from daf.user_code import UserCode
from daf_common.errors import InvalidArgument, Unimplemented
from daf_common.values import Scalar, scalars, to_value
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyCheckpoint, PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.scheduler.v1.sweep_pb2 import EvaluationPlan, SweepSpec
from daf_protos.training.v1.training_job_pb2 import TrainingSpec

DEFAULT_EPISODES = 5
DEFAULT_TRIALS = 10
UNTRAINED = "untrained"
"""The baseline that is the sweep's own policy before training."""

_DIRECTIONS = {"maximize": sweep_pb2.DIRECTION_MAXIMIZE, "minimize": sweep_pb2.DIRECTION_MINIMIZE}
_TEAMS = {"mixed": evaluation_pb2.TEAM_MIXED, "solo": evaluation_pb2.TEAM_SOLO}


class Resolver(Protocol):
    """What turns references into messages; `daf.resources.Resources` asks the services."""

    def code(self, code: UserCode) -> Artifact: ...

    def weights(self, path: Path) -> Artifact: ...

    def checkpoint(self, name: str) -> PolicyCheckpoint: ...

    def parameters(self, policy: str, code: UserCode | None) -> Parameters: ...


def sweep_spec(config: DAFSweepConfig, resolver: Resolver) -> SweepSpec:
    """A sweep document as a message.

    Raises:
        InvalidArgument: a name in it is not known; names the field.
        DafError: what the services say of it.
    """
    own = _OwnCode(config.code, config.directory, resolver)
    parameters = resolver.parameters(config.policy_class_path, own.packed)
    spec = SweepSpec(
        training=_training_spec(config, parameters, own, resolver),
        search=_search(config),
        objective=sweep_pb2.Objective(metric=config.objective_metric, direction=_DIRECTIONS[config.optimize_direction]),
        max_parallel_trials=config.max_parallel_jobs or 0,
        seed=config.seed,
        max_failed_trials=config.max_failed_trials,
    )
    for name, domain in config.search_space.items():
        full = parameters.canonical(name, f"search_space.{name}")
        if full in spec.space:
            raise InvalidArgument.field(f"search_space.{name}", f"is {full}, which the search space has already")
        spec.space[full].CopyFrom(_domain(full, explicit(domain, config.strategy), parameters))
    episodes = config.evaluation.episodes or config.episodes_per_trial or DEFAULT_EPISODES
    spec.evaluation.CopyFrom(_plan(config.evaluation, episodes, config.missions))
    if config.held_out is not None:
        spec.held_out.CopyFrom(_plan(config.held_out, config.held_out.episodes or episodes, config.missions))
    for index, baseline in enumerate(config.baselines):
        if baseline.policy == UNTRAINED and not baseline.code and not baseline.weights:
            untrained = Policy(label=baseline.label or UNTRAINED, policy_class=spec.training.policy_class)
            spec.baselines.append(untrained)
        else:
            spec.baselines.append(_policy(baseline, f"baselines[{index}]", own, resolver))
    _make_labels_unique(spec.baselines)
    return spec


def sweep_config(spec: SweepSpec, name: str = "sweep") -> DAFSweepConfig:
    """The document that says what a sweep was asked to do.

    Raises:
        Unimplemented: documents cannot say it yet.
    """
    strategy, trials, startup = _strategy(spec.search)
    plan = _plan_settings(spec.evaluation, EvaluationSettings)
    return DAFSweepConfig(
        name=name,
        **_policy_fields(spec.training),
        training=_training_settings(spec.training, spec.seed),
        seed=spec.seed,
        search_space={full: _domain_form(domain, strategy) for full, domain in sorted(spec.space.items())},
        strategy=strategy,
        num_trials=trials,
        startup_trials=startup,
        objective_metric=spec.objective.metric,
        optimize_direction="minimize" if spec.objective.direction == sweep_pb2.DIRECTION_MINIMIZE else "maximize",
        max_parallel_jobs=spec.max_parallel_trials or None,
        max_failed_trials=spec.max_failed_trials if spec.HasField("max_failed_trials") else None,
        evaluation=plan,
        held_out=_plan_settings(spec.held_out, HeldOutSettings) if spec.HasField("held_out") else None,
        baselines=[_baseline(policy, spec.training.policy_class) for policy in spec.baselines],
    )


def training_spec(config: DAFTrainingConfig, resolver: Resolver) -> TrainingSpec:
    """A training document as a message. Raises as `sweep_spec`."""
    own = _OwnCode(config.code, config.directory, resolver)
    return _training_spec(config, resolver.parameters(config.policy_class_path, own.packed), own, resolver)


def training_config(spec: TrainingSpec, name: str = "training") -> DAFTrainingConfig:
    """The document that says what a training job was asked to do."""
    return DAFTrainingConfig(
        name=name, **_policy_fields(spec), training=_training_settings(spec, spec.seed), seed=spec.seed
    )


def evaluation_spec(config: DAFEvaluationConfig, resolver: Resolver) -> EvaluationSpec:
    """An evaluation document as a message. Raises as `sweep_spec`."""
    own = _OwnCode(config.code, config.directory, resolver)
    spec = EvaluationSpec(
        policies=[_policy(policy, f"policies[{i}]", own, resolver) for i, policy in enumerate(config.policies)],
        missions=map(mission_message, config.missions),
        episodes=config.episodes,
        seed=config.seed,
        team=_TEAMS[config.team],
        proportions=config.proportions,
        max_action_time_ms=config.max_action_time_ms or 0,
        profile=config.profile,
        workers=config.workers,
        save_replays=config.save_replays,
    )
    _make_labels_unique(spec.policies)
    return spec


def evaluation_config(spec: EvaluationSpec, name: str = "evaluation") -> DAFEvaluationConfig:
    """The document that says what an evaluation was asked to do."""
    return DAFEvaluationConfig(
        name=name,
        policies=[policy_config(policy) for policy in spec.policies],
        missions=[mission_config(mission) for mission in spec.missions],
        episodes=spec.episodes,
        seed=spec.seed,
        team="solo" if spec.team == evaluation_pb2.TEAM_SOLO else "mixed",
        proportions=list(spec.proportions),
        max_action_time_ms=spec.max_action_time_ms or None,
        profile=spec.profile,
        workers=spec.workers if spec.HasField("workers") else None,
        save_replays=spec.save_replays,
    )


def mission_message(config: MissionConfig) -> Mission:
    """A mission as a message."""
    return Mission(
        name=config.mission,
        variants=config.variants,
        cogs=config.cogs,
        max_steps=config.max_steps,
        difficulty=config.difficulty or "",
        map_seed=config.map_seed,
    )


def mission_config(message: Mission) -> MissionConfig:
    """A mission as documents have it."""
    return MissionConfig(
        mission=message.name,
        variants=list(message.variants),
        cogs=message.cogs if message.HasField("cogs") else None,
        max_steps=message.max_steps if message.HasField("max_steps") else None,
        difficulty=message.difficulty or None,
        map_seed=message.map_seed if message.HasField("map_seed") else None,
    )


def policy_config(message: Policy) -> PolicyConfig:
    """A policy as documents have it."""
    match message.WhichOneof("source"):
        case "policy_class":
            config = _class_config(message.policy_class)
        case "checkpoint":
            config = _class_config(message.checkpoint.policy_class)
            config.weights = _stored(message.checkpoint.weights)
            config.checkpoint = message.checkpoint.checkpoint or None
        case "bundle":
            config = PolicyConfig(bundle=_stored(message.bundle))
        case _:
            config = PolicyConfig(version=message.version)
    config.label = message.label if message.label != _label(config) else None
    return config


class _OwnCode:
    """The code that a document brings along, packed at once and uploaded when a policy needs it."""

    def __init__(self, code: list[str] | StoredArtifact | None, directory: Path, resolver: Resolver) -> None:
        self._resolver, self._artifact = resolver, _artifact(code) if isinstance(code, StoredArtifact) else None
        self.packed = (
            UserCode.of(directory / Path(path).expanduser() for path in code) if isinstance(code, list) else None
        )
        self.directory = directory

    def artifact(self) -> Artifact | None:
        """The artifact of the code, if there is any."""
        if self._artifact is None and self.packed is not None:
            self._artifact = self._resolver.code(self.packed)
        return self._artifact

    def for_class(self, class_path: str) -> Artifact | None:
        """The artifact, if the class is in it."""
        return self.artifact() if self.packed is not None and self.packed.has(class_path) else None


def _training_spec(
    config: DAFSweepConfig | DAFTrainingConfig, parameters: Parameters, own: _OwnCode, resolver: Resolver
) -> TrainingSpec:
    settings = config.training
    if own.packed is not None and "." in config.policy and not own.packed.has(config.policy):
        module = config.policy.rpartition(".")[0]
        raise InvalidArgument.field("policy", f"{config.policy}: the code that comes along has no module {module}")
    arguments = {}
    for name, value in config.policy_arguments.items():
        field = f"policy_arguments.{name}"
        arguments[parameters.under("policy", name, field, "training.trainer")] = value
    trainer = {}
    for name, value in settings.trainer.items():
        field = f"training.trainer.{name}"
        short = parameters.under("trainer", name, field, "policy_arguments, or under missions for env")
        trainer[short] = parameters.typed(f"trainer.{short}", value)
    spec = TrainingSpec(
        policy_class=PolicyClass(class_path=config.policy, code=own.artifact(), arguments=_values(arguments)),
        missions=map(mission_message, config.missions),
        agent_steps=settings.agent_steps,
        trainer=_values(trainer),
        seed=config.seed if settings.seed is None else settings.seed,
        environments=settings.num_envs,
        profile=settings.profile,
        workers=settings.workers,
        checkpoint_agent_steps=settings.checkpoint_agent_steps,
        max_checkpoints=settings.max_checkpoints,
        max_restarts=settings.max_restarts,
    )
    if settings.start is not None:
        start = _policy(settings.start, "training.start", own, resolver)
        if start.WhichOneof("source") != "checkpoint":
            raise InvalidArgument.field("training.start", "is no checkpoint: there are no weights to start from")
        spec.start.CopyFrom(start.checkpoint)
    return spec


def _training_settings(spec: TrainingSpec, document_seed: int) -> TrainingSettings:
    start = policy_config(Policy(checkpoint=spec.start)) if spec.HasField("start") else None
    if start is not None:
        start.label = None
    return TrainingSettings(
        agent_steps=spec.agent_steps,
        trainer=scalars(spec.trainer),
        num_envs=spec.environments if spec.HasField("environments") else None,
        seed=spec.seed if spec.seed != document_seed else None,
        profile=spec.profile,
        workers=spec.workers if spec.HasField("workers") else None,
        checkpoint_agent_steps=spec.checkpoint_agent_steps if spec.HasField("checkpoint_agent_steps") else None,
        max_checkpoints=spec.max_checkpoints if spec.HasField("max_checkpoints") else None,
        max_restarts=spec.max_restarts if spec.HasField("max_restarts") else None,
        start=start,
    )


def _policy_fields(spec: TrainingSpec) -> dict[str, Any]:
    policy = spec.policy_class
    return {
        "missions": [mission_config(mission) for mission in spec.missions],
        "policy": policy.class_path,
        "code": _stored(policy.code) if policy.HasField("code") else None,
        "policy_arguments": scalars(policy.arguments),
    }


def _search(config: DAFSweepConfig) -> sweep_pb2.Search:
    trials = config.num_trials or DEFAULT_TRIALS
    match config.strategy:
        case "grid":
            return sweep_pb2.Search(grid=sweep_pb2.GridSearch())
        case "random":
            return sweep_pb2.Search(random=sweep_pb2.RandomSearch(trials=trials))
        case "bayesian":
            startup = config.startup_trials or 0
            return sweep_pb2.Search(bayesian=sweep_pb2.BayesianSearch(trials=trials, startup_trials=startup))


def _strategy(search: sweep_pb2.Search) -> tuple[Strategy, int | None, int | None]:
    match search.WhichOneof("strategy"):
        case "random":
            return "random", search.random.trials, None
        case "bayesian":
            return "bayesian", search.bayesian.trials, search.bayesian.startup_trials or None
        case "grid" | None:
            return "grid", None, None
        case other:
            raise Unimplemented(f"documents have no word for the strategy {other} yet")


def _domain(name: str, domain: Choices | Interval, parameters: Parameters) -> sweep_pb2.Domain:
    if isinstance(domain, Choices):
        values = [parameters.typed(name, value) for value in domain.choices]
        numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in values]
        if all(numbers) and any(isinstance(value, float) for value in values):
            values = [float(value) for value in values]
        return sweep_pb2.Domain(choices=sweep_pb2.Choices(values=map(to_value, values)))
    return sweep_pb2.Domain(
        interval=sweep_pb2.Interval(
            minimum=domain.min,
            maximum=domain.max,
            logarithmic=domain.log,
            step=domain.step,
            integer=domain.int and not parameters.is_real(name),
        )
    )


def _domain_form(domain: sweep_pb2.Domain, strategy: Strategy) -> list[Scalar] | Choices | Interval:
    if domain.WhichOneof("kind") == "interval":
        given = domain.interval
        return Interval(min=given.minimum, max=given.maximum, log=given.logarithmic, step=given.step, int=given.integer)
    values = list(scalars({str(i): value for i, value in enumerate(domain.choices.values)}).values())
    plain = strategy == "grid" or len(values) != 2  # a list of two may mean an interval
    return values if plain else Choices(choices=values)


def _plan(settings: EvaluationSettings, episodes: int, missions: Sequence[MissionConfig]) -> EvaluationPlan:
    played = settings.missions or (missions if settings.max_steps else [])
    messages = [mission_message(mission) for mission in played]
    for message in messages:
        if settings.max_steps and not message.HasField("max_steps"):
            message.max_steps = settings.max_steps
    return EvaluationPlan(missions=messages, episodes=episodes, seed=settings.seed)


def _plan_settings[S: EvaluationSettings](plan: EvaluationPlan, kind: type[S]) -> S:
    return kind(missions=[mission_config(m) for m in plan.missions], episodes=plan.episodes, seed=plan.seed)


def _policy(config: PolicyConfig, field: str, own: _OwnCode, resolver: Resolver) -> Policy:
    label = config.label or _label(config)
    if config.version:
        return Policy(label=label, version=config.version)
    if config.bundle:
        return Policy(label=label, bundle=_artifact(config.bundle))
    if config.policy is None:
        return Policy(label=label, checkpoint=resolver.checkpoint(config.checkpoint or ""))
    code = _OwnCode(config.code, own.directory, resolver).artifact() if config.code else own.for_class(config.policy)
    policy_class = PolicyClass(class_path=config.policy, code=code, arguments=_values(config.arguments))
    if config.weights is None:
        return Policy(label=label, policy_class=policy_class)
    if isinstance(config.weights, StoredArtifact):
        weights = _artifact(config.weights)
    else:
        try:
            weights = resolver.weights(own.directory / Path(config.weights).expanduser())
        except OSError as error:
            raise InvalidArgument.field(field, f"cannot read the weights {config.weights}: {error.strerror}") from error
    return Policy(
        label=label,
        checkpoint=PolicyCheckpoint(policy_class=policy_class, weights=weights, checkpoint=config.checkpoint or ""),
    )


def _baseline(message: Policy, trained: PolicyClass) -> PolicyConfig:
    if (
        message.WhichOneof("source") == "policy_class"
        and message.policy_class == trained
        and message.label == UNTRAINED
    ):
        return PolicyConfig(policy=UNTRAINED)
    return policy_config(message)


def _class_config(message: PolicyClass) -> PolicyConfig:
    return PolicyConfig(
        policy=message.class_path,
        code=_stored(message.code) if message.HasField("code") else None,
        arguments=scalars(message.arguments),
    )


def _label(config: PolicyConfig) -> str:
    """What tables call a policy that has no label."""
    if config.policy:
        name = config.policy.rpartition(".")[2]
        return f"{name}:{Path(config.weights).stem}" if isinstance(config.weights, str) else name
    if config.bundle:
        return f"bundle-{config.bundle.sha256[:8]}"
    return (config.checkpoint or config.version or "").partition("/")[2]


def _make_labels_unique(policies: Iterable[Policy]) -> None:
    taken: set[str] = set()
    for policy in policies:
        label, number = policy.label, 1
        while policy.label in taken:
            number += 1
            policy.label = f"{label}-{number}"
        taken.add(policy.label)


def _values(values: Mapping[str, Scalar]) -> dict[str, Value]:
    return {name: to_value(value) for name, value in values.items()}


def _artifact(stored: StoredArtifact) -> Artifact:
    return Artifact(
        sha256=stored.sha256, size_bytes=stored.size_bytes, media_type=stored.media_type, owner=stored.owner
    )


def _stored(artifact: Artifact) -> StoredArtifact:
    return StoredArtifact(
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        media_type=artifact.media_type,
        owner=artifact.owner,
    )
