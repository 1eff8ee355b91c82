"""Settings of the scheduler service."""

from __future__ import annotations

import socket

from pydantic import Field

from daf_common.settings import ServiceSettings


class SchedulerSettings(ServiceSettings):
    """What the scheduler service needs to know beyond what all do."""

    replica: str = Field(
        default_factory=socket.gethostname, description="name of this replica; one that restarts leads again at once"
    )
    leader_seconds: float = Field(10.0, gt=0, description="how long a silent replica keeps the lead")
    reread_seconds: float = Field(30.0, gt=0, description="after this silence a job or evaluation is read again")
