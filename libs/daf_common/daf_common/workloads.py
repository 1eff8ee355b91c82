"""What runs the computing: local processes, or pods. One interface, so that services do not know which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from daf_common.errors import FailedPrecondition, Unavailable

WORKER_ENVIRONMENT: Mapping[str, str] = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
"""What every process finds in its environment, wherever it runs: one thread each, in libraries that count cores when
they are imported, since the number of threads changes the last bits of sums; and no CUDA before a fork."""


@dataclass(frozen=True)
class Resources:
    """What one process needs. A backend on a machine of its own leaves it to whoever admits workloads there."""

    cpus: float = 1
    memory_gib: float = 1
    gpus: int = 0


@dataclass(frozen=True)
class Ranks:
    """Processes that compute as one, and find each other by torchrun's means; one that is lost ends all."""

    count: int
    per_machine: int
    """How many may share a machine; divides `count`."""

    @property
    def machines(self) -> int:
        """On how many machines they run, where there is more than one machine."""
        return self.count // self.per_machine


@dataclass(frozen=True)
class Workload:
    """Processes that run one verb of `daf-runner`."""

    name: str
    """A DNS-1123 label, unique for ever: it carries the number of the attempt."""
    verb: str
    """`train` or `evaluate`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The whole environment of the processes beyond what the machine needs: address, name and token."""
    replicas: int = 1
    """How many processes that know nothing of each other; each finds its number in `DAF_REPLICA`."""
    ranks: Ranks | None = None
    """The ranks of a training job, of which a replica is the launcher on one machine; `replicas` is then 1."""
    resources: Resources = Resources()
    """Of each rank, or of each process where there are no ranks."""
    profile: str = ""
    """The compute profile by which an installation chooses machines; empty for its default."""


class State(Enum):
    """Whether a workload lives. Why it ended is in the reports of its workers, not here."""

    RUNNING = "running"
    """At least one process lives, or will."""
    SUCCEEDED = "succeeded"
    """All processes ended with exit code 0."""
    FAILED = "failed"
    """All processes ended, one with another exit code or by a signal."""


@dataclass(frozen=True)
class Observation:
    """What a backend sees of a workload."""

    state: State
    message: str = ""
    """For a failed workload, how it ended, for example `exit code 1`."""
    waiting: str = ""
    """For a running workload, why some of its processes do not run yet or not for long, in words; empty if all do."""
    replica: int = 0
    """For a failed workload, whose log says most about it."""
    running: int = 0
    """For a running workload, how many of its replicas run, or wait for their first alone; of ranks, on how many
    machines."""


class Backend(Protocol):
    """Runs the workloads of one service."""

    async def check(self) -> None:
        """Looks whether workloads can be started at all.

        Raises:
            FailedPrecondition: something is missing that does not come by itself; says what, and what to do.
            Unavailable: it cannot be told now.
        """
        ...

    def watch(self, on_change: Callable[[str], None]) -> None:
        """Calls a function with the name of a workload about which something may have changed, from now on.

        That only makes things faster: some changes may never be told, some that are none may be. Called once, from
        the event loop.
        """
        ...

    async def start(self, workload: Workload) -> None:
        """Starts a workload. Processes of it that were started before, by whomever, are left as they are.

        Raises:
            FailedPrecondition: it cannot be started as things are; says why, and what to do.
            Unavailable: the backend cannot be reached; it may have been started.
        """
        ...

    async def observe(self) -> Mapping[str, Observation]:
        """All workloads of this service that have not been removed, by name.

        Raises:
            FailedPrecondition: as for `check`; nothing is known, least of all that something failed.
            Unavailable: the backend cannot be reached; the same holds.
        """
        ...

    async def stop(self, name: str, grace_seconds: float) -> None:
        """Asks a workload to end, and ends it after the grace period. Returns without waiting for that.

        Its logs may be gone with it: who wants them reads them before.
        """
        ...

    async def logs(self, name: str, replica: int = 0) -> bytes:
        """What a replica has printed so far; empty if nothing is known of it. Of what is very long, the beginning."""
        ...

    async def remove(self, name: str) -> None:
        """Forgets a workload that has ended, with its logs."""
        ...

    async def close(self) -> None:
        """Lets go of the backend. Workloads that run go on."""
        ...


async def obstacle(backend: Backend) -> FailedPrecondition | None:
    """What says that no workload can be started as things are; None if nothing does.

    For servicers to raise once they know that what they are asked to create is new: what was created before, and runs,
    must not be refused to whoever asks for it once more.
    """
    try:
        await backend.check()
    except FailedPrecondition as error:
        return error
    except Unavailable:
        pass  # what is created waits until there is an answer
    return None
