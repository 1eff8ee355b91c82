"""Why a workload has fewer running pods than it should, from what Kubernetes says of them and of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from daf_common.kube import reasons
from daf_common.kube.api import EVENTS, KubernetesApi, Object

SHOWN_PODS = 3
"""The reasons of so many pods are told."""

type Warnings = Mapping[str, Sequence[Object]]
"""Warnings by the uid of what they are about, the newest last."""


async def read_warnings(api: KubernetesApi) -> Warnings:
    """All of a namespace that Kubernetes still remembers."""
    events, _ = await api.list(EVENTS, fields="type=Warning")
    by_uid: defaultdict[str, list[Object]] = defaultdict(list)
    for event in sorted(events, key=_event_time):
        by_uid[event["involvedObject"].get("uid", "")].append(event)
    return by_uid


def waits(pods: Sequence[Object], wanted: int) -> bool:
    """Whether of so many pods some are missing, or not started."""
    return len(pods) < wanted or any(reasons.phase_of(pod) == "Pending" for pod in pods)


def why_workload_waits(found: Object, pods: Sequence[Object], wanted: int, warnings: Warnings) -> str:
    """For a person; empty if it does not wait.

    Args:
        found: the workload's object.
        pods: what pods it has.
        wanted: how many it is to have.
        warnings: about anything.
    """
    told = [
        f"{reasons.name_of(pod)}: {why}"
        for pod in pods
        if (why := reasons.why_waiting(pod, warnings.get(pod["metadata"]["uid"], ())))
    ]
    if len(pods) < wanted:
        own = warnings.get(found["metadata"]["uid"], ())
        if own:
            told.append(f"{own[-1].get('reason', '')}: {own[-1].get('message', '')}")
        elif found["spec"].get("suspend") or found["spec"].get("runPolicy", {}).get("suspend"):
            told.append("it is suspended: whoever admits workloads here has not admitted it yet")
        elif not told:
            told.append("its pods are being created")
    return "; ".join([*told[:SHOWN_PODS], *(["..."] if len(told) > SHOWN_PODS else [])])


def _event_time(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
