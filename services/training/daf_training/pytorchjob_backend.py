"""Training jobs on Kubernetes: an attempt is a PyTorchJob of the Kubeflow training operator, version 1.

The operator gives pods torchrun's variables and a name by which they find the first of them; `daf-runner train` is
torchrun's agent. A pod that fails ends the job with all its pods. What is not left to the operator: it would make a pod
anew that somebody deleted, in the middle of an attempt whose other ranks have lost it.
"""

from __future__ import annotations

from collections.abc import Sequence

from daf_common.kube.api import Kind, KubernetesApi, Object, conditions, label_of
from daf_common.kube.backend import KubernetesBackend
from daf_common.kube.settings import BackendSettings
from daf_common.workloads import Observation, Ranks, Resources, State, Workload

PYTORCH_JOBS = Kind("kubeflow.org/v1", "PyTorchJob", "pytorchjobs")


class PyTorchJobForm:
    """See `daf_common.kube.form.Form`."""

    service = "training"
    container = "pytorch"
    replaces_pods = False
    when_missing = (
        "training on Kubernetes needs the Kubeflow training operator, version 1 (PyTorchJob): ask whoever runs the "
        "cluster to install it, for example with kubectl apply --server-side -k "
        "'github.com/kubeflow/training-operator.git/manifests/overlays/standalone?ref=v1.8.1'"
    )
    environment: Sequence[Object] = ()

    def __init__(self, kind: Kind = PYTORCH_JOBS) -> None:
        """Tests name a kind that is not there."""
        self.kind = kind

    def pod_resources(self, workload: Workload) -> Resources:
        """See `Form.pod_resources`."""
        ranks, each = _ranks(workload), workload.resources
        return Resources(
            each.cpus * ranks.per_machine, each.memory_gib * ranks.per_machine, each.gpus * ranks.per_machine
        )

    def specification(self, workload: Workload, pod: Object) -> Object:
        """See `Form.specification`."""
        ranks = _ranks(workload)
        replicas = {"Master": 1, "Worker": ranks.machines - 1}
        # No backoffLimit: at its limit, the operator deletes failed pods, and with them why they failed. The first that
        # fails ends the job anyway, since none is restarted.
        return {
            "nprocPerNode": str(ranks.per_machine),
            "runPolicy": {"cleanPodPolicy": "Running"},  # those that have ended stay until the job is removed
            "pytorchReplicaSpecs": {
                role: {"replicas": number, "restartPolicy": "Never", "template": pod}
                for role, number in replicas.items()
                if number
            },
        }

    def pods(self, specification: Object) -> int:
        """See `Form.pods`."""
        return sum(replicas["replicas"] for replicas in specification["pytorchReplicaSpecs"].values())

    def ending(self, found: Object) -> Observation | None:
        """See `Form.ending`."""
        for condition in conditions(found):
            if condition["type"] == "Succeeded":
                return Observation(State.SUCCEEDED)
            if condition["type"] == "Failed":
                return Observation(State.FAILED, condition.get("message", ""))
        return None

    def replica(self, pod: Object) -> int:
        """See `Form.replica`."""
        index = int(label_of(pod, "training.kubeflow.org/replica-index") or 0)
        return index if label_of(pod, "training.kubeflow.org/replica-type") == "master" else index + 1


def pytorchjob_backend(
    settings: BackendSettings, command: Sequence[str] = (), api: KubernetesApi | None = None
) -> KubernetesBackend:
    """The backend of the training service on a cluster."""
    return KubernetesBackend(settings, PyTorchJobForm(), command, api)


def _ranks(workload: Workload) -> Ranks:
    return workload.ranks or Ranks(1, 1)
