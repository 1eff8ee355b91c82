"""Where the metrics of a run go: what all trackers have in common, and how they are opened."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from daf.config import DAFTrainingConfig
from daf.tracking.run import Point, TrackedRun
from daf_common.errors import DafError, FailedPrecondition


class TrackingFailed(DafError):
    """A tracker does not take what it is sent. The training itself is not touched."""

    code = "UNAVAILABLE"
    exit_code = 1
    default_reason = "TRACKING_FAILED"


class Destination(Protocol):
    """One tracker. Its methods raise TrackingFailed."""

    name: str
    """What messages call it, without secrets."""

    def open(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """Begins the run of a job, or goes on with it, and sends what it lacks of these points, which are all.

        What it has beyond them was taken back by the job, which went on from an earlier checkpoint: such a run is
        written anew. May be called again, when that happens while a job is followed.
        """

    def add(self, points: Sequence[Point]) -> None:
        """Sends later points."""

    def describe(self, run: TrackedRun) -> None:
        """Sends parameters and tags, as far as they are known now."""

    def close(self, run: TrackedRun) -> None:
        """Ends the export; the run too, if the job has ended."""


@dataclass(frozen=True)
class Tracking:
    """The trackers that a user has chosen.

    tensorboard: a directory, in which each job has one of its own; mlflow: a tracking URI; wandb: a project, perhaps as
    `ENTITY/PROJECT`.
    """

    tensorboard: Path | None = None
    mlflow: str = ""
    wandb: str = ""

    @classmethod
    def of(cls, config: DAFTrainingConfig) -> Tracking:
        """Those that a document names; a directory in it is relative to the document's."""
        chosen = config.tracking
        directory = config.directory / Path(chosen.tensorboard).expanduser() if chosen.tensorboard else None
        return cls(directory, chosen.mlflow or "", chosen.wandb or "")

    def __bool__(self) -> bool:
        return bool(self.tensorboard or self.mlflow or self.wandb)

    def destinations(self) -> list[Destination]:
        """A new destination for each tracker; nothing is sent or written yet.

        Raises:
            FailedPrecondition: the client of a tracker is not installed.
        """
        found: list[Destination] = []
        if self.tensorboard:
            _check_installed("tensorboardX", "tensorboard")
            from daf.tracking.tensorboard import TensorBoard

            found.append(TensorBoard(self.tensorboard))
        if self.mlflow:
            _check_installed("mlflow", "mlflow")
            from daf.tracking.mlflow import MLflow

            found.append(MLflow(self.mlflow))
        if self.wandb:
            _check_installed("wandb", "wandb")
            from daf.tracking.wandb import WeightsAndBiases

            found.append(WeightsAndBiases(self.wandb))
        return found


def _check_installed(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise FailedPrecondition(f"the client of {extra} is not installed: pip install 'daf[{extra}]'")
