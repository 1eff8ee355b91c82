"""Missions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from daf.checks.probe import NO_RUNNER, ProbeError, ask, has_runner
from daf.checks.result import EnvironmentCheckResult
from daf.checks.services import services_in_use
from daf.client import Client
from daf.missions import is_file
from daf_common.errors import DafError, FailedPrecondition, InvalidArgument
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_protos.evaluation.v1.evaluation_service_pb2 import CreateEvaluationRequest

_ANY_POLICY = Policy(policy_class=PolicyClass(class_path="random"))


def daf_check_mission_configs(missions: Iterable[str], *, client: Client | None = None) -> EnvironmentCheckResult:
    """Looks whether missions are there and build; plays nothing and starts nothing.

    Args:
        missions: their names, or files with the user's own, which are built by the runner that is installed here.
        client: the installation to ask; otherwise that of the context in use if its services run, else the catalogue
            of the runner that is installed here.
    """
    given = list(dict.fromkeys(missions))
    names = [name for name in given if not is_file(name)]
    result = EnvironmentCheckResult()
    for file in given:
        if is_file(file):
            _build(file, result)
    if not names:
        return result
    try:
        if client is not None:
            _ask_services(client, names, result)
        elif endpoint := services_in_use():
            with Client(endpoint) as found:
                _ask_services(found, names, result)
        else:
            _ask_catalog(names, result)
    except (DafError, ProbeError) as error:
        result.add_error("missions", str(error))
    return result


def _build(file: str, result: EnvironmentCheckResult) -> None:
    name = f"mission {Path(file).name}"
    if not has_runner():
        result.add_warning(name, NO_RUNNER)
        return
    try:
        agents = ask("own_mission", {"file": str(Path(file).expanduser().absolute())})["agents"]
    except ProbeError as error:
        result.add_error(name, str(error))
    else:
        result.add_check(name, True, info=f"builds, with {agents} agents")


def _ask_services(client: Client, names: Sequence[str], result: EnvironmentCheckResult) -> None:
    for name in names:
        spec = EvaluationSpec(policies=[_ANY_POLICY], missions=[Mission(name=name)], episodes=1)
        try:
            client.evaluation.CreateEvaluation(CreateEvaluationRequest(spec=spec, validate_only=True))
            result.add_check(f"mission {name}", True)
        except (InvalidArgument, FailedPrecondition) as error:
            messages = [violation.message for violation in error.violations] or [error.message]
            result.add_error(f"mission {name}", "; ".join(messages))


def _ask_catalog(names: Sequence[str], result: EnvironmentCheckResult) -> None:
    if not has_runner():
        result.add_warning("missions", NO_RUNNER)
        return
    for name, problem in ask("missions", {"names": names})["problems"].items():
        if problem:
            result.add_error(f"mission {name}", problem)
        else:
            result.add_check(f"mission {name}", True)
