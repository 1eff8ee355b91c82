"""Logs of pods, as they grow and for as long as they may be wanted."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

from daf_common.kube.api import KubernetesApi, Object
from daf_common.kube.reasons import name_of, phase_of

MAX_BYTES = 4 << 20
"""So much of the beginning of a pod's log is read. What a replica keeps in memory must end somewhere."""
LAST_LINES = 200
"""So many lines of the end of a longer one are read once its pod has ended, since they say why. A line as the kubelet
counts has at most 16 KiB, so the end is within `MAX_BYTES`."""
GAP = b"\n... what was printed from here on is left out, but for its last lines ...\n"
FRESH_SECONDS = 1.0
"""A log that was read so short a time ago is not read again."""


@dataclass
class _Log:
    content: bytes = b""
    read_at: float = -FRESH_SECONDS
    whole: bool = False
    """Whether nothing can follow."""


class PodLogs:
    """What pods have printed. What was read once is kept until it is forgotten, since a pod may be gone before."""

    def __init__(self, api: KubernetesApi, container: str) -> None:
        self._api, self._container = api, container
        self._logs: defaultdict[str, dict[str, _Log]] = defaultdict(dict)

    async def read(self, workload: str, pods: Sequence[Object], is_out_of_reach: Callable[[Object], bool]) -> bytes:
        """The logs of pods of a workload, one after the other; of one out of reach, what was read before."""
        contents = []
        for pod in pods:
            log = self._logs[workload].setdefault(pod["metadata"]["uid"], _Log())
            is_fresh = time.monotonic() - log.read_at < FRESH_SECONDS
            if not (log.whole or is_fresh or is_out_of_reach(pod)):
                ended = phase_of(pod) in ("Succeeded", "Failed")
                content = await self._api.log(name_of(pod), self._container, MAX_BYTES)
                beginning = max(log.content, content or b"", key=len)
                end = b""
                if ended and content is not None and len(beginning) >= MAX_BYTES:
                    end = GAP + (await self._api.log(name_of(pod), self._container, MAX_BYTES, LAST_LINES) or b"")
                log.content = beginning + end
                log.read_at, log.whole = time.monotonic(), ended and content is not None
            contents.append(log.content)
        return b"".join(contents)

    def forget(self, workload: str) -> None:
        """Lets go of what was read of a workload."""
        self._logs.pop(workload, None)

    def forget_all_but(self, workloads: Set[str]) -> None:
        """Lets go of what was read of all others: nobody has to say that a workload has vanished."""
        for workload in self._logs.keys() - workloads:
            del self._logs[workload]
