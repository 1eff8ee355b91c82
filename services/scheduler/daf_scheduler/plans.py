"""What the children of a sweep are to do: the specs of its training jobs and evaluations. Pure."""

from __future__ import annotations

import functools

from daf_common.values import scalars
from daf_protos.common.v1.policy_pb2 import Policy, PolicyCheckpoint
from daf_protos.evaluation.v1.evaluation_pb2 import TEAM_SOLO, EvaluationSpec
from daf_protos.scheduler.v1.sweep_pb2 import EvaluationPlan, SweepSpec
from daf_protos.scheduler.v1.sweep_pb2 import Trial as TrialMessage
from daf_protos.training.v1.training_job_pb2 import TrainingSpec
from daf_scheduler import parameters
from daf_scheduler.space import Parameters
from daf_scheduler.trials import Trial


@functools.lru_cache(maxsize=256)
def spec_of(frozen: bytes) -> SweepSpec:
    """A sweep's spec as it is stored. Shared: not to be changed."""
    return SweepSpec.FromString(frozen)


def parameters_of(trial: Trial) -> Parameters:
    """A trial's parameters."""
    return scalars(TrialMessage.FromString(trial.parameters).parameters)


def training_spec(sweep: SweepSpec, trial: Trial) -> TrainingSpec:
    """What a trial trains. Its seed is the sweep's: trials differ by their parameters alone."""
    return parameters.apply(sweep.training, parameters_of(trial))


def evaluation_spec(sweep: SweepSpec, trial: Trial) -> EvaluationSpec:
    """What a trial is scored on: the same for all trials, whatever they were trained on."""
    return _evaluation(sweep, sweep.evaluation, [_trained(trial)])


def held_out_spec(sweep: SweepSpec, best: Trial) -> EvaluationSpec:
    """What the best trial is scored on again: policy 0, with the baselines after it."""
    return _evaluation(sweep, sweep.held_out, [_trained(best), *sweep.baselines])


def _trained(trial: Trial) -> Policy:
    return Policy(label=f"trial {trial.number}", checkpoint=PolicyCheckpoint.FromString(trial.checkpoint))


def _evaluation(sweep: SweepSpec, plan: EvaluationPlan, policies: list[Policy]) -> EvaluationSpec:
    return EvaluationSpec(
        policies=policies,
        missions=plan.missions or sweep.training.missions,
        episodes=plan.episodes,
        seed=plan.seed,
        team=TEAM_SOLO,  # each policy alone on the same seeds, so that policies are paired
    )
