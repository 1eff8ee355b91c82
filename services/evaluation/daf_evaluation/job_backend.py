"""Workers of evaluations on Kubernetes: a workload is an indexed Job, with a pod for every replica.

Kubernetes replaces a pod that was evicted, pre-empted or lost with its node: the new worker leases what is left. One
that fails by itself is not replaced; the others play on, and if none is left, the service starts a new workload.
"""

from __future__ import annotations

from collections.abc import Sequence

from daf_common.kube.api import Kind, KubernetesApi, Object, conditions, label_of
from daf_common.kube.backend import KubernetesBackend
from daf_common.kube.settings import BackendSettings
from daf_common.workloads import Observation, Resources, State, Workload

JOBS = Kind("batch/v1", "Job", "jobs")

LEFT_OVER_SECONDS = 7 * 24 * 3600

_INDEX = "batch.kubernetes.io/job-completion-index"


class IndexedJobForm:
    """See `daf_common.kube.form.Form`."""

    kind = JOBS
    service = "evaluation"
    container = "worker"
    replaces_pods = True
    when_missing = "the cluster does not know Jobs (batch/v1): is this a Kubernetes API?"
    environment: Sequence[Object] = (
        {"name": "DAF_REPLICA", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{_INDEX}']"}}},
    )

    def pod_resources(self, workload: Workload) -> Resources:
        """See `Form.pod_resources`."""
        return workload.resources

    def specification(self, workload: Workload, pod: Object) -> Object:
        """See `Form.specification`."""
        return {
            "completionMode": "Indexed",
            "completions": workload.replicas,
            "parallelism": workload.replicas,
            "backoffLimitPerIndex": 0,
            "podReplacementPolicy": "Failed",
            # Should the service never come back to it, as to one that it made just when its evaluation had ended.
            "ttlSecondsAfterFinished": LEFT_OVER_SECONDS,
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": pod,
        }

    def pods(self, specification: Object) -> int:
        """See `Form.pods`."""
        completions: int = specification["completions"]
        return completions

    def ending(self, found: Object) -> Observation | None:
        """See `Form.ending`."""
        for condition in conditions(found):
            if condition["type"] == "Complete":
                return Observation(State.SUCCEEDED)
            if condition["type"] == "Failed":
                return Observation(State.FAILED, condition.get("message", ""))
        return None

    def replica(self, pod: Object) -> int:
        """See `Form.replica`."""
        return int(label_of(pod, _INDEX) or 0)


def job_backend(
    settings: BackendSettings, command: Sequence[str] = (), api: KubernetesApi | None = None
) -> KubernetesBackend:
    """The backend of the evaluation service on a cluster."""
    return KubernetesBackend(settings, IndexedJobForm(), command, api)
