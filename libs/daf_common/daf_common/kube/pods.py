"""What a pod of a workload looks like. Pure.

It passes the `restricted` pod security standard: not root, no privileges, no capabilities, nothing of its image
writable. It has no account at the API server, and no secret but its workload's token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daf_common.kube.api import Object
from daf_common.kube.authorities import trusting
from daf_common.kube.settings import PodSettings
from daf_common.workloads import WORKER_ENVIRONMENT, Resources, Workload

USER = 10001
WORK = "/work"
GPU = "nvidia.com/gpu"

LOST_NODE_SECONDS = 60
"""How long a node may be out of reach before its pods are given up: workers go on elsewhere from what they saved."""

SCRATCH_REQUESTED = 0.1
"""Part of one volume's disk that is requested: nodes that have promised theirs get no more pods, and pods that use less
are not the first to be evicted when a disk fills up. In full, both volumes would make small nodes unfit."""

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"

SECRET_VARIABLES = ("DAF_TOKEN",)
"""What of a workload's environment is kept in its secret."""


def pod_template(
    workload: Workload,
    resources: Resources,
    settings: PodSettings,
    *,
    container: str,
    image: str,
    pull_policy: str,
    secret: str,
    labels: Mapping[str, str],
    command: Sequence[str] = (),
    environment: Sequence[Object] = (),
) -> Object:
    """A pod's template.

    Args:
        workload: what it runs.
        resources: what the pod needs, for all its processes.
        settings: where it runs.
        container: the name of its container.
        image: the runner's image.
        pull_policy: when that is pulled.
        secret: the name of the secret of the workload.
        labels: by which its backend finds it.
        command: what to run in the place of the image's own program.
        environment: further variables, as in a pod's spec.
    """
    pod: Object = {
        "metadata": {"labels": {**settings.labels, **labels}, "annotations": dict(settings.annotations)},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": settings.grace_seconds,
            # Of the pod: the operator looks at that of a PyTorchJob only when something else happens to it.
            **({"activeDeadlineSeconds": settings.active_deadline_seconds} if settings.active_deadline_seconds else {}),
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "nodeSelector": dict(settings.node_selector),
            "tolerations": [*(dict(toleration) for toleration in settings.tolerations), *_lost_nodes()],
            "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
            **({"priorityClassName": settings.priority_class_name} if settings.priority_class_name else {}),
            **({"runtimeClassName": settings.runtime_class_name} if settings.runtime_class_name else {}),
            "containers": [
                {
                    "name": container,
                    "image": image,
                    "imagePullPolicy": pull_policy,
                    **({"command": list(command)} if command else {}),
                    "args": [workload.verb],
                    "workingDir": WORK,
                    "env": [*_variables(workload, secret), *environment],
                    "resources": _resources(resources, settings),
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "terminationMessagePolicy": "File",
                    "volumeMounts": [
                        {"name": "work", "mountPath": WORK},
                        {"name": "tmp", "mountPath": "/tmp"},
                        {"name": "shm", "mountPath": "/dev/shm"},
                    ],
                }
            ],
            "volumes": [
                {"name": "work", "emptyDir": {"sizeLimit": _gib(settings.scratch_gib)}},
                {"name": "tmp", "emptyDir": {"sizeLimit": _gib(settings.scratch_gib)}},
                # Counted as memory of the pod, so it needs no limit of its own below the pod's.
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _gib(resources.memory_gib)}},
            ],
        },
    }
    return trusting(pod, settings.certificate_authorities) if settings.certificate_authorities else pod


def secret_content(workload: Workload) -> Mapping[str, str]:
    """What is kept in a workload's secret."""
    return {name: workload.environment[name] for name in SECRET_VARIABLES if name in workload.environment}


def _variables(workload: Workload, secret: str) -> list[Object]:
    own = {"HOME": WORK, "TMPDIR": "/tmp", "DAF_CACHE": f"{WORK}/cache", "PYTHONUNBUFFERED": "1", **WORKER_ENVIRONMENT}
    plain = own | {name: value for name, value in workload.environment.items() if name not in SECRET_VARIABLES}
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}}
            for name in secret_content(workload)
        ),
    ]


def _resources(resources: Resources, settings: PodSettings) -> Object:
    """Memory and GPUs are got in full or not at all; cores that nobody uses may be used beyond what is requested."""
    fixed: dict[str, Any] = {"memory": f"{max(1, round(resources.memory_gib * 1024))}Mi"}
    if resources.gpus:
        fixed[GPU] = str(resources.gpus)
    cpus = f"{max(1, round(resources.cpus * settings.cpu_share * 1000))}m"
    disk = {"ephemeral-storage": _gib(settings.scratch_gib * SCRATCH_REQUESTED)}
    if QUEUE_LABEL in settings.labels:
        disk = {}  # Kueue admits nothing that requests what its queue has no quota of, and few have one of disk
    return {"requests": {"cpu": cpus, **disk, **fixed}, "limits": fixed}


def _lost_nodes() -> list[Object]:
    return [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": LOST_NODE_SECONDS,
        }
        for taint in ("not-ready", "unreachable")
    ]


def _gib(amount: float) -> str:
    return f"{max(1, round(amount * 1024))}Mi"
