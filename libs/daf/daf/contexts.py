"""Contexts: names for the installations that one machine talks to."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from daf.home import home, write_json
from daf_common.errors import DataLoss, InvalidArgument, NotFound

EMBEDDED = "embedded"
"""The context of the stack that `daf` starts on this machine: always there, and the one in use at first."""

_ADDRESS = re.compile(r"unix:.+|[^\s/]+:\d{1,5}")


@dataclass(frozen=True)
class Contexts:
    """The addresses by name, and the name in use."""

    addresses: Mapping[str, str] = field(default_factory=dict)
    current: str = EMBEDDED


def read_contexts() -> Contexts:
    """What the file under `DAF_HOME` says.

    Raises:
        DataLoss: the file is broken.
    """
    path = _path()
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Contexts(dict(data["addresses"]), str(data["current"]))
    except FileNotFoundError:
        return Contexts()
    except (ValueError, KeyError, TypeError) as error:
        raise DataLoss(f"{path} is broken ({error}): remove it and add the contexts again") from error


def add_context(name: str, address: str) -> None:
    """Gives an address a name, or a name another address.

    Raises:
        InvalidArgument: the name or the address cannot be used.
    """
    if name == EMBEDDED or not re.fullmatch(r"[\w.-]{1,60}", name):
        raise InvalidArgument.field("name", f"{name!r} cannot be the name of a context: use letters, digits, - and .")
    if not _ADDRESS.fullmatch(address):
        raise InvalidArgument.field("address", f"{address!r} is neither HOST:PORT nor unix:PATH")
    contexts = read_contexts()
    _write(Contexts({**contexts.addresses, name: address}, contexts.current))


def use_context(name: str) -> None:
    """Makes a context the one in use.

    Raises:
        NotFound: there is none of this name.
    """
    contexts = read_contexts()
    _address(contexts, name)
    _write(Contexts(contexts.addresses, name))


def remove_context(name: str) -> None:
    """Forgets a context; if it was in use, the embedded stack is.

    Raises:
        NotFound: there is none of this name.
    """
    contexts = read_contexts()
    if name not in contexts.addresses:
        raise NotFound(f"there is no context {name!r} to remove: see `daf context list`")
    addresses = {known: address for known, address in contexts.addresses.items() if known != name}
    _write(Contexts(addresses, EMBEDDED if contexts.current == name else contexts.current))


def current_address() -> str | None:
    """The address in use: `DAF_ADDRESS`, else that of the context that `DAF_CONTEXT` or `daf context use` names. None
    means the embedded stack.

    Raises:
        NotFound: `DAF_CONTEXT` names no context.
    """
    if address := os.environ.get("DAF_ADDRESS"):
        return address
    contexts = read_contexts()
    return _address(contexts, os.environ.get("DAF_CONTEXT") or contexts.current)


def current_name() -> str:
    """The name of the context in use; empty where `DAF_ADDRESS` overrides it."""
    if os.environ.get("DAF_ADDRESS"):
        return ""
    return os.environ.get("DAF_CONTEXT") or read_contexts().current


def _address(contexts: Contexts, name: str) -> str | None:
    if name == EMBEDDED:
        return None
    if name not in contexts.addresses:
        known = ", ".join([EMBEDDED, *sorted(contexts.addresses)])
        raise NotFound(f"there is no context {name!r} (there are: {known}): add it with `daf context add NAME ADDRESS`")
    return contexts.addresses[name]


def _write(contexts: Contexts) -> None:
    write_json(_path(), {"current": contexts.current, "addresses": dict(contexts.addresses)})


def _path() -> Path:
    return home() / "contexts.json"
