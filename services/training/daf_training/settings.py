"""Settings of the training service."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from daf_common.machine import usable_cpus
from daf_common.settings import ServiceSettings
from daf_training import capacity
from daf_training.admission import Capacity
from daf_training.profiles import CPU_SMALL, Profile, Profiles


class TrainingSettings(ServiceSettings):
    """What the training service needs to know beside what all services do. `none` is no limit where one may be none."""

    model_config = SettingsConfigDict(env_parse_none_str="none")

    training_cpus: int | None = Field(
        default_factory=usable_cpus, ge=1, description="CPUs for all jobs that train at once; others wait"
    )
    training_memory_gib: float | None = Field(
        default_factory=capacity.usable_memory_gib, gt=0, description="memory for all jobs that train at once, in GiB"
    )
    training_gpus: int | None = Field(
        default_factory=capacity.gpus, ge=0, description="GPUs for all jobs that train at once"
    )
    training_profiles: tuple[Profile, ...] = Field(
        (),
        description="compute profiles beside the built-in ones, or in the place of those of the same names: a JSON "
        "list of objects with name, workers, environments, cpus, memory_gib and gpus",
    )
    training_profile: str = Field(CPU_SMALL.name, description="profile of jobs that name none")
    worker_address: str = Field("", description="where workers find this service; empty: where it listens")
    report_interval_seconds: float = Field(1.0, gt=0, description="time between two reports of a worker")
    stall_seconds: float = Field(
        600.0, gt=0, description="time without an environment step or a gradient step after which a worker gives up"
    )
    elastic_patience_seconds: float = Field(
        120.0, ge=0, description="how long a job that makes do with fewer workers waits for further ones to run"
    )
    cancel_grace_seconds: float = Field(2.5, ge=0, description="how long a cancelled job may take to save and end")
    max_log_bytes: int = Field(16 << 20, ge=0, description="how much of a job's log is kept")

    @model_validator(mode="after")
    def _checked_profiles(self) -> Self:
        self.profiles()
        return self

    def profiles(self) -> Profiles:
        """The profiles of this installation."""
        return Profiles.of(self.training_profiles, self.training_profile)

    def capacity(self) -> Capacity:
        """What there is for all jobs together."""
        return Capacity(self.training_cpus, self.training_memory_gib, self.training_gpus)
