"""How the workloads of one service look on Kubernetes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from daf_common.kube.api import Kind, Object
from daf_common.workloads import Observation, Resources, Workload


class Form(Protocol):
    """The kind of object that a workload is, and what stands in it. Pure."""

    kind: Kind
    service: str
    """`training` or `evaluation`."""
    container: str
    """The name of the container in which the worker runs."""
    replaces_pods: bool
    """Whether a pod that takes the place of a lost one can go on with its work."""
    when_missing: str
    """What to do where the cluster does not know the kind."""

    environment: Sequence[Object]
    """Variables of its pods beyond those of every pod, as in a pod's spec."""

    def pod_resources(self, workload: Workload) -> Resources:
        """What one pod of a workload needs."""
        ...

    def specification(self, workload: Workload, pod: Object) -> Object:
        """The `spec` of a workload's object, given the template of its pods."""
        ...

    def pods(self, specification: Object) -> int:
        """How many pods an object of that `spec` makes."""
        ...

    def ending(self, found: Object) -> Observation | None:
        """How an object has ended, by its conditions; None if it has not."""
        ...

    def replica(self, pod: Object) -> int:
        """Which replica a pod is of."""
        ...
