"""Memory of this machine, against the environments of a run."""

from __future__ import annotations

from daf.checks.planned_run import PlannedRun
from daf.checks.probe import NO_RUNNER, ProbeError, ask, has_runner
from daf.checks.result import EnvironmentCheckResult

WORKER_MIB, ENVIRONMENT_MIB = 900.0, 6.5
"""Peak memory of a worker on CPUs without its environments, and of each environment. Measured by `python -m benchmarks
environment_memory` on x86-64 with cogames 0.18.0 and torch 2.9.0, lines through the peaks of four missions with two
policies and 4 to 64 environments of 4 or 8 agents: 728 to 778 MiB, and 2.7 to 6.5 MiB an environment, after one update;
over 200,000 agent steps a worker grew by 50 to 75 MiB, and by 3 MiB in each further 100,000."""
MIN_FREE_MIB = 2048.0
"""What has to be free where no run says what it needs: one worker of the smallest profile."""


def daf_check_memory(*, run: PlannedRun | None = None) -> EnvironmentCheckResult:
    """Looks at the memory that this machine or container has.

    Args:
        run: what will run; its workers with their environments have to fit. That they do not fit beside what runs now
            is a warning, since that may end.
    """
    result = EnvironmentCheckResult()
    if not has_runner():
        result.add_warning("memory", NO_RUNNER)
        return result
    try:
        found = ask("machine")
    except ProbeError as error:
        result.add_error("memory", str(error))
        return result
    total, available = found["memory_bytes"] / 2**20, found["available_bytes"] / 2**20
    has = f"{_gib(available)} of {_gib(total)} are free"
    needed, reckoned = MIN_FREE_MIB, f"a training worker of the smallest profile has {_gib(MIN_FREE_MIB)}"
    if run is not None:
        if run.environments is None or run.workers is None:
            profile = run.document.training.profile
            result.add_warning("memory", f"{has}; how many environments profile {profile!r} has is not known here")
            return result
        workers = run.jobs_at_once * run.workers
        needed = workers * (WORKER_MIB + run.environments * ENVIRONMENT_MIB)
        reckoned = (
            f"the run takes about {_gib(needed)}: {workers} worker{'s' if workers > 1 else ''} at a time with "
            f"{run.environments} environments each ({WORKER_MIB:.0f} MiB, and {ENVIRONMENT_MIB:g} MiB an environment)"
        )
    if needed > total:
        result.add_error("memory", f"{_gib(total)} are too few: {reckoned}")
    elif needed > available:
        result.add_warning("memory", f"only {has}: {reckoned}")
    else:
        result.add_check("memory", True, info=f"{has}; {reckoned}" if run else has)
    return result


def _gib(mebibytes: float) -> str:
    return f"{mebibytes / 1024:.1f} GiB"
