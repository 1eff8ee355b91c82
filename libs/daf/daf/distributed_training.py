"""Training on many workers: `cogames.train.train()` as jobs of the training service."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from daf.client import Client
from daf.config import DAFConfig, DAFTrainingConfig
from daf.connection import given_or_connected
from daf.documents import Scalar
from daf.references import MissionConfig
from daf.tracking import Tracking, exported_live
from daf.training_cluster import TrainingCluster, daf_create_training_cluster
from daf.training_documents import training_document
from daf.training_jobs import create_training_job, read_training_job, training_job_name
from daf.training_results import DistributedTrainingResult, TrainingFailed
from daf.training_status import daf_get_training_status
from daf_common.errors import InvalidArgument
from daf_protos.statistics.v1.statistics_service_pb2 import ReadMetricsRequest
from daf_protos.training.v1.training_job_pb2 import TrainingJob

__all__ = [
    "DistributedTrainingResult",
    "TrainingCluster",
    "TrainingFailed",
    "daf_aggregate_training_stats",
    "daf_collect_training_results",
    "daf_create_training_cluster",
    "daf_get_training_status",
    "daf_launch_distributed_training",
    "daf_monitor_training_job",
]

log = logging.getLogger("daf.distributed_training")

CHECKPOINTS_PATH = "train_dir"
"""Where CoGames puts and looks for checkpoints, too."""

_AGGREGATIONS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "min": min,
    "max": max,
    "sum": math.fsum,
}


def daf_launch_distributed_training(
    env_cfg: Any = None,
    policy_class_path: str = "",
    device: Any = None,
    initial_weights_path: str | Path | None = None,
    num_steps: int | None = None,
    checkpoints_path: str | Path | None = CHECKPOINTS_PATH,
    *,
    missions: Sequence[str | Mapping[str, Any] | MissionConfig | tuple[str, Any]] = (),
    config: DAFTrainingConfig | str | Path | None = None,
    num_workers: int | None = None,
    num_machines: int | None = None,
    cluster: TrainingCluster | None = None,
    hyperparameters: Mapping[str, Scalar] | None = None,
    code: Sequence[str | Path] = (),
    seed: int | None = None,
    wait: bool = True,
    client: Client | None = None,
    settings: DAFConfig | None = None,
    on_change: Callable[[TrainingJob], None] | None = None,
) -> DistributedTrainingResult:
    """Trains a policy on one worker or many.

    The first arguments are those of `cogames.train.train()`; what is given replaces what `config` says.

    Args:
        env_cfg: a `MettaGridConfig`, in place of missions. It travels pickled, and only workers open it: they need the
            same version of mettagrid.
        policy_class_path: short name or class path of the policy.
        device: `cpu`, `cuda`, `auto` or a `torch.device`. `cuda` asks for the profile `gpu-1` where none is named; the
            others leave it to the profile.
        initial_weights_path: weights to start from: a file, or `job/NAME/checkpoints/best`.
        num_steps: length of the run in agent steps, over all workers.
        checkpoints_path: where the final checkpoint is brought when the run has ended; None leaves it where it is.
        missions: by name, with changes: `{"mission": ..., "cogs": 4}`, by a file, or as pairs of a name and a
            `MettaGridConfig`.
        config: the run as a document, or the file of one.
        num_workers: data-parallel workers.
        num_machines: the same for who counts machines: one worker on each.
        cluster: the same, as `daf_create_training_cluster` returned it.
        hyperparameters: by name: `learning_rate`, `trainer.gamma`, `policy.hidden_size`.
        code: files and folders of the user's own code.
        seed: of weights, actions, minibatches and maps.
        wait: whether to return only when it has ended.
        client: where to run it; if not given, where the context in use says, else on the embedded stack, which is
            started if it does not run.
        settings: limits, for what neither the arguments nor the document say.
        on_change: told twice a second how the job is.

    Returns:
        What it came to; without `wait`, what there is at once: see `wait_for_completion`.

    Raises:
        TrainingFailed: it ended without a result; a RuntimeError.
        DafError: it cannot be started.
        ValueError: an argument cannot be used.
    """
    document = training_document(
        config,
        env_cfg=env_cfg,
        missions=missions,
        policy=policy_class_path,
        device=device,
        start=initial_weights_path,
        agent_steps=num_steps,
        workers=_workers(num_workers, num_machines, cluster),
        profile=cluster.profile if cluster else "",
        hyperparameters=hyperparameters or {},
        code=code,
        seed=seed,
    )
    if settings is not None:
        settings.apply_logging()
        if document.training.max_checkpoints is None:
            document.training.max_checkpoints = settings.max_checkpoints_to_keep
    client = client or (cluster.client if cluster else None)
    path = Path(checkpoints_path).absolute() if checkpoints_path is not None else None
    destinations = Tracking.of(document).destinations() if wait else []
    with given_or_connected(client) as connected:
        job = create_training_job(connected, document)
        log.info("started %s", job.name)
        result = DistributedTrainingResult(job.name, checkpoints_path=path, client=connected)
        if wait:
            with exported_live(connected, job.name, destinations):
                result.wait_for_completion(on_change=on_change)
    result.client = client  # one that was opened here is closed by now
    return result


def daf_aggregate_training_stats(
    worker_stats: Sequence[Mapping[str, float]] | Mapping[Any, Mapping[str, float]] | DistributedTrainingResult,
    aggregation_method: str = "mean",
) -> dict[str, float]:
    """One number for each statistic of several workers.

    Args:
        worker_stats: the statistics of each worker, or of each by its rank, or a result with them.
        aggregation_method: `mean`, `median`, `min`, `max` or `sum`, over the workers that have the statistic.

    Returns:
        By name; NaN where a worker's value is. Without `rank`, which is a name and no number.

    Raises:
        InvalidArgument: there is no such method.
    """
    if aggregation_method not in _AGGREGATIONS:
        known = ", ".join(_AGGREGATIONS)
        raise InvalidArgument.field("aggregation_method", f"{aggregation_method[:80]!r} is not one of {known}")
    aggregate = _AGGREGATIONS[aggregation_method]
    given = worker_stats.worker_stats if isinstance(worker_stats, DistributedTrainingResult) else worker_stats
    workers = list(given.values()) if isinstance(given, Mapping) else list(given)
    names = sorted({name for worker in workers for name in worker} - {"rank"})
    values = {name: [float(worker[name]) for worker in workers if name in worker] for name in names}
    return {name: math.nan if any(map(math.isnan, of)) else aggregate(of) for name, of in values.items()}


def daf_monitor_training_job(
    job: str | DistributedTrainingResult,
    on_change: Callable[[TrainingJob], None] | None = None,
    *,
    timeout_seconds: float | None = None,
    client: Client | None = None,
) -> DistributedTrainingResult:
    """Follows a training run to its end.

    Args:
        job: its name, or what launched it returned.
        on_change: told twice a second how the job is; `job.progress` has the numbers.
        timeout_seconds: how long at most; the run itself is not stopped.
        client: where the job is; otherwise where the context in use says.

    Raises:
        TrainingFailed: it failed or was cancelled.
        DeadlineExceeded: it has not ended in this time.
        NotFound: there is no such job.
    """
    result = job if isinstance(job, DistributedTrainingResult) else DistributedTrainingResult(training_job_name(job))
    result.client = client or result.client
    result.wait_for_completion(timeout_seconds, on_change)
    return result


def daf_collect_training_results(
    job: str | DistributedTrainingResult,
    checkpoints_path: str | Path | None = None,
    *,
    client: Client | None = None,
) -> DistributedTrainingResult:
    """What a training run has come to so far, with its metrics; waits for nothing.

    Args:
        job: its name, or what launched it returned.
        checkpoints_path: where the final checkpoint is brought, if the run has ended well.
        client: where the job is; otherwise where the context in use says.

    Raises:
        NotFound: there is no such job.
    """
    result = job if isinstance(job, DistributedTrainingResult) else DistributedTrainingResult(training_job_name(job))
    result.client = client or result.client
    if checkpoints_path is not None:
        result.checkpoints_path = Path(checkpoints_path).absolute()
    with given_or_connected(result.client) as connected:
        result.refresh(connected, read_training_job(connected, result.name))
        series = connected.statistics.ReadMetrics(ReadMetricsRequest(source=result.name)).series
    result.metrics = {one.metric: list(zip(one.agent_steps, one.values, strict=True)) for one in series}
    return result


def _workers(num_workers: int | None, num_machines: int | None, cluster: TrainingCluster | None) -> int | None:
    """How many workers arguments ask for that say it in several ways."""
    given = {
        "num_workers": num_workers,
        "num_machines": num_machines,
        "cluster": cluster.num_workers if cluster else None,
    }
    counts = {name: count for name, count in given.items() if count is not None}
    for name, count in counts.items():
        if count < 1:
            raise InvalidArgument.field(name, f"must be at least 1, not {count}")
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InvalidArgument.field("num_workers", f"is said twice, and not the same: {said}")
    return next(iter(counts.values()), None)
