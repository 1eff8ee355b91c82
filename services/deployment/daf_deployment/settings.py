"""Settings of the deployment service."""

from __future__ import annotations

from pydantic import Field

from daf_common.settings import ServiceSettings


class DeploymentSettings(ServiceSettings):
    """What the deployment service needs to know beyond what every service does."""

    max_upload_bytes: int = Field(2 << 30, gt=0, description="largest artifact that users may upload")
