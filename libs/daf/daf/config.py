"""The documents of DAF: what users write in YAML, JSON or Python."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from daf.comparison_config import DAFComparisonConfig
from daf.document_config import Aggregation, DocumentConfig, MetricName
from daf.references import (
    MAX_INT32,
    Count,
    MissionConfig,
    PolicyConfig,
    RequirementsField,
    Seed,
    SingleValue,
    StoredArtifact,
    problem_at,
)
from daf.sections import EVALUATION_SEED, EvaluationSettings, HeldOutSettings, TrackingSettings, TrainingSettings
from daf.space import Domain, Strategy, check

__all__ = [
    "DAFComparisonConfig",
    "DAFConfig",
    "DAFEvaluationConfig",
    "DAFSweepConfig",
    "DAFTrainingConfig",
    "EvaluationSettings",
    "HeldOutSettings",
    "MissionConfig",
    "PolicyConfig",
    "StoredArtifact",
    "TrackingSettings",
    "TrainingSettings",
    "daf_load_config",
]


class _PolicyDocument(DocumentConfig):
    """What all documents about one policy have."""

    name: str = Field("experiment", min_length=1, max_length=200)
    missions: list[MissionConfig] = Field(min_length=1)
    policy_class_path: str = Field(min_length=1, alias="policy")
    """Short name or class path of the policy."""
    code: list[str] | StoredArtifact | None = None
    """Files and folders of the user's own code that the policy needs."""
    requirements: RequirementsField = None
    """Packages that this code needs."""
    policy_arguments: dict[str, SingleValue] = Field(default_factory=dict)
    """Named arguments of the policy's constructor."""
    training: TrainingSettings = TrainingSettings()
    seed: Seed = 42

    @property
    def policy(self) -> str:
        """Another name of `policy_class_path`."""
        return self.policy_class_path

    @policy.setter
    def policy(self, value: str) -> None:
        self.policy_class_path = value


