"""The services: whether they can be reached, and what they say of a run that is not started yet."""

from __future__ import annotations

from daf.checks.planned_run import PlannedRun
from daf.checks.result import EnvironmentCheckResult
from daf.client import Client, is_serving
from daf.config import DAFTrainingConfig
from daf.contexts import current_endpoint
from daf.diagnosis import why_refused, why_unreachable
from daf.embedded import EmbeddedStack, StackState
from daf.endpoint import Endpoint
from daf.home import home
from daf.sweeps import create_sweep
from daf.training_jobs import create_training_job
from daf_common.errors import DafError

_SECONDS = 3.0


def services_in_use() -> Endpoint | None:
    """The services of the context in use, if they run; they are not started."""
    endpoint = current_endpoint()
    if endpoint is None and (address := EmbeddedStack(home()).address):
        endpoint = Endpoint(address)
    return endpoint if endpoint and is_serving(endpoint, timeout_seconds=_SECONDS) else None


def check_services(client: Client | None = None) -> EnvironmentCheckResult:
    """Looks whether the services can be reached and serve us: those of a client, or of the context in use."""
    result = EnvironmentCheckResult()
    endpoint = client.endpoint if client is not None else current_endpoint()
    if endpoint is None:
        stack = EmbeddedStack(home())
        if (state := stack.state()) is StackState.RUNNING:
            result.add_check("services", True, info=f"the embedded stack runs at {stack.address}")
        else:
            result.add_warning("services", f"the embedded stack is {state.value}; it starts when it is needed")
    elif not is_serving(endpoint, timeout_seconds=_SECONDS):
        result.add_error("services", why_unreachable(endpoint))
    elif refusal := why_refused(endpoint):
        result.add_error("services", refusal)
    else:
        result.add_check("services", True, info=f"reached at {endpoint.address}")
    return result


def check_planned_run(client: Client, run: PlannedRun) -> EnvironmentCheckResult:
    """Asks the services whether they would accept a run; nothing is created, but the user's code is uploaded."""
    result = EnvironmentCheckResult()
    try:
        if isinstance(run.document, DAFTrainingConfig):
            create_training_job(client, run.document, validate_only=True)
        else:
            create_sweep(client, run.document, validate_only=True)
    except DafError as error:
        messages = [f"{violation.field}: {violation.message}" for violation in error.violations] or [error.message]
        result.add_error("run", "; ".join(messages))
    else:
        jobs = f"{run.jobs} training job{'s' if run.jobs > 1 else ''}"
        result.add_check("run", True, info=f"the services accept {run.document.name!r}: {jobs}")
    return result
