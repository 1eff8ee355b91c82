"""Settings of the evaluation service."""

from __future__ import annotations

from pydantic import Field

from daf_common.machine import usable_cpus
from daf_common.settings import ServiceSettings


class EvaluationSettings(ServiceSettings):
    """What the evaluation service needs to know beyond what all do."""

    worker_address: str = Field("", description="where workers reach this service; empty: where it listens")
    evaluation_workers: int = Field(
        default_factory=usable_cpus, ge=1, description="worker processes of an evaluation at most"
    )
    evaluation_slots: int = Field(
        default_factory=usable_cpus, ge=1, description="worker processes of all evaluations at most"
    )
    evaluation_attempts: int = Field(5, ge=1, description="how often an evaluation's workers are started anew at most")
    evaluation_cpus: float = Field(1.0, gt=0, description="CPUs that a worker asks for, where machines are shared")
    evaluation_memory_gib: float = Field(2.0, gt=0, description="memory that a worker gets there, in GiB")
    lease_seconds: float = Field(15.0, gt=0, description="how long a silent worker keeps its shard")
    stop_grace_seconds: float = Field(3.0, ge=0, description="how long workers may take to end when they are stopped")
