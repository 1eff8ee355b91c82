"""What has been seen of pods, and may no longer be there to be seen when it matters."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Set

from daf_common.kube import reasons
from daf_common.kube.api import Object

SLACK_SECONDS = 20.0
"""How much longer than its grace period a pod may take to end before it is given up, with its node."""


class PodHistory:
    """Of the pods of one backend's workloads."""

    def __init__(self) -> None:
        self._began: dict[tuple[str, str], str] = {}
        """The uid of each pod that was first seen to run, by workload and name."""
        self._ends_by: dict[str, float] = {}
        """When a pod that was seen to be ending should have ended, by its uid, on this process's monotonic clock."""
        self._disruptions: dict[str, str] = {}
        """What is known to have disrupted a workload."""

    def note(self, pods: Mapping[str, Iterable[Object]], known: Set[str]) -> None:
        """Remembers what matters of all pods that there are, by workload, and forgets all but the known workloads."""
        now = time.monotonic()
        ending, began = {}, {}
        for name, of_workload in pods.items():
            for pod in of_workload:
                uid = pod["metadata"]["uid"]
                if reasons.is_ending(pod):
                    grace = pod["metadata"].get("deletionGracePeriodSeconds") or 0
                    ending[uid] = self._ends_by.get(uid, now + grace + SLACK_SECONDS)
                    self._disruptions[name] = f"{reasons.name_of(pod)} {reasons.why_ending(pod) or 'was deleted'}"
                if reasons.phase_of(pod) != "Pending":
                    key = (name, reasons.name_of(pod))
                    began[key] = self._began.get(key, uid)
        living = {key: uid for key, uid in self._began.items() if key[0] in known}
        self._ends_by, self._began = ending, {**living, **began}
        self._disruptions = {name: why for name, why in self._disruptions.items() if name in known}

    def forget(self, workload: str) -> None:
        """Forgets what disrupted a workload, whose name may be used again."""
        self._disruptions.pop(workload, None)

    def disruption(self, workload: str) -> str:
        """What has disrupted a workload; empty if nothing is known to have."""
        return self._disruptions.get(workload, "")

    def is_given_up(self, pod: Object) -> bool:
        """Whether a pod should have ended long ago: its node cannot be asked."""
        return time.monotonic() > self._ends_by.get(pod["metadata"]["uid"], math.inf)

    def is_lost(self, workload: str, pod: Object) -> bool:
        """Whether a pod of a workload is given up, or has taken the place of one that ran."""
        uid = pod["metadata"]["uid"]
        return self.is_given_up(pod) or self._began.get((workload, reasons.name_of(pod)), uid) != uid

    def lives(self, pod: Object) -> bool:
        """Whether a pod runs, or may yet."""
        return reasons.phase_of(pod) in ("Pending", "Running") and not self.is_given_up(pod)
