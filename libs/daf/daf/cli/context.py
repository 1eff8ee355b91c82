"""`daf context`: installations by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from daf.cli.session import JsonFlag, notice, print_json
from daf.contexts import EMBEDDED, add_context, current_name, read_contexts, remove_context, use_context
from daf.endpoint import Endpoint, read_certificates
from daf_common.auth import checked_token, read_token
from daf_common.errors import InvalidArgument

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    help="Choose the installation that daf talks to. The one named 'embedded' runs on this machine.",
)


def _names(incomplete: str) -> list[str]:
    return [name for name in (EMBEDDED, *read_contexts().endpoints) if name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(autocompletion=_names, help="The context.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    address: Annotated[
        str,
        typer.Argument(help="https://HOST:PORT or HOST:PORT; http://HOST:PORT if it is not encrypted; unix:PATH."),
    ],
    token_file: Annotated[
        str, typer.Option(metavar="FILE", help="A file with your token, which is copied; - reads it from the input.")
    ] = "",
    ca: Annotated[
        str,
        typer.Option(metavar="FILE", help="Certificate of the authority that signed the installation's, as PEM."),
    ] = "",
    server_name: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="The name in its certificate, if ADDRESS has another (kubectl port-forward)."
        ),
    ] = "",
    use: Annotated[bool, typer.Option("--use", help="Use it from now on.")] = False,
) -> None:
    """Give an installation a name, or replace all that was said of one: how it is reached and who you are there.

    The token and the certificate are kept in DAF_HOME/contexts.json, which only you can read.
    """
    authorities = read_certificates(Path(ca)) if ca else ""
    Endpoint(address, ca=authorities, server_name=server_name)  # refused before a token is asked for
    endpoint = Endpoint(address, _token(token_file), authorities, server_name)
    add_context(name, endpoint)
    if use:
        use_context(name)
    print(f"Added {name}{' and using it' if use else f'; `daf context use {name}` uses it'}.")
    if not endpoint.token and endpoint.host_and_port:
        notice("no token was given: if the installation asks for one, add it again with --token-file FILE")


@app.command()
def use(name: Name) -> None:
    """Talk to this installation from now on."""
    use_context(name)
    print(f"Using {name}.")


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """List contexts; the one in use has a star."""
    contexts, current = read_contexts(), current_name()
    if json:
        embedded = {"name": EMBEDDED, "address": "", "has_token": False, "has_ca": False, "server_name": ""}
        others = [
            {
                "name": name,
                "address": endpoint.address,
                "has_token": bool(endpoint.token),
                "has_ca": bool(endpoint.ca),
                "server_name": endpoint.server_name,
            }
            for name, endpoint in contexts.endpoints.items()
        ]
        print_json({"current": current, "contexts": [embedded, *others]})
        return
    rows = {EMBEDDED: "the stack that daf starts on this machine"}
    rows |= {name: f"{endpoint.address}{_has(endpoint)}" for name, endpoint in contexts.endpoints.items()}
    for name, text in rows.items():
        print(f"{'*' if name == current else ' '} {name:<15} {text}")


@app.command()
def remove(name: Name) -> None:
    """Forget a context."""
    remove_context(name)
    print(f"Removed {name}.")


def _token(file: str) -> str:
    if file != "-":
        return read_token(Path(file)) if file else ""
    if sys.stdin.isatty():
        return checked_token(typer.prompt("Token", hide_input=True, err=True).strip(), "what was typed")
    if not (token := sys.stdin.read().strip()):
        raise InvalidArgument.field("token_file", "the input is empty: pipe the token into `daf context add`")
    return checked_token(token, "the input")


def _has(endpoint: Endpoint) -> str:
    """What is kept beside the address; the token itself is never shown."""
    parts = {
        "token": endpoint.token,
        "own authority": endpoint.ca,
        f"certificate of {endpoint.server_name}": endpoint.server_name,
    }
    return f"  ({', '.join(part for part, given in parts.items() if given)})" if any(parts.values()) else ""
