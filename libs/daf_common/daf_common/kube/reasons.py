"""Why a pod does not run, and why it ended, in words for a person. Pure."""

from __future__ import annotations

import signal
from collections.abc import Iterable

from daf_common.kube.api import Object, conditions

_IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_ON_THE_WAY = frozenset({"ContainerCreating", "PodInitializing"})
_DISRUPTIONS = {
    "PreemptionByScheduler": "pre-empted by a pod of higher priority",
    "DeletionByTaintManager": "evicted from a node that is out of reach or tainted",
    "EvictionByEvictionAPI": "evicted, as when a node is drained",
    "DeletionByPodGC": "lost with its node",
    "TerminationByKubelet": "ended by its node",
}


def name_of(found: Object) -> str:
    """An object's name."""
    name: str = found["metadata"]["name"]
    return name


def phase_of(pod: Object) -> str:
    """Pending, Running, Succeeded, Failed or Unknown."""
    phase: str = pod.get("status", {}).get("phase", "Pending")
    return phase


def is_ending(pod: Object) -> bool:
    """Whether somebody has deleted it, though it may still run."""
    return "deletionTimestamp" in pod["metadata"]


def has_begun(pod: Object) -> bool:
    """Whether a pod that is not ending runs, or only waits for the first of its job."""
    if is_ending(pod):
        return False
    return phase_of(pod) == "Running" or any(map(_waits_for_first, _containers(pod.get("status", {}))))


def why_waiting(pod: Object, events: Iterable[Object]) -> str:
    """Why a pod that is not ending does not run; empty if it does.

    Args:
        pod: the pod.
        events: warnings about it, the newest last.
    """
    if phase_of(pod) != "Pending":
        return ""
    status = pod.get("status", {})
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"it cannot be scheduled: {condition.get('message') or condition.get('reason', '')}"
    if "nodeName" not in pod["spec"]:
        return "it waits for the scheduler"
    if why := _why_container_waits(status):
        return why
    if newest := next(iter([*events][-1:]), None):
        return f"{newest.get('reason', '')}: {newest.get('message', '')}"
    return "its containers are being created"


def _why_container_waits(status: Object) -> str:
    for container in _containers(status):
        state: Object = container.get("state", {})
        waiting = state.get("waiting")
        if waiting and waiting.get("reason") in _IMAGE_REASONS:
            detail = f": {waiting['message']}" if waiting.get("message") else ""
            return f"its image {container['image']} cannot be pulled{detail}"
        if waiting and waiting.get("reason") not in _ON_THE_WAY:
            return ": ".join(str(waiting[key]) for key in ("reason", "message") if waiting.get(key))
        if _waits_for_first(container):
            return "it waits until the first pod of its job can be found by its name"
    return ""


def why_ending(pod: Object) -> str:
    """Why a pod that is being deleted, or has failed, was disrupted; empty if nothing says so."""
    for condition in conditions(pod):
        if condition["type"] == "DisruptionTarget":
            reason: str = condition.get("reason", "disrupted")
            what = _DISRUPTIONS.get(reason, reason)
            detail = condition.get("message", "")
            return f"{what}: {detail}" if detail else what
    return ""


def why_failed(pod: Object) -> str:
    """How a pod ended that has failed."""
    status = pod.get("status", {})
    if disruption := why_ending(pod):
        return disruption
    if status.get("reason"):  # Evicted, DeadlineExceeded, NodeLost, ...
        return f"{status['reason']}: {status.get('message', '')}"
    for container in _containers(status):
        ended = container.get("state", {}).get("terminated")
        if ended and (ended.get("exitCode") or ended.get("reason") == "OOMKilled"):
            return _why_container_ended(pod, container["name"], ended)
    return "it failed"


def failure_time(pod: Object) -> str:
    """When the first container of a failed pod ended, as times of one cluster sort; before all others if the pod was
    ended from outside, which may make others fail.
    """
    status = pod.get("status", {})
    if why_ending(pod) or status.get("reason"):
        return ""
    ended = [found.get("state", {}).get("terminated") or {} for found in _containers(status)]
    times = [found.get("finishedAt") for found in ended if found.get("exitCode")]
    return min(filter(None, times), default="9999")


def _waits_for_first(container: Object) -> bool:
    return bool(container["name"].startswith("init-") and container.get("state", {}).get("running"))


def _containers(status: Object) -> list[Object]:
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _why_container_ended(pod: Object, container: str, ended: Object) -> str:
    code = ended.get("exitCode", 0)
    if ended.get("reason") == "OOMKilled":
        limits = [found["resources"] for found in pod["spec"]["containers"] if found["name"] == container]
        limit = next((found.get("limits", {}).get("memory") for found in limits), None)
        more = f"used more than its {limit} of memory" if limit else "used more memory than there was"
        return f"OOM-killed: it {more} (exit code {code})"
    where = "" if container in ("pytorch", "worker") else f" of {container}"
    if 128 < code <= 128 + 64:
        return f"ended by {_signal(code - 128)} (exit code {code}{where})"
    detail = f": {ended['message']}" if ended.get("message") else ""
    return f"exit code {code}{where}{detail}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
