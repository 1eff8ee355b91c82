"""`daf check`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from daf.cli.session import JsonFlag, print_json
from daf.client import Client, is_serving
from daf.contexts import current_address
from daf.embedded import EmbeddedStack, StackState
from daf.environment_checks import EnvironmentCheckResult, daf_check_environment, daf_check_mission_configs
from daf.home import home
from daf_common.errors import FailedPrecondition


def check(
    mission: Annotated[
        list[str] | None, typer.Option("--mission", "-m", help="Mission that has to be there; may be repeated.")
    ] = None,
    cuda: Annotated[bool, typer.Option("--cuda", help="Look for a GPU; takes seconds.")] = False,
    json: JsonFlag = False,
) -> None:
    """Check packages, disk space, services and missions. Starts nothing."""
    found = daf_check_environment(check_cuda=cuda)
    address = _check_services(found)
    if mission and address:
        with Client(address) as client:
            found.extend(daf_check_mission_configs(mission, client=client))
    elif mission:
        found.add_check("missions", True, warning="not looked at: no services run; `daf up` starts them")
    if json:
        print_json({"healthy": found.is_healthy(), "checks": [asdict(item) for item in found.checks]})
    else:
        console = Console()
        for item in found.checks:
            style = "red" if not item.passed else "yellow" if item.warning else "green"
            said = f"{item.name:<16}{item.message}" if len(item.name) < 16 else f"{item.name}  {item.message}"
            console.print(Text.assemble((f"{item.mark:<8}", style), said.rstrip()), soft_wrap=True)
    if not found.is_healthy():
        raise typer.Exit(FailedPrecondition.exit_code)


def _check_services(result: EnvironmentCheckResult) -> str:
    """Looks whether the services can be reached; returns their address if so."""
    address = current_address()
    if address is None:
        stack = EmbeddedStack(home())
        if (state := stack.state()) is StackState.RUNNING:
            result.add_check("services", True, info=f"the embedded stack runs at {stack.address}")
            return stack.address
        result.add_check("services", True, warning=f"the embedded stack is {state.value}; it starts when it is needed")
        return ""
    if is_serving(address, timeout_seconds=3.0):
        result.add_check("services", True, info=f"reached at {address}")
        return address
    result.add_error("services", f"nothing serves at {address}")
    return ""
