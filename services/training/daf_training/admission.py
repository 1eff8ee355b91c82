"""Which waiting jobs may start: in strict order, and never more than there is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from daf_training.profiles import Resources

_ROUNDING = 1e-6
"""GiB by which sums of memory may differ from what they should be."""


@dataclass(frozen=True)
class Capacity:
    """What an installation has for training. None: no limit, since something else admits jobs, as Kubernetes may."""

    cpus: int | None
    memory_gib: float | None
    gpus: int | None


@dataclass(frozen=True)
class Holding:
    """What a job that has started holds until its end."""

    resources: Resources
    gpus: tuple[int, ...] = ()
    """Which GPUs, by their numbers from 0; none where they are not counted."""


@dataclass(frozen=True)
class Waiting:
    """A job in the queue."""

    id: str
    each: Resources
    """What each of its workers needs."""
    workers: int = 1
    min_workers: int = 0
    """With how many it makes do; 0: with no fewer."""

    @property
    def least(self) -> Resources:
        """What as many need as it makes do with."""
        return self.each.times(min(self.min_workers or self.workers, self.workers))


@dataclass(frozen=True)
class Granted:
    """A job may start."""

    gpus: tuple[int, ...] = ()
    """The GPUs that it gets, by their numbers from 0."""
    workers: int = 0
    """With how many workers; 0: with all."""


@dataclass(frozen=True)
class Held:
    """A job has to wait."""

    waiting_for: str
    """For what, in words."""


def admit(queue: Sequence[Waiting], held: Iterable[Holding], capacity: Capacity) -> Mapping[str, Granted | Held]:
    """What the waiting jobs get, the first in the queue first: one that does not fit now blocks those behind it.

    One that makes do with fewer workers gets as many as fit. A job that would not fit if it were alone, since the
    installation has become smaller, blocks nobody.
    """
    taken = list(held)
    blocked_by = ""
    answers: dict[str, Granted | Held] = {}
    for job in queue:
        if beyond := never_fits(job.least, capacity):
            answers[job.id] = Held(beyond)
            continue
        lacking = behind(blocked_by) if blocked_by else _lacking(job.least, taken, capacity)
        if lacking:
            answers[job.id] = Held(lacking)
            blocked_by = job.id
        else:
            workers = _most_workers(job, taken, capacity)
            needs = job.each.times(workers)
            gpus = _free_gpus(taken, capacity)[: needs.gpus]
            answers[job.id] = Granted(gpus, workers if workers < job.workers else 0)
            taken.append(Holding(needs, gpus))
    return answers


def _most_workers(job: Waiting, taken: Sequence[Holding], capacity: Capacity) -> int:
    """With how many workers a job fits now that fits with the fewest."""
    numbers = range(job.workers, 0, -1)
    return next(number for number in numbers if not _lacking(job.each.times(number), taken, capacity))


def behind(job_id: str) -> str:
    """What a job waits for that is not the first."""
    return f"{job_id}, which is before it"


def never_fits(needs: Resources, capacity: Capacity) -> str:
    """What there is too little of, in words, even if nothing else ran; empty if there is enough."""
    return ", ".join(
        f"{_count(need, noun)}, but there {_are(all_)} only {all_:g}"
        for noun, need, _, all_ in _compare(needs, (), capacity)
        if need > all_ + _ROUNDING
    )


def _lacking(needs: Resources, taken: Sequence[Holding], capacity: Capacity) -> str:
    return ", ".join(
        f"{_count(need, noun)}: {max(free, 0):g} of {all_:g} {_are(max(free, 0))} free"
        for noun, need, free, all_ in _compare(needs, taken, capacity)
        if need > free + _ROUNDING
    )


def _compare(
    needs: Resources, taken: Sequence[Holding], capacity: Capacity
) -> Iterator[tuple[str, float, float, float]]:
    """Of each kind that is limited: its name, how much is needed, how much is free and how much there is."""
    for noun, field in (("CPU", "cpus"), ("GiB of memory", "memory_gib"), ("GPU", "gpus")):
        all_ = getattr(capacity, field)
        if all_ is not None:
            free = all_ - sum(getattr(holding.resources, field) for holding in taken)
            yield noun, getattr(needs, field), round(free, 6), all_


def _free_gpus(taken: Sequence[Holding], capacity: Capacity) -> tuple[int, ...]:
    used = {gpu for holding in taken for gpu in holding.gpus}
    return tuple(gpu for gpu in range(capacity.gpus or 0) if gpu not in used)


def _count(amount: float, noun: str) -> str:
    return f"{amount:g} {noun}{'' if amount == 1 or ' ' in noun else 's'}"


def _are(amount: float) -> str:
    return "is" if amount == 1 else "are"
