"""What runs the computing: local processes, or pods. One interface, so that services do not know which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


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
    """How many processes; each finds its number in `DAF_REPLICA`."""


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


class Backend(Protocol):
    """Runs the workloads of one service."""

    async def start(self, workload: Workload) -> None:
        """Starts a workload. Processes of it that were started before, by whomever, are left as they are."""
        ...

    async def observe(self) -> Mapping[str, Observation]:
        """All workloads of this service that have not been removed, by name.

        Raises:
            Unavailable: the backend cannot be reached; nothing is known, least of all that something failed.
        """
        ...

    async def stop(self, name: str, grace_seconds: float) -> None:
        """Asks a workload to end, and ends it after the grace period. Returns without waiting for that."""
        ...

    async def logs(self, name: str, replica: int = 0) -> bytes:
        """What a workload's process has printed so far; empty if nothing is known of it."""
        ...

    async def remove(self, name: str) -> None:
        """Forgets a workload that has ended, with its logs."""
        ...

    async def close(self) -> None:
        """Lets go of the backend. Workloads that run go on."""
        ...
