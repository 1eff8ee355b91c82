"""Checks before an experiment."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from daf.client import Client
from daf.connection import given_or_connected
from daf.home import home
from daf_common.errors import DafError, FailedPrecondition, InvalidArgument
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_protos.evaluation.v1.evaluation_service_pb2 import CreateEvaluationRequest

MIN_FREE_GB = 10.0
_CLIENT_PACKAGES = ("daf", "daf-common", "daf-protos", "grpcio")
_RUNNER_PACKAGES = ("daf-standalone", "cogames", "mettagrid", "pufferlib-core", "torch")
_ANY_POLICY = Policy(policy_class=PolicyClass(class_path="random"))
_CUDA_SECONDS = 120.0
_CUDA_PROBE = """
import torch
if torch.cuda.is_available():
    print("\\n".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool
    message: str = ""
    warning: bool = False
    """Whether it passed, but should be known."""

    @property
    def mark(self) -> str:
        """`ok`, `note` or `failed`."""
        return "failed" if not self.passed else "note" if self.warning else "ok"


@dataclass
class EnvironmentCheckResult:
    """What all checks came to."""

    checks: list[Check] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """What failed, and what passed but should be known."""
        return [f"{check.name}: {check.message}" for check in self.checks if check.warning or not check.passed]

    def add_check(self, name: str, passed: bool, warning: str | None = None, info: str | None = None) -> None:
        """Records a check, with a warning or with what was found."""
        self.checks.append(Check(name, passed, warning or info or "", warning is not None and passed))

    def add_error(self, name: str, error_msg: str) -> None:
        """Records a check that failed."""
        self.checks.append(Check(name, False, error_msg))

    def is_healthy(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    def summary(self) -> str:
        """One line for each check."""
        return "\n".join(f"{check.mark:<8}{check.name}: {check.message}".rstrip(": ") for check in self.checks)

    def extend(self, other: EnvironmentCheckResult) -> None:
        """Adds the checks of another result."""
        self.checks.extend(other.checks)


def daf_check_environment(
    missions: Sequence[str] = (),
    check_cuda: bool = True,
    check_disk: bool = True,
    *,
    client: Client | None = None,
) -> EnvironmentCheckResult:
    """Looks at everything that an experiment needs, without stopping at the first thing that is missing.

    Args:
        missions: missions that have to be there.
        check_cuda: whether to look for a GPU, which imports torch in a process of its own.
        check_disk: whether to look at the free space.
        client: the installation whose catalogue says which missions there are; otherwise that of the context in use.
    """
    result = daf_check_dependencies()
    if check_disk:
        result.extend(daf_check_disk_space(home()))
    if missions:
        result.extend(daf_check_mission_configs(missions, client=client))
    if check_cuda:
        result.extend(daf_check_cuda_availability())
    return result


def daf_check_dependencies() -> EnvironmentCheckResult:
    """Looks for the packages: those of the client must be here, those of the services and runners may be elsewhere."""
    result = EnvironmentCheckResult()
    result.add_check("python", True, info=platform.python_version())
    for package in (*_CLIENT_PACKAGES, *_RUNNER_PACKAGES):
        try:
            result.add_check(package, True, info=importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            if package in _CLIENT_PACKAGES:
                result.add_error(package, "is not installed")
            else:
                result.add_check(
                    package, True, warning="is not installed: experiments run on another installation only"
                )
    return result


def daf_check_disk_space(checkpoint_dir: str | Path, min_available_gb: float = MIN_FREE_GB) -> EnvironmentCheckResult:
    """Looks for free space where a directory is or would be."""
    result = EnvironmentCheckResult()
    directory = Path(checkpoint_dir).expanduser().absolute()
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free / 1e9
    if free >= min_available_gb:
        result.add_check("disk", True, info=f"{free:.1f} GB free at {directory}")
    else:
        result.add_error("disk", f"{free:.1f} GB free at {directory}, less than {min_available_gb:g} GB")
    return result


def daf_check_mission_configs(missions: Iterable[str], *, client: Client | None = None) -> EnvironmentCheckResult:
    """Asks an installation whether missions are there and build; plays nothing."""
    result = EnvironmentCheckResult()
    try:
        with given_or_connected(client) as connected:
            for name in missions:
                spec = EvaluationSpec(policies=[_ANY_POLICY], missions=[Mission(name=name)], episodes=1)
                try:
                    connected.evaluation.CreateEvaluation(CreateEvaluationRequest(spec=spec, validate_only=True))
                    result.add_check(f"mission {name}", True)
                except (InvalidArgument, FailedPrecondition) as error:
                    messages = [violation.message for violation in error.violations] or [error.message]
                    result.add_error(f"mission {name}", "; ".join(messages))
    except DafError as error:
        result.add_error("missions", error.message)
    return result


def daf_check_cuda_availability() -> EnvironmentCheckResult:
    """Looks for GPUs with the Python that runs workers here, in a process of its own: torch takes seconds to import."""
    result = EnvironmentCheckResult()
    if importlib.util.find_spec("torch") is None:
        result.add_check("cuda", True, warning="torch is not installed here")
        return result
    try:
        command = [sys.executable, "-c", _CUDA_PROBE]
        probe = subprocess.run(command, capture_output=True, text=True, timeout=_CUDA_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        result.add_error("cuda", f"torch did not answer within {_CUDA_SECONDS:.0f} s")
        return result
    if probe.returncode:
        result.add_error("cuda", (probe.stderr.strip().splitlines() or ["torch cannot be imported"])[-1])
    elif devices := probe.stdout.split("\n")[:-1]:
        result.add_check("cuda", True, info=", ".join(devices))
    else:
        result.add_check("cuda", True, warning="there is no GPU: training uses the CPU")
    return result


daf_check_cuda = daf_check_cuda_availability
"""Another name of `daf_check_cuda_availability`."""


def daf_get_recommended_device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    checks = daf_check_cuda_availability().checks
    return "cuda" if all(check.passed and not check.warning for check in checks) else "cpu"
