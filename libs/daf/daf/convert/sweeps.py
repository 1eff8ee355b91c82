"""Sweeps as messages and back."""

from __future__ import annotations

from daf.config import DAFSweepConfig, EvaluationSettings, HeldOutSettings
from daf.convert.missions import mission_config, mission_messages
from daf.convert.policies import (
    OwnCode,
    Resolver,
    make_labels_unique,
    policy_config,
    policy_message,
)
from daf.convert.training import common_training_spec, policy_fields, training_settings
from daf.parameters import Parameters
from daf.references import PolicyConfig
from daf.space import Choices, Interval, Strategy, explicit
from daf_common.errors import InvalidArgument, Unimplemented
from daf_common.values import Scalar, scalars, to_value
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.scheduler.v1.sweep_pb2 import EvaluationPlan, SweepSpec

DEFAULT_EPISODES = 5
DEFAULT_TRIALS = 10
UNTRAINED = "untrained"
"""The baseline that is the sweep's own policy before training."""

_DIRECTIONS = {"maximize": sweep_pb2.DIRECTION_MAXIMIZE, "minimize": sweep_pb2.DIRECTION_MINIMIZE}


def sweep_spec(config: DAFSweepConfig, resolver: Resolver) -> SweepSpec:
    """A sweep document as a message.

    Raises:
        InvalidArgument: a name in it is not known; names the field.
        DafError: what the services say of it.
    """
    own = OwnCode(config.code, config.requirements, config.directory, resolver)
    parameters = resolver.parameters(config.policy_class_path, own.code)
    spec = SweepSpec(
        training=common_training_spec(config, parameters, own, resolver),
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
    spec.evaluation.CopyFrom(_plan("evaluation", config.evaluation, episodes, config, resolver))
    if config.held_out is not None:
        held_out_episodes = config.held_out.episodes or episodes
        spec.held_out.CopyFrom(_plan("held_out", config.held_out, held_out_episodes, config, resolver))
    for index, baseline in enumerate(config.baselines):
        if baseline.policy == UNTRAINED and not (baseline.code or baseline.requirements or baseline.weights):
            untrained = Policy(label=baseline.label or UNTRAINED, policy_class=spec.training.policy_class)
            spec.baselines.append(untrained)
        else:
            spec.baselines.append(policy_message(baseline, f"baselines[{index}]", own, resolver))
    make_labels_unique(spec.baselines)
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
        **policy_fields(spec.training),
        training=training_settings(spec.training, spec.seed),
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


def _plan(
    section: str, settings: EvaluationSettings, episodes: int, config: DAFSweepConfig, resolver: Resolver
) -> EvaluationPlan:
    field, played = f"{section}.missions", settings.missions
    if not played and settings.max_steps:
        field, played = "missions", config.missions
    messages = mission_messages(played, field, config.directory, resolver)
    for message in messages:
        if settings.max_steps and not message.HasField("max_steps"):
            message.max_steps = settings.max_steps
    return EvaluationPlan(missions=messages, episodes=episodes, seed=settings.seed)


def _plan_settings[S: EvaluationSettings](plan: EvaluationPlan, kind: type[S]) -> S:
    return kind(missions=[mission_config(m) for m in plan.missions], episodes=plan.episodes, seed=plan.seed)


def _baseline(message: Policy, trained: PolicyClass) -> PolicyConfig:
    if (
        message.WhichOneof("source") == "policy_class"
        and message.policy_class == trained
        and message.label == UNTRAINED
    ):
        return PolicyConfig(policy=UNTRAINED)
    return policy_config(message)
