"""Sections that several kinds of documents have."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from daf.documents import Scalar
from daf.references import (
    MAX_INT32,
    AgentSteps,
    Count,
    MissionConfig,
    Section,
    Seed,
    SingleValue,
    StartConfig,
    problem_at,
    trainer_name,
)

EVALUATION_SEED = 3_000_000_000
HELD_OUT_SEED = 4_000_000_000
"""Far from each other, and beyond all seeds of training (see `daf_common.map_seeds`), so that no map that was trained
on is scored on."""


class TrainingSettings(Section):
    """How a policy is trained."""

    agent_steps: AgentSteps = 100_000
    """Length of the run: one agent acting once is one step."""
    trainer: dict[str, SingleValue] = Field(default_factory=dict)
    """Hyperparameters, for example `learning_rate`; `daf policies NAME` lists them."""
    num_envs: Count | None = None
    """Environments per worker."""
    seed: Seed | None = None
    """Seed of weights, actions, minibatches and maps; the document's seed if not given."""
    profile: str = ""
    """Name of the compute profile; empty means the installation's default."""
    workers: Count | None = None
    """Data-parallel workers."""
    min_workers: Count | None = None
    """With how many workers the run makes do where it cannot have all; otherwise with no fewer."""
    checkpoint_agent_steps: AgentSteps | None = None
    """Agent steps between checkpoints; otherwise only the last is saved."""
    max_checkpoints: Count | None = Field(
        None, validation_alias=AliasChoices("max_checkpoints", "max_checkpoints_to_keep")
    )
    """How many checkpoints are kept beside the best."""
    best_metric: str = ""
    """The metric by which one checkpoint is the best, for example `env/reward_per_agent`, which it is if not given."""
    best_direction: Literal["maximize", "minimize"] = "maximize"
    """Whether the largest or the smallest value of that metric is the best."""
    max_restarts: int | None = Field(None, ge=0, le=MAX_INT32)
    """Attempts that may follow a lost worker."""
    start: StartConfig | None = None
    """Weights to start from: a file, or a checkpoint."""

    @field_validator("trainer")
    @classmethod
    def _by_one_name(cls, trainer: dict[str, Scalar]) -> dict[str, Scalar]:
        named: dict[str, Scalar] = {}
        for written, value in trainer.items():
            name = trainer_name(written)
            if name in named:
                raise problem_at((written,), f"is {name}, which is there already")
            named[name] = value
        return named

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.workers and self.min_workers and self.min_workers > self.workers:
            raise problem_at(("min_workers",), f"is more than workers, which is {self.workers}")
        return self


class TrackingSettings(Section):
    """Experiment trackers that follow the run from where it is started; services know nothing of them."""

    tensorboard: str | None = Field(None, min_length=1)
    """A directory for TensorBoard."""
    mlflow: str | None = Field(None, min_length=1)
    """A tracking URI of MLflow."""
    wandb: str | None = Field(None, min_length=1)
    """A project of Weights & Biases."""


class EvaluationSettings(Section):
    """The episodes that every trial is scored on."""

    missions: list[MissionConfig] = Field(default_factory=list)
    """The missions; those of the sweep if none are named."""
    episodes: Count | None = None
    """Episodes for each mission."""
    seed: Seed = EVALUATION_SEED
    """Seed of the first episode; the others follow."""
    max_steps: Count | None = None
    """Environment steps of an episode, for missions that do not say it themselves."""


class HeldOutSettings(EvaluationSettings):
    """The episodes that the best trial is scored on again, beside the baselines."""

    seed: Seed = HELD_OUT_SEED
