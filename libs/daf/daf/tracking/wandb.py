"""Weights & Biases: a run in a project; offline where `WANDB_MODE=offline` says so."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import wandb
from wandb.errors import Error

from daf.tracking.destinations import TrackingFailed
from daf.tracking.run import Point, TrackedRun

_SETTINGS = {
    "console": "off",  # what this process prints is not what the run printed
    "disable_git": True,
    "x_disable_stats": True,  # nor is its machine the run's
    "x_disable_meta": True,
    "silent": True,
}
_EXIT_CODES = {"failed": 1, "cancelled": 255}


class WeightsAndBiases:
    """Writes the history of a run with agent steps as its steps, which only rise: earlier ones are there already.

    Points cannot be taken back. So a run belongs to the attempt during which it was begun, and a job that resumed gets
    another one, whole, in the same group.
    """

    def __init__(self, project: str) -> None:
        entity, _, self._project = project.rpartition("/")
        self._entity = entity or None
        self._run: wandb.Run | None = None
        self._next_step = 0
        self.name = f"Weights & Biases, {project}"

    def open(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """See `Destination`."""
        if self._run is not None:
            self._run.finish()
        identifier = f"{run.identity}-a{run.attempt}"
        try:
            self._run = wandb.init(
                entity=self._entity,
                project=self._project,
                id=identifier,
                name=run.job,
                group=run.identity,
                job_type="training",
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(**_SETTINGS),
            )
        except (Error, OSError) as error:
            raise TrackingFailed(f"{self.name}: {str(error).splitlines()[0]}") from error
        if self._run.offline:
            _delete_earlier(Path(self._run.dir).parent, identifier)
        self._next_step = self._run.step
        self.add(points)

    def add(self, points: Sequence[Point]) -> None:
        """See `Destination`."""
        assert self._run is not None, "not open"
        for point in points:
            if point.agent_steps >= self._next_step:
                values = {**point.values, "update": point.update, "_timestamp": point.time_ms / 1000}
                self._run.log(values, step=point.agent_steps, commit=True)
                self._next_step = point.agent_steps + 1

    def describe(self, run: TrackedRun) -> None:
        """See `Destination`."""
        assert self._run is not None, "not open"
        self._run.config.update({**run.parameters, **run.tags}, allow_val_change=True)  # type: ignore[no-untyped-call]

    def close(self, run: TrackedRun) -> None:
        """See `Destination`."""
        if self._run is None:
            return
        self._run.summary["state"] = run.state
        if run.best_value is not None:
            self._run.summary[f"best/{run.best_metric}"] = run.best_value
        self._run.finish(exit_code=_EXIT_CODES.get(run.state, 0))
        self._run = None


def _delete_earlier(directory: Path, identifier: str) -> None:
    """Deletes what earlier exports wrote offline of the same run, of which this one holds all."""
    for earlier in directory.parent.glob(f"offline-run-*-{identifier}"):
        if earlier.resolve() != directory.resolve():
            shutil.rmtree(earlier, ignore_errors=True)
