"""The processes that train one policy together: each has its own environments, all have the same weights."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

# What gloo, which has no error class of its own, says of connections; most messages name the file they come from.
_LOST_CONNECTION = re.compile(
    r"gloo.*(closed by peer|reset by peer|time(d )?out|broken pipe|connection refused|no route to host)"
    r"|timeout caused pair closure|connectFullMesh failed",
    re.IGNORECASE | re.DOTALL,
)


class PeerLost(RuntimeError):
    """Another rank has gone, or does not answer. Nothing is wrong with this one; why the other went, it says itself."""


@dataclass(frozen=True)
class World:
    """Which of the processes this one is.

    rank: its number among all, from 0; size: how many there are; local_rank: its number among those of this machine,
    which is also the number of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> World:
        """What torchrun tells each of the processes that it starts; without it, this process is alone."""
        rank, size = int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
        return cls(rank, size, int(environment.get("LOCAL_RANK", 0)))

    @contextlib.contextmanager
    def connected(self, device: torch.device, timeout_seconds: float) -> Iterator[None]:
        """Join the others, who meet where MASTER_ADDR and MASTER_PORT say, for as long as this lasts.

        An error in here closes the connections at once, so that the others do not wait for this rank. Raises PeerLost
        if they do not come, go, or keep this rank waiting for longer than `timeout_seconds`.
        """
        if self.size == 1:
            yield
            return
        try:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=timeout_seconds),
            )
            try:
                yield
            finally:
                dist.destroy_process_group()
        except RuntimeError as error:
            if _is_lost_connection(error):
                raise PeerLost(f"rank {self.rank} lost another of the {self.size} ranks: {error}") from error
            raise

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over all ranks, on every rank."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    def gather[T](self, value: T) -> list[T] | None:
        """The values of all ranks by rank, on rank 0; None on the others."""
        if self.size == 1:
            return [value]
        values: list[T] | None = [value] * self.size if self.rank == 0 else None
        dist.gather_object(value, values)
        return values

    def broadcast[T](self, value: T) -> T:
        """The value of rank 0, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.size > 1:
            dist.barrier()


def _is_lost_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or _LOST_CONNECTION.search(str(error)) is not None
