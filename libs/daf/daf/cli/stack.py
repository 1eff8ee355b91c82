"""`daf up`, `daf down`, `daf status`."""

from __future__ import annotations

import typer

from daf.cli.session import JsonFlag, notice, print_json
from daf.client import is_serving
from daf.contexts import current_endpoint, current_name
from daf.diagnosis import why_refused, why_unreachable
from daf.embedded import EmbeddedStack, StackState
from daf.home import home
from daf_common.errors import Unauthenticated, Unavailable

_SECONDS = 3.0


def up(json: JsonFlag = False) -> None:
    """Start the embedded stack, unless it runs already."""
    stack = EmbeddedStack(home())
    address = stack.ensure(notice)
    if json:
        print_json({"state": StackState.RUNNING.value, "address": address, "pid": stack.pid})
    else:
        print(f"The embedded stack runs (process {stack.pid}) at {address}")


def down(json: JsonFlag = False) -> None:
    """Stop the embedded stack. What it was doing goes on when it is started again."""
    stopped = EmbeddedStack(home()).stop(notice)
    if json:
        print_json({"state": StackState.STOPPED.value, "was_running": stopped})
    else:
        print("The embedded stack has stopped." if stopped else "The embedded stack was not running.")


def status(json: JsonFlag = False) -> None:
    """Say how the installation in use is."""
    endpoint, stack = current_endpoint(), EmbeddedStack(home())
    problem = ""
    if endpoint is None:
        state = stack.state()
        address = stack.address if state is not StackState.STOPPED else ""
    else:
        address = endpoint.address
        serves = is_serving(endpoint, timeout_seconds=_SECONDS)
        state = StackState.RUNNING if serves else StackState.UNRESPONSIVE
        problem = why_refused(endpoint) if serves else why_unreachable(endpoint)
    facts = {"context": current_name(), "state": state.value, "address": address, "problem": problem}
    if endpoint is None:
        pid = stack.pid if state is not StackState.STOPPED else None
        facts |= {"home": str(stack.home), "log": str(stack.log), "pid": str(pid or "")}
    if json:
        print_json(facts)
    else:
        for name, fact in facts.items():
            if fact:
                print(f"{name:<10}{fact}")
        if state is StackState.STOPPED:
            print("It starts with the first command that needs it, or with `daf up`.")
    if state is StackState.UNRESPONSIVE:
        raise typer.Exit(Unavailable.exit_code)
    if problem:
        raise typer.Exit(Unauthenticated.exit_code)
