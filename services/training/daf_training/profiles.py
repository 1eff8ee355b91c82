"""Compute profiles: what a job gets that asks for nothing in particular. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

MAX_WORKERS = 1024
MAX_ENVIRONMENTS = 4096
"""Environments of one worker."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Resources:
    """What is held of a machine, or asked for."""

    cpus: int
    memory_gib: float
    gpus: int

    def times(self, number: int) -> Resources:
        """So many times as much."""
        return Resources(number * self.cpus, number * self.memory_gib, number * self.gpus)


@dataclass(frozen=True)
class Profile:
    """Compute under a name; of a job, what it really asks for. All but `workers` is of each worker."""

    name: str
    workers: int
    environments: int
    cpus: int
    memory_gib: float
    gpus: int
    workers_per_machine: int = 1
    """How many may share a machine, where jobs run on several."""

    def __post_init__(self) -> None:
        """Raises ValueError where no job could use it."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} cannot be the name of a profile: use a-z, 0-9 and -")
        bounds = {
            "workers": (1, MAX_WORKERS),
            "environments": (1, MAX_ENVIRONMENTS),
            "cpus": (1, 1024),
            "gpus": (0, 64),
            "workers_per_machine": (1, 64),
        }
        for field, (low, high) in bounds.items():
            if not low <= (value := getattr(self, field)) <= high:
                raise ValueError(f"profile {self.name}: {field} must be between {low} and {high}, not {value}")
        if not 0 < self.memory_gib <= 65536:
            raise ValueError(f"profile {self.name}: memory_gib must be between 0 and 65536, not {self.memory_gib}")

    @property
    def needs(self) -> Resources:
        """What all workers together take."""
        return self.each.times(self.workers)

    @property
    def each(self) -> Resources:
        """What one worker takes."""
        return Resources(self.cpus, self.memory_gib, self.gpus)

    @property
    def shared_by(self) -> int:
        """How many workers get a machine together: as many on each."""
        most = min(self.workers, self.workers_per_machine)
        return next(number for number in range(most, 0, -1) if self.workers % number == 0)


CPU_SMALL = Profile("cpu-small", workers=1, environments=16, cpus=1, memory_gib=2, gpus=0)

BUILT_IN = (
    CPU_SMALL,
    Profile("gpu-1", workers=1, environments=256, cpus=8, memory_gib=32, gpus=1),
    Profile("gpu-8x2", workers=16, environments=256, cpus=8, memory_gib=32, gpus=1, workers_per_machine=8),
)
"""Those of every installation, unless it defines others of the same names. `gpu-8x2` is two machines of eight GPUs."""


@dataclass(frozen=True)
class Profiles:
    """The profiles of an installation."""

    by_name: Mapping[str, Profile]
    default: str = CPU_SMALL.name

    @classmethod
    def of(cls, further: Iterable[Profile] = (), default: str = CPU_SMALL.name) -> Profiles:
        """The built-in profiles and further ones, which come in the place of those of the same names.

        Raises:
            ValueError: there is no profile of the default's name.
        """
        by_name = {profile.name: profile for profile in (*BUILT_IN, *further)}
        if default not in by_name:
            raise ValueError(f"there is no profile {default!r} to be the default: there are {', '.join(by_name)}")
        return cls(by_name, default)

    def find(self, name: str) -> Profile | None:
        """The profile of that name; the default one for an empty name."""
        return self.by_name.get(name or self.default)


def resized(profile: Profile, workers: int | None, environments: int | None) -> Profile:
    """A profile with other numbers of workers and environments where they are given."""
    return replace(
        profile,
        workers=profile.workers if workers is None else workers,
        environments=profile.environments if environments is None else environments,
    )


def with_fewer(compute: Profile, workers: int) -> Profile:
    """The same with so many workers, if that is fewer; 0 is all. No more of them share a machine than otherwise."""
    if not 0 < workers < compute.workers:
        return compute
    return replace(compute, workers=workers, workers_per_machine=compute.shared_by)
