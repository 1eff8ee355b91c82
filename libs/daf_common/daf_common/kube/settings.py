"""Which backend a service uses, and what it needs to know of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class CertificateAuthorities(BaseModel):
    """Where certificates lie, in PEM, of authorities that pods trust beside the public ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config_map: str = Field(min_length=1, description="name of a ConfigMap in the jobs' namespace")
    key: str = Field("ca.crt", min_length=1, description="its key under which they are")


class PodSettings(BaseModel):
    """Where pods run and how, beyond what a workload needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node_selector: Mapping[str, str] = Field(default_factory=dict, description="labels that nodes must have")
    tolerations: tuple[Mapping[str, Any], ...] = Field((), description="tolerations, as in a pod's spec")
    labels: Mapping[str, str] = Field(
        default_factory=dict, description="further labels of workloads and pods, for example Kueue's queue-name"
    )
    annotations: Mapping[str, str] = Field(default_factory=dict, description="further annotations of pods")
    priority_class_name: str = Field("", description="priority class")
    image_pull_secrets: tuple[str, ...] = Field((), description="names of secrets in the jobs' namespace")
    runtime_class_name: str = Field("", description="runtime class")
    scratch_gib: float = Field(10.0, gt=0, description="disk for downloads and checkpoints at work, in GiB")
    active_deadline_seconds: int | None = Field(
        None, gt=0, description="time after which a workload is ended from outside; none: never"
    )
    cpu_share: float = Field(
        1.0, gt=0, le=1, description="part of each CPU that pods request: less than 1 lets more of them share a node"
    )
    grace_seconds: int = Field(
        60, ge=0, description="how long a pod that is evicted or pre-empted may take to save and end"
    )
    certificate_authorities: CertificateAuthorities | None = Field(
        None, description="authorities that pods trust beside the public ones"
    )


class PodProfiles(BaseModel):
    """Settings of pods by compute profile."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: PodSettings = Field(default_factory=PodSettings, description="of all profiles that are not listed")
    profiles: Mapping[str, PodSettings] = Field(default_factory=dict, description="of profiles, by name")

    def of(self, profile: str) -> PodSettings:
        """The settings for a compute profile."""
        return self.profiles.get(profile, self.default)


class BackendSettings(BaseSettings):
    """Each field is read from the environment variable `DAF_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="DAF_", extra="ignore")

    backend: Literal["local", "kubernetes"] = Field(
        "local", description="local: processes of this machine; kubernetes: pods"
    )
    kubernetes_namespace: str = Field("", description="namespace of the workloads")
    kubernetes_owner: str = Field(
        "", description="ConfigMap in that namespace to which all workloads belong: they are deleted with it"
    )
    kubernetes_network_policies: bool = Field(
        False, description="give workloads whose pods talk to each other a network policy of their own"
    )
    instance: str = Field("daf", description="name of this installation, which tells its workloads from others'")
    runner_image: str = Field("", description="image of the workers")
    runner_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="when that image is pulled"
    )
    pods: PodProfiles = Field(
        default_factory=PodProfiles,
        description='where pods run and how: a JSON object, {"default": {...}, "profiles": {"gpu-1": {...}}}',
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = ("kubernetes_namespace", "runner_image") if self.backend == "kubernetes" else ()
        if lacking := [f"DAF_{name.upper()}" for name in needed if not getattr(self, name)]:
            raise ValueError(f"the kubernetes backend needs {' and '.join(lacking)}: set them")
        return self
