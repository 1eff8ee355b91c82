"""`daf check`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column
from rich.text import Text

from daf.cli.session import JsonFlag, print_json
from daf.environment_checks import Check, EnvironmentCheckResult, daf_check_environment
from daf.tables import print_table, table
from daf_common.errors import FailedPrecondition


def check(
    file: Annotated[
        Path | None, typer.Argument(help="A training run or a sweep: check everything that it needs.")
    ] = None,
    mission: Annotated[
        list[str] | None, typer.Option("--mission", "-m", help="Mission that has to be there; may be repeated.")
    ] = None,
    cuda: Annotated[bool, typer.Option("--cuda", help="Look for GPUs, as with a FILE; takes seconds.")] = False,
    json: JsonFlag = False,
) -> None:
    """Check packages, services, missions, disk, memory and login. Starts nothing."""
    waiting = Console(stderr=True)
    with waiting.status("looking ...") if waiting.is_terminal else nullcontext():
        found = daf_check_environment(mission or (), check_cuda=cuda or file is not None, run=file)
    if json:
        print_json(found.to_dict())
    else:
        _print(found)
    if not found.is_healthy():
        raise typer.Exit(FailedPrecondition.exit_code)


def _print(found: EnvironmentCheckResult) -> None:
    if sys.stdout.isatty():
        rows = table("", "check", Column("found", overflow="fold"))
        for item in found.checks:
            rows.add_row(Text(item.mark, style=_style(item)), Text(item.name), Text(item.message))
        print_table(rows)
    else:
        print(found.summary())
    notes = len(found.warnings) - len(found.errors)
    print()
    print(
        f"{len(found.errors)} of {len(found.checks)} checks failed."
        if found.errors
        else f"Nothing stands in the way{f' ({notes} note{"s" if notes > 1 else ""})' if notes else ''}."
    )


def _style(item: Check) -> str:
    return "red" if not item.passed else "yellow" if item.warning else "green"
