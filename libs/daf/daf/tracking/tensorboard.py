"""TensorBoard: event files, one directory a job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from daf.tracking.destinations import TrackingFailed
from daf.tracking.run import Point, TrackedRun

_SUFFIX = ".daf"
"""Ends the names of files that are written here, and no others are deleted."""


class TensorBoard:
    """Writes `DIRECTORY/JOB/events.out.tfevents.*`. A new export takes the place of an earlier one of the same job."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: SummaryWriter | None = None
        self.name = f"TensorBoard, {directory}"

    def open(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """See `Destination`."""
        if self._writer is not None:
            self._writer.close()
        directory = self._directory / run.job
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for earlier in directory.glob(f"events.out.tfevents.*{_SUFFIX}"):
                earlier.unlink()
            self._writer = SummaryWriter(str(directory), filename_suffix=_SUFFIX)
        except OSError as error:
            raise TrackingFailed(f"{self.name}: {error.strerror}") from error
        self.add(points)

    def add(self, points: Sequence[Point]) -> None:
        """See `Destination`."""
        assert self._writer is not None, "not open"
        for point in points:
            for metric, value in point.values.items():
                self._writer.add_scalar(metric, value, point.agent_steps, walltime=point.time_ms / 1000)
        self._writer.flush()

    def describe(self, run: TrackedRun) -> None:
        """Hyperparameters are written once, when the export ends."""

    def close(self, run: TrackedRun) -> None:
        """See `Destination`."""
        if self._writer is None:
            return
        best = {run.best_metric: run.best_value} if run.best_value is not None else {run.best_metric: math.nan}
        for summary in hparams(dict(run.parameters), best):
            self._writer.file_writer.add_summary(summary)
        self._writer.close()
        self._writer = None
