"""Settings from the environment, with defaults that suit a laptop."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_home() -> Path:
    """Where the state lives if `DAF_HOME` says nothing."""
    return Path.home() / ".daf"


class ServiceSettings(BaseSettings):
    """What every service needs to know. Each field is read from the environment variable `DAF_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="DAF_", extra="ignore")

    home: Path = Field(default_factory=default_home, description="directory of all state that is not in a server")
    database_url: str = Field(
        "",
        description="URL of a PostgreSQL, with a schema for each service; empty: SQLite files under home",
    )
    migrate: Literal["start", "check"] = Field(
        "start",
        description="start: bring the database up to date at the start; check: wait until `migrate` has done so",
    )
    replica: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=70,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="name of this replica; one that is started again by its name leads again at once",
    )
    leader_seconds: float = Field(10.0, gt=0, description="how long a silent replica keeps the lead")
    artifacts_url: str = Field("", description="where artifacts lie: file://, s3://, gs:// or az://; empty: under home")
    listen: str = Field("", description="address to serve on: unix:PATH or HOST:PORT")
    tokens: str = Field(
        "", description="directory of the tokens that callers need, one file a principal; empty: none is asked for"
    )
    token_file: str = Field("", description="file with the token that this service sends to the others")
    allow_anonymous: bool = Field(False, description="serve other machines although no token is asked for")
    metrics_host: str = Field("127.0.0.1", description="address on which /metrics and /healthz are served")
    metrics_port: int = Field(0, ge=0, le=65535, description="port of /metrics and /healthz; 0 picks a free one")
    log_format: str = Field("json", pattern="^(json|text)$", description="json or text")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    drain_seconds: float = Field(10.0, ge=0, description="how long running calls may take after SIGTERM")
    scheduler_address: str = Field("", description="where the scheduler service is")
    training_address: str = Field("", description="where the training service is")
    evaluation_address: str = Field("", description="where the evaluation service is")
    statistics_address: str = Field("", description="where the statistics service is")
    deployment_address: str = Field("", description="where the deployment service is")

    @model_validator(mode="after")
    def _absolute_home(self) -> Self:
        self.home = self.home.expanduser().absolute()
        return self

    def database(self, service: str) -> str:
        """The URL of a service's database."""
        if self.database_url:
            return self.database_url
        directory = self.home / "state"
        directory.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{quote(str(directory / service))}.db"

    def artifacts(self) -> str:
        """The URL of the artifact store."""
        return self.artifacts_url or (self.home / "artifacts").as_uri()
