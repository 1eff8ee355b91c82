"""`daf context`: installations by name."""

from __future__ import annotations

from typing import Annotated

import typer

from daf.cli.session import JsonFlag, print_json
from daf.contexts import EMBEDDED, add_context, current_name, read_contexts, remove_context, use_context

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    help="Choose the installation that daf talks to. The one named 'embedded' runs on this machine.",
)


def _names(incomplete: str) -> list[str]:
    return [name for name in (EMBEDDED, *read_contexts().addresses) if name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(autocompletion=_names, help="The context.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    address: Annotated[str, typer.Argument(help="HOST:PORT or unix:PATH.")],
    use: Annotated[bool, typer.Option("--use", help="Use it from now on.")] = False,
) -> None:
    """Give an installation a name."""
    add_context(name, address)
    if use:
        use_context(name)
    print(f"Added {name}{' and using it' if use else f'; `daf context use {name}` uses it'}.")


@app.command()
def use(name: Name) -> None:
    """Talk to this installation from now on."""
    use_context(name)
    print(f"Using {name}.")


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """List contexts; the one in use has a star."""
    contexts, current = read_contexts(), current_name()
    rows = {EMBEDDED: "", **contexts.addresses}
    if json:
        print_json({"current": current, "contexts": [{"name": n, "address": a} for n, a in rows.items()]})
        return
    for name, address in rows.items():
        print(f"{'*' if name == current else ' '} {name:<16}{address or 'the stack that daf starts on this machine'}")


@app.command()
def remove(name: Name) -> None:
    """Forget a context."""
    remove_context(name)
    print(f"Removed {name}.")
