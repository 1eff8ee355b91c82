"""Pictures of results, drawn by the statistics service."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from daf.checkpoints import LINEAGE
from daf.client import Client
from daf.connection import given_or_connected
from daf_common.errors import InvalidArgument
from daf_protos.statistics.v1.statistics_service_pb2 import PlotMetricsRequest

__all__ = ["daf_plot_training_curves"]

_JOBS = "trainingJobs"
_DRAWING_SECONDS = 120.0
_SIZE_FIELD = slice(16, 24)  # of a PNG's first chunk: width and height in pixels, 32 bits each


class Named(Protocol):
    """What has the name of a training job: the job itself, or what launching it returned."""

    @property
    def name(self) -> str:
        """`trainingJobs/{job}`."""


type Source = str | os.PathLike[str] | Named


def daf_plot_training_curves(
    checkpoint_dir: Source | list[Source] | tuple[Source, ...],
    output_dir: str | Path = "training_plots",
    *,
    output: str | Path | None = None,
    metrics: Sequence[str] = (),
    title: str = "",
    client: Client | None = None,
) -> Path:
    """Draws how training went over its agent steps, as a PNG: reward per agent, losses, learning rate and speed, each
    in a panel of its own, with one line for each job. Points are what was reported; lines are smoothed by a Gaussian
    window whose standard deviation is 3 % of the longest run.

    Args:
        checkpoint_dir: a job, or several: by name or id, as what launched it returned, or as the directory of a
            checkpoint that was brought here.
        output_dir: where the picture is written, under the id of the first job.
        output: the file to write in place of that.
        metrics: the metrics to draw, for example `env/reward_per_agent`; otherwise those that matter in training.
        title: above the picture; otherwise the name of the job.
        client: where the jobs are; otherwise the context in use says it.

    Returns:
        The file.

    Raises:
        InvalidArgument: no job is named, a directory is not one of a checkpoint, or a metric is not known, in which
            case those that are known are listed.
        NotFound: no metrics of a job are recorded.
    """
    sources = checkpoint_dir if isinstance(checkpoint_dir, list | tuple) else [checkpoint_dir]
    jobs = [job_name(source) for source in sources]
    if not jobs:
        raise InvalidArgument.field("checkpoint_dir", "names no job")
    path = Path(output) if output is not None else Path(output_dir) / f"{jobs[0].partition('/')[2]}.png"
    with given_or_connected(client) as connected:
        write_plot(connected, jobs, path, metrics, title)
    return path


def write_plot(
    client: Client, sources: Sequence[str], path: Path, metrics: Sequence[str] = (), title: str = ""
) -> tuple[int, int]:
    """Writes a picture of metric series.

    Args:
        client: where they are.
        sources: resource names of what was measured.
        path: the file; its directory is made.
        metrics: the metrics to draw; otherwise those that matter in training.
        title: above the picture.

    Returns:
        Its width and height in pixels.

    Raises:
        InvalidArgument: a metric is not known; lists those that are.
        NotFound: no metrics of a source are recorded.
    """
    request = PlotMetricsRequest(sources=sources, metrics=metrics, title=title)
    png = client.statistics.PlotMetrics(request, timeout=_DRAWING_SECONDS).png
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png)
    size = png[_SIZE_FIELD]
    return int.from_bytes(size[:4]), int.from_bytes(size[4:])


def job_name(source: Source) -> str:
    """The resource name of the training job that a source means.

    Raises:
        InvalidArgument: it is a directory, but not of a checkpoint.
    """
    if not isinstance(source, str | os.PathLike):
        return source.name
    directory = Path(source)
    if directory.is_dir():
        try:
            return str(json.loads((directory / LINEAGE).read_text(encoding="utf-8"))["training_job"])
        except (OSError, ValueError, KeyError, TypeError):
            message = f"{directory} is not the directory of a checkpoint, as `daf job checkpoints get` makes it"
            raise InvalidArgument.field("checkpoint_dir", message) from None
    return f"{_JOBS}/{os.fspath(source).removeprefix(f'{_JOBS}/').removeprefix('job/')}"
