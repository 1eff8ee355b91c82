"""The `daf` command: a table of commands, each loaded when it is called, and the one place that prints errors."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("daf.cli.stack:up", "Start the embedded stack."),
    "down": ("daf.cli.stack:down", "Stop the embedded stack."),
    "status": ("daf.cli.stack:status", "Say how the installation in use is."),
    "check": ("daf.cli.check:check", "Check that experiments can run here."),
    "missions": ("daf.cli.catalog:missions", "List missions."),
    "policies": ("daf.cli.catalog:policies", "List policies and their hyperparameters."),
    "train": ("daf.cli.train:train", "Train a policy."),
    "evaluate": ("daf.cli.evaluate:evaluate", "Let policies play and summarize how they did."),
    "results": ("daf.cli.results:app", "List evaluations, show and export what they came to."),
    "compare": ("daf.cli.compare:compare", "Let policies play the same seeds and say which is better."),
    "sweep": ("daf.cli.sweep:app", "Search over hyperparameters."),
    "job": ("daf.cli.job:app", "Look after training jobs."),
    "logs": ("daf.cli.logs:logs", "Print what a run printed."),
    "context": ("daf.cli.context:app", "Choose the installation that daf talks to."),
    "version": ("daf.cli.version:version", "Print versions."),
}
"""Commands in the order of the help, each with where it is and what it does."""

_EPILOG = (
    "Every command that prints data prints it as JSON with --json. Without a context, daf starts its services here."
)


class _LazyGroup(TyperGroup):
    """Commands by name, imported when one is called and not for the help."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(rich_markup_mode=None, add_completion=False)
            single.command()(found)
            found = single
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


app = typer.Typer(
    cls=_LazyGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(help="Many experiments with multi-agent policies: train, search, evaluate.")
def _daf(
    context: Annotated[str, typer.Option(help="Use this context for the command.", envvar="DAF_CONTEXT")] = "",
) -> None:
    if context:
        os.environ["DAF_CONTEXT"] = context


def main() -> None:
    """Runs `daf`. Exit codes: 0 done; 1 what was run failed; 2 the command or a document is wrong; the others are in
    `daf_common.errors`."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own log lines would tear the display apart
    try:
        sys.exit(app(prog_name="daf"))
    except Exception as error:
        if os.environ.get("DAF_DEBUG") == "1":
            raise
        from daf.cli.failure import exit_code_of

        sys.exit(exit_code_of(error))
