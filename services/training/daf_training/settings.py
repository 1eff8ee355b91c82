"""Settings of the training service."""

from __future__ import annotations

import os

from pydantic import Field

from daf_common.settings import ServiceSettings


class TrainingSettings(ServiceSettings):
    """What the training service needs to know beside what all services do."""

    training_slots: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, description="jobs that train at once; others wait"
    )
    worker_address: str = Field("", description="where workers find this service; empty: where it listens")
    report_interval_seconds: float = Field(1.0, gt=0, description="time between two reports of a worker")
    cancel_grace_seconds: float = Field(2.5, ge=0, description="how long a cancelled job may take to save and end")
    max_log_bytes: int = Field(16 << 20, ge=0, description="how much of a job's log is kept")
