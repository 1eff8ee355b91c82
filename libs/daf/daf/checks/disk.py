"""Free space, against the checkpoints that a run will write."""

from __future__ import annotations

import shutil
from pathlib import Path

from daf.checks.planned_run import PlannedRun
from daf.checks.probe import NO_RUNNER, ProbeError, has_runner
from daf.checks.result import EnvironmentCheckResult
from daf_common.errors import DafError

MIN_FREE_GB = 10.0
RESERVE_BYTES = 10**9
"""What has to stay free beside the checkpoints: databases, logs, downloads."""


def daf_check_disk_space(
    checkpoint_dir: str | Path, min_available_gb: float = MIN_FREE_GB, *, run: PlannedRun | None = None
) -> EnvironmentCheckResult:
    """Looks for free space where a directory is or would be.

    Args:
        checkpoint_dir: the directory.
        min_available_gb: what has to be free, in units of 10^9 bytes, where no run says what it needs.
        run: what will be written; its checkpoints and a gigabyte have to fit. Takes seconds: the policy is built.
    """
    result = EnvironmentCheckResult()
    directory = Path(checkpoint_dir).expanduser().absolute()
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    found = f"{_size(free)} free at {directory}"
    if run is not None:
        try:
            return _for_run(run, free, found)
        except (ProbeError, DafError) as error:
            result.add_warning("checkpoints", f"their size is not known: {error}")
    if free >= min_available_gb * 1e9:
        result.add_check("disk", True, info=found)
    else:
        result.add_error("disk", f"{found}, less than {min_available_gb:g} GB")
    return result


def _for_run(run: PlannedRun, free: int, found: str) -> EnvironmentCheckResult:
    if not has_runner():
        raise ProbeError(NO_RUNNER)
    if not run.knows_its_code:
        raise ProbeError("the policy's code is in the artifact store, not here")
    size = run.checkpoint_bytes()
    needed = run.most_checkpoints * size
    reckoned = (
        f"the checkpoints take at most {_size(needed)}: {run.most_checkpoints} of {_size(size)} "
        f"(weights and optimizer), {run.checkpoints} kept of {_jobs(run.jobs)} and {run.jobs_at_once} being written"
    )
    result = EnvironmentCheckResult()
    if free >= needed + RESERVE_BYTES:
        result.add_check("disk", True, info=f"{found}; {reckoned}")
    else:
        result.add_error("disk", f"{found} is not enough: {reckoned}, and {_size(RESERVE_BYTES)} has to stay free")
    return result


def _jobs(count: int) -> str:
    return "one job" if count == 1 else f"each of {count} jobs"


def _size(size: float) -> str:
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.3g} {unit}"
    return f"{size:.0f} bytes"
