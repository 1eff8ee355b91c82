"""Settings of the scheduler service."""

from __future__ import annotations

from pydantic import Field

from daf_common.settings import ServiceSettings


class SchedulerSettings(ServiceSettings):
    """What the scheduler service needs to know beyond what all do."""

    reread_seconds: float = Field(30.0, gt=0, description="after this silence a job or evaluation is read again")