class DAFSweepConfig(_PolicyDocument):
    """A search over hyperparameters."""

    name: str = Field("sweep", min_length=1, max_length=200)
    search_space: dict[str, Domain] = Field(min_length=1)
    """Parameters with their values: `learning_rate: [0.001, 0.01]`, `{min: 1e-4, max: 1e-2, log: true}`,
    `{choices: [...]}`. Two numbers are the ends of an interval under random and bayesian."""
    strategy: Strategy = "grid"
    num_trials: Count | None = None
    """How many trials random and bayesian draw: 10 if not given. A grid has as many as it has combinations."""
    startup_trials: Count | None = None
    """Trials that bayesian draws at random first."""
    episodes_per_trial: Count | None = None
    """Episodes of each mission that a trial is scored on: 5 if not given. The same as `evaluation: episodes`."""
    objective_metric: MetricName = "reward"
    """`reward`, or an agent's or the game's statistic."""
    optimize_direction: Literal["maximize", "minimize"] = "maximize"
    max_parallel_jobs: Count | None = None
    """Trials that run at a time: one if not given."""
    max_failed_trials: int | None = Field(None, ge=0, le=MAX_INT32)
    """Failed trials after which the sweep is given up."""
    evaluation: EvaluationSettings = EvaluationSettings()
    held_out: HeldOutSettings | None = HeldOutSettings()
    """`null` leaves the final evaluation out."""
    baselines: list[PolicyConfig] = Field(default_factory=list)
    """Policies beside the best trial on the held-out episodes; `untrained` is the policy itself before training."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        episodes = self.evaluation.episodes
        if self.episodes_per_trial and episodes and self.episodes_per_trial != episodes:
            raise problem_at(("episodes_per_trial",), f"differs from evaluation.episodes, which is {episodes}")
        if self.strategy == "grid":
            if self.num_trials:
                raise problem_at(("num_trials",), "is for strategy random or bayesian: a grid tries every combination")
        if self.strategy != "bayesian" and self.startup_trials:
            raise problem_at(("startup_trials",), "is for strategy bayesian")
        check(self.search_space, self.strategy)
        if self.baselines and self.held_out is None:
            raise problem_at(("baselines",), "are scored on the held-out episodes: held_out must not be null")
        return self


class DAFTrainingConfig(_PolicyDocument):
    """One training run."""

    name: str = Field("training", min_length=1, max_length=200)
    tracking: TrackingSettings = TrackingSettings()
    """Where the metrics go, too, while the run is followed."""


class DAFEvaluationConfig(DocumentConfig):
    """Policies, each mission of which they play for some episodes."""

    name: str = Field("evaluation", min_length=1, max_length=200)
    policies: list[PolicyConfig] = Field(min_length=1)
    code: list[str] | StoredArtifact | None = None
    """Files and folders of the user's own code; policies whose class is in it take it along."""
    requirements: RequirementsField = None
    """Packages that this code needs."""
    missions: list[MissionConfig] = Field(min_length=1)
    episodes: Count = 5
    """Episodes for each mission and team."""
    seed: Seed = EVALUATION_SEED
    team: Literal["mixed", "solo", "pickup", "pairs"] = "mixed"
    """Who plays with whom: `mixed`, one team of all policies; `solo`, each policy alone in all seats; `pickup`,
    CoGames' pickup, where the first policy has all seats, then fewer and fewer, and the others share the rest;
    `pairs`, each policy alone and every two of them in one team with half of the seats each."""
    proportions: list[float] = Field(default_factory=list)
    """Shares of the seats in a mixed team, one for each policy."""
    max_action_time_ms: Count | None = None
    """Time for an action by the wall clock; otherwise so much that it never decides a score."""
    profile: str = ""
    workers: Count | None = None
    save_replays: bool = False
    """Keeps a replay of every episode, for CoGames' own player."""
    fast: bool = False
    """Steps agents as one batch also where that changes the last bits of a network's output; results say so."""
    isolated: bool = False
    """Every policy plays in a sandbox, not only those from bundles."""
    time_limit_seconds: float | None = Field(None, gt=0, le=86_400)
    """How long a policy may take to load, to start or for one step; otherwise the installation's default."""
    objective_metric: MetricName = "reward"
    """What is summarized: `reward`, or an agent's or the game's statistic."""
    aggregation: Aggregation = "mean"
    """How the values of a policy's seats become one."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.proportions and len(self.proportions) != len(self.policies):
            raise ValueError(
                f"{len(self.proportions)} proportions for {len(self.policies)} policies: give one for each"
            )
        if any(share < 0 for share in self.proportions) or (self.proportions and not any(self.proportions)):
            raise ValueError("proportions are shares: none is negative and not all are zero")
        if self.proportions and self.team != "mixed":
            raise ValueError(f"proportions are for team mixed: {self.team} says itself who has which seats")
        if self.team in ("pickup", "pairs") and len(self.policies) < 2:
            raise ValueError(f"team {self.team} needs at least two policies")
        return self


class DAFConfig(DocumentConfig):
    """Settings for all that a script does. `output_dir`, `max_parallel_jobs`, `max_checkpoints_to_keep` and `verbose`
    have an effect; the others are accepted, with a warning where they ask for something that is not there yet."""

    output_dir: Path = Field(Path("daf_output"), strict=False)
    """Where results are written."""
    checkpoint_dir: Path | None = Field(None, strict=False)
    max_checkpoints_to_keep: Count = 5
    max_parallel_jobs: Count = 4
    enable_gpu: bool = True
    gpu_memory_fraction: float = Field(0.8, gt=0, le=1)
    organize_by_operation: bool = True
    verbose: bool = False
    log_to_file: bool = True
    monitor_system_stats: bool = True
    track_experiments: bool = True

    @model_validator(mode="after")
    def _say_what_has_no_effect(self) -> Self:
        idle = sorted(_without_effect(self))
        if idle:
            warnings.warn(f"DAFConfig: {', '.join(idle)} has no effect yet", UserWarning, stacklevel=3)
        return self

    def apply_logging(self) -> None:
        """Lets the `daf` loggers say more if `verbose` is set."""
        if self.verbose:
            logging.getLogger("daf").setLevel(logging.DEBUG)


def daf_load_config(config_path: str | Path) -> DAFConfig:
    """Reads global settings from a YAML or JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        daf.documents.DocumentError: it cannot be used.
    """
    return DAFConfig.from_yaml(config_path)


_WORKING = {"output_dir", "max_checkpoints_to_keep", "max_parallel_jobs", "verbose"}


def _without_effect(config: DAFConfig) -> Iterator[str]:
    for name, field in DAFConfig.model_fields.items():
        if name not in _WORKING and name in config.model_fields_set and getattr(config, name) != field.default:
            yield name
