"""Hyperparameter sweeps."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from daf.client import Client
from daf.config import DAFConfig, DAFSweepConfig
from daf.connection import given_or_connected
from daf.convert import sweep_spec
from daf.follow import SweepView, follow_sweep, read_sweep
from daf.resources import Resources
from daf.results import (
    BaselineScore,
    Hyperparameters,
    ScoreResult,
    SweepResult,
    SweepTrialResult,
    best_hyperparameters,
    sweep_result,
)
from daf.run_ids import new_id
from daf.space import daf_grid_search, daf_random_search
from daf_common.errors import DafError
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.scheduler.v1.scheduler_service_pb2 import CreateSweepRequest
from daf_protos.scheduler.v1.sweep_pb2 import Sweep

__all__ = [
    "BaselineScore",
    "Hyperparameters",
    "ScoreResult",
    "SweepFailed",
    "SweepResult",
    "SweepTrialResult",
    "daf_grid_search",
    "daf_launch_sweep",
    "daf_random_search",
    "daf_sweep_best_config",
    "daf_sweep_status",
]

log = logging.getLogger("daf.sweeps")


class SweepFailed(DafError, RuntimeError):
    """A sweep failed or was cancelled. `result` has the trials that there are."""

    exit_code = 1
    default_reason = "SWEEP_FAILED"

    def __init__(self, result: SweepResult) -> None:
        super().__init__(f"{result.name} {result.state}{': ' if result.message else ''}{result.message}")
        self.result = result


def daf_launch_sweep(
    sweep_config: DAFSweepConfig,
    *,
    wait: bool = True,
    client: Client | None = None,
    settings: DAFConfig | None = None,
    on_change: Callable[[SweepView], None] | None = None,
) -> SweepResult:
    """Starts a sweep.

    Args:
        sweep_config: what to search.
        wait: whether to return only when it has ended.
        client: where to run it; if not given, where the context in use says, else on the embedded stack, which is
            started if it does not run.
        settings: limits, and where the results are written as JSON when it has ended.
        on_change: told of every change, and each second.

    Returns:
        What it came to; without `wait`, what there is at once: the name.

    Raises:
        SweepFailed: it ended without a result; a RuntimeError.
        DafError: it cannot be started.
    """
    if settings is not None:
        settings.apply_logging()
        sweep_config = _with_defaults(sweep_config, settings)
    with given_or_connected(client) as connected:
        sweep = create_sweep(connected, sweep_config)
        log.info("started %s", sweep.name)
        view = SweepView(sweep)
        if wait:
            for view in follow_sweep(connected, sweep.name):
                if on_change:
                    on_change(view)
    result = sweep_result(view)
    if wait:
        if settings is not None:
            _save(result, settings.output_dir)
        if view.sweep.state != sweep_pb2.SWEEP_STATE_SUCCEEDED:
            raise SweepFailed(result)
    return result


def create_sweep(client: Client, config: DAFSweepConfig, sweep_id: str = "", validate_only: bool = False) -> Sweep:
    """Uploads what a sweep needs and creates it; sending it again because no answer came creates it once.

    Args:
        client: where.
        config: what to search.
        sweep_id: its id; otherwise its name with something random behind it.
        validate_only: creates nothing.

    Raises:
        DafError: it is refused.
    """
    request = CreateSweepRequest(
        request_id=uuid.uuid4().hex,
        sweep_id=sweep_id or new_id(config.name),
        spec=sweep_spec(config, Resources(client)),
        validate_only=validate_only,
    )
    return client.scheduler.CreateSweep(request).sweep


def daf_sweep_best_config(sweep_result: SweepResult) -> Hyperparameters:
    """The settings of the best trial: a mapping, with the attribute `hyperparameters` too.

    Raises:
        NotFound: no trial has a score.
    """
    return best_hyperparameters(sweep_result)


def daf_sweep_status(results_path: str | Path, *, client: Client | None = None) -> dict[str, Any]:
    """How a sweep is, from a file that `SweepResult.save_json` wrote, or by its name `sweeps/...` from the service.

    Raises:
        FileNotFoundError: there is no such file.
        NotFound: there is no such sweep.
    """
    if isinstance(results_path, str) and results_path.startswith("sweeps/"):
        with given_or_connected(client) as connected:
            result = sweep_result(read_sweep(connected, results_path))
    else:
        result = SweepResult.load_json(results_path)
    best = result.get_best_trial()
    return {
        "name": result.name,
        "state": result.state,
        "total_trials": len(result.trials),
        "successful_trials": sum(trial.success for trial in result.trials),
        "failed_trials": sum(trial.state in ("failed", "infeasible", "pruned") for trial in result.trials),
        "best_trial": best.trial_id if best else None,
        "best_metric": best.primary_metric if best else None,
        "best_hyperparameters": dict(best.hyperparameters) if best else None,
    }


def _with_defaults(config: DAFSweepConfig, settings: DAFConfig) -> DAFSweepConfig:
    config = config.model_copy(deep=True)
    if config.max_parallel_jobs is None:
        config.max_parallel_jobs = settings.max_parallel_jobs
    if config.training.max_checkpoints is None:
        config.training.max_checkpoints = settings.max_checkpoints_to_keep
    return config


def _save(result: SweepResult, output_dir: Path) -> None:
    session = datetime.now().strftime("%Y%m%d_%H%M%S")
    path = output_dir / "sweeps" / session / f"{result.name.rpartition('/')[2]}.json"
    result.save_json(path)
    log.info("wrote %s", path)
