"""Training runs as messages and back."""

from __future__ import annotations

from typing import Any

from daf.config import DAFSweepConfig, DAFTrainingConfig, TrainingSettings
from daf.convert.missions import mission_config, mission_messages
from daf.convert.policies import (
    OwnCode,
    Resolver,
    artifact_config,
    policy_config,
    policy_message,
    values_message,
)
from daf.parameters import Parameters
from daf.references import PolicyConfig, StartConfig
from daf_common.errors import InvalidArgument
from daf_common.values import scalars
from daf_protos.common.v1.policy_pb2 import Policy, PolicyCheckpoint, PolicyClass
from daf_protos.training.v1.training_job_pb2 import TrainingSpec


def training_spec(config: DAFTrainingConfig, resolver: Resolver) -> TrainingSpec:
    """A training document as a message.

    Raises:
        InvalidArgument: a name in it is not known; names the field.
        DafError: what the services say of it.
    """
    own = OwnCode(config.code, config.requirements, config.directory, resolver)
    return common_training_spec(config, resolver.parameters(config.policy_class_path, own.code), own, resolver)


def training_config(spec: TrainingSpec, name: str = "training") -> DAFTrainingConfig:
    """The document that says what a training job was asked to do."""
    return DAFTrainingConfig(
        name=name, **policy_fields(spec), training=training_settings(spec, spec.seed), seed=spec.seed
    )


def common_training_spec(
    config: DAFSweepConfig | DAFTrainingConfig, parameters: Parameters, own: OwnCode, resolver: Resolver
) -> TrainingSpec:
    """The training run of a document that has one. Raises as `training_spec`."""
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
        policy_class=own.policy_class(config.policy, arguments),
        missions=mission_messages(config.missions, "missions", config.directory, resolver),
        agent_steps=settings.agent_steps,
        trainer=values_message(trainer),
        seed=config.seed if settings.seed is None else settings.seed,
        environments=settings.num_envs,
        profile=settings.profile,
        workers=settings.workers,
        min_workers=settings.min_workers,
        checkpoint_agent_steps=settings.checkpoint_agent_steps,
        max_checkpoints=settings.max_checkpoints,
        max_restarts=settings.max_restarts,
        best_metric=settings.best_metric,
        minimize_best_metric=settings.best_direction == "minimize",
    )
    if settings.start is not None:
        spec.start.CopyFrom(_start(settings.start, spec.policy_class, own, resolver))
    return spec


def _start(config: StartConfig, trained: PolicyClass, own: OwnCode, resolver: Resolver) -> PolicyCheckpoint:
    """The weights to start from; without a policy of their own they are those of the policy that is trained."""
    field = "training.start"
    if config.policy or not config.weights:
        return policy_message(config, field, own, resolver).checkpoint
    named = PolicyConfig(policy=trained.class_path, weights=config.weights, checkpoint=config.checkpoint)
    start = policy_message(named, field, own, resolver).checkpoint
    start.policy_class.CopyFrom(trained)
    return start


def training_settings(spec: TrainingSpec, document_seed: int) -> TrainingSettings:
    """The `training` section that says what a message says; a seed that is the document's is left out."""
    return TrainingSettings(
        agent_steps=spec.agent_steps,
        trainer=scalars(spec.trainer),
        num_envs=spec.environments if spec.HasField("environments") else None,
        seed=spec.seed if spec.seed != document_seed else None,
        profile=spec.profile,
        workers=spec.workers if spec.HasField("workers") else None,
        min_workers=spec.min_workers if spec.HasField("min_workers") else None,
        checkpoint_agent_steps=spec.checkpoint_agent_steps if spec.HasField("checkpoint_agent_steps") else None,
        max_checkpoints=spec.max_checkpoints if spec.HasField("max_checkpoints") else None,
        best_metric=spec.best_metric,
        best_direction="minimize" if spec.minimize_best_metric else "maximize",
        max_restarts=spec.max_restarts if spec.HasField("max_restarts") else None,
        start=_start_settings(spec) if spec.HasField("start") else None,
    )


def _start_settings(spec: TrainingSpec) -> StartConfig:
    start = dict(policy_config(Policy(checkpoint=spec.start)))
    if spec.start.policy_class == spec.policy_class:
        start.update(policy=None, code=None, requirements=None, arguments={})
    return StartConfig.model_validate({**start, "label": None})


def policy_fields(spec: TrainingSpec) -> dict[str, Any]:
    """The fields of a document that name the policy and the missions."""
    policy = spec.policy_class
    return {
        "missions": [mission_config(mission) for mission in spec.missions],
        "policy": policy.class_path,
        "code": artifact_config(policy.code) if policy.HasField("code") else None,
        "requirements": artifact_config(policy.requirements) if policy.HasField("requirements") else None,
        "policy_arguments": scalars(policy.arguments),
    }
