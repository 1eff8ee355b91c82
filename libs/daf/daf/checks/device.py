"""GPUs, CUDA and NCCL, and the device that training would use."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from daf.checks.probe import NO_RUNNER, ProbeError, ask, has_runner
from daf.checks.result import EnvironmentCheckResult

NO_GPU = "there is no GPU: training uses the CPU"


def daf_check_cuda_availability(console: Console | None = None) -> EnvironmentCheckResult:
    """Looks for GPUs with the Python that runs workers here, and uses each for an instant. Takes seconds: torch is
    imported, in a process of its own.

    Args:
        console: where the result is printed, if anywhere.
    """
    result = EnvironmentCheckResult()
    if not has_runner():
        result.add_warning("cuda", NO_RUNNER)
    else:
        try:
            _judge(ask("device"), result)
        except ProbeError as error:
            result.add_error("cuda", str(error))
    if console is not None:
        console.print(result.summary(), markup=False, highlight=False)
    return result


daf_check_cuda = daf_check_cuda_availability
"""Another name of `daf_check_cuda_availability`."""


def daf_check_nccl() -> EnvironmentCheckResult:
    """Tries NCCL, by which workers on GPUs exchange gradients, with one process on the first GPU. Takes seconds."""
    result = EnvironmentCheckResult()
    if not has_runner():
        result.add_warning("nccl", NO_RUNNER)
        return result
    try:
        if ask("device")["recommended"] != "cuda":
            result.add_warning("nccl", f"not tried: {NO_GPU}, where workers exchange gradients by gloo")
        elif (answer := ask("nccl"))["works"]:
            result.add_check("nccl", True, info=f"{answer['version']} works")
        else:
            result.add_error("nccl", f"{answer['version']} came to a wrong sum")
    except ProbeError as error:
        result.add_error("nccl", str(error))
    return result


def daf_get_recommended_device() -> str:
    """What `cogames.device` chooses here, by the name that torch has for it: `cuda`, `mps` or `cpu`.

    Raises:
        RuntimeError: no runner is installed here, or it does not work.
    """
    if not has_runner():
        raise ProbeError(NO_RUNNER)
    return str(ask("device")["recommended"])


def _judge(found: dict[str, Any], result: EnvironmentCheckResult) -> None:
    torch = f"torch {found['torch']}"
    if gpus := found["gpus"]:
        shown = ", ".join(
            f"{gpu['name']} ({_gib(gpu['free_bytes'])} of {_gib(gpu['memory_bytes'])} free)" for gpu in gpus
        )
        result.add_check("cuda", True, info=f"CUDA {found['cuda']}, {torch}: {shown}")
    elif found["cuda"]:
        result.add_warning("cuda", f"{NO_GPU} ({torch} is made for CUDA {found['cuda']})")
    else:
        result.add_warning("cuda", f"{NO_GPU} ({torch} is made without CUDA)")
    if gpus and found["nccl"] is None:
        result.add_error("nccl", f"{torch} is made without it: several workers on GPUs cannot exchange gradients")
    result.add_check("device", True, info=f"{found['recommended']} is recommended")


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
