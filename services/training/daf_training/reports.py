"""What a worker's report says, checked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from daf_protos.training.v1.training_job_pb2 import Checkpoint
from daf_training.jobs import Report


@dataclass(frozen=True)
class WorkerReport:
    """A report with its sender."""

    job_id: str
    attempt: int
    token: str = field(repr=False)
    report: Report
    """What changes the job, but for its checkpoints."""
    checkpoints: Sequence[Checkpoint] = ()
    """By rising update."""
    log: str = ""
    resumed_update: int | None = None
    """The update of the checkpoint that the attempt went on from, in the report that says so."""
