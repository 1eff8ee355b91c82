"""What commands share: the connection, notices, and data as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from daf.client import Client
from daf.connection import connect

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_client() -> Client:
    """A client for the context in use; says so when it starts the embedded stack."""
    return connect(notice)


def notice(message: str) -> None:
    """Tells the user something that is no data."""
    print(f"daf: {message}", file=sys.stderr, flush=True)


def confirm_deletion(name: str, what_goes: str, find: Callable[[Client, str], object], client: Client) -> None:
    """Asks whoever sits at a terminal whether something is to be deleted, and ends the command if it is not.

    Args:
        name: its resource name.
        what_goes: what is deleted with it.
        find: reads it; one that is not there is an error, not a question.
        client: where it is.
    """
    if not sys.stdin.isatty():
        return
    find(client, name)
    if not typer.confirm(f"Delete {name} with its {what_goes}?"):
        notice("nothing was deleted")
        raise typer.Exit(1)


def print_json(data: Any) -> None:
    """Prints one JSON document."""
    print(json.dumps(plain(data), indent=2))


def print_json_line(data: Any) -> None:
    """Prints one JSON document on one line, at once."""
    print(json.dumps(plain(data)), flush=True)


def plain(data: Any) -> Any:
    """Data with its messages in the JSON mapping of protobuf: the proto's field names, all fields."""
    if isinstance(data, Message):
        return MessageToDict(data, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    if isinstance(data, Mapping):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [plain(item) for item in data]
    return data


def resource_name(collection: str, given: str) -> str:
    """The full name of a resource that may be given by its id alone, or by a short form of its collection."""
    last = given.removeprefix(f"{collection}/")
    if collection == "trainingJobs":
        last = last.removeprefix("job/")
    return f"{collection}/{last}"
