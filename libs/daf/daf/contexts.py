"""Contexts: names for the installations that one machine talks to."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from daf.endpoint import Endpoint, read_certificates
from daf.home import home, write_json
from daf_common.errors import DataLoss, InvalidArgument, NotFound, Violation

EMBEDDED = "embedded"
"""The context of the stack that `daf` starts on this machine: always there, and the one in use at first."""


_VARIABLES = {"token": "DAF_ACCESS_TOKEN", "ca": "DAF_CA_FILE", "server_name": "DAF_SERVER_NAME"}


@dataclass(frozen=True)
class Contexts:
    """The installations by name, and the name in use."""

    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    current: str = EMBEDDED


def read_contexts() -> Contexts:
    """What the file under `DAF_HOME` says.

    Raises:
        DataLoss: the file is broken.
    """
    path = _path()
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        endpoints = {name: Endpoint(**fields) for name, fields in data["contexts"].items()}
        return Contexts(endpoints, str(data["current"]))
    except FileNotFoundError:
        return Contexts()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataLoss(f"{path} is broken ({error}): remove it and add the contexts again") from error


def add_context(name: str, endpoint: Endpoint) -> None:
    """Gives an installation a name, or a name another installation.

    Raises:
        InvalidArgument: the name cannot be used.
    """
    if name == EMBEDDED or not re.fullmatch(r"[\w.-]{1,60}", name):
        raise InvalidArgument.field("name", f"{name!r} cannot be the name of a context: use letters, digits, - and .")
    contexts = read_contexts()
    _write(Contexts({**contexts.endpoints, name: endpoint}, contexts.current))


def use_context(name: str) -> None:
    """Makes a context the one in use.

    Raises:
        NotFound: there is none of this name.
    """
    contexts = read_contexts()
    _endpoint(contexts, name)
    _write(Contexts(contexts.endpoints, name))


def remove_context(name: str) -> None:
    """Forgets a context and its token; if it was in use, the embedded stack is.

    Raises:
        NotFound: there is none of this name.
    """
    contexts = read_contexts()
    if name not in contexts.endpoints:
        raise NotFound(f"there is no context {name!r} to remove: see `daf context list`")
    endpoints = {known: endpoint for known, endpoint in contexts.endpoints.items() if known != name}
    _write(Contexts(endpoints, EMBEDDED if contexts.current == name else contexts.current))


def current_endpoint() -> Endpoint | None:
    """The installation in use: at `DAF_ADDRESS`, else that of the context that `DAF_CONTEXT` or `daf context use`
    names. None means the embedded stack. `DAF_ACCESS_TOKEN`, `DAF_CA_FILE` and `DAF_SERVER_NAME` belong to
    `DAF_ADDRESS`, or replace what the context has.

    Raises:
        NotFound: `DAF_CONTEXT` names no context.
        InvalidArgument: the environment says what cannot be.
    """
    if address := os.environ.get("DAF_ADDRESS"):
        return _from_environment(Endpoint(address))
    contexts = read_contexts()
    endpoint = _endpoint(contexts, os.environ.get("DAF_CONTEXT") or contexts.current)
    return None if endpoint is None else _from_environment(endpoint)


def current_name() -> str:
    """The name of the context in use; empty where `DAF_ADDRESS` overrides it."""
    if os.environ.get("DAF_ADDRESS"):
        return ""
    return os.environ.get("DAF_CONTEXT") or read_contexts().current


def _from_environment(endpoint: Endpoint) -> Endpoint:
    given = {
        "token": os.environ.get("DAF_ACCESS_TOKEN", "").strip(),
        "ca": read_certificates(Path(file)) if (file := os.environ.get("DAF_CA_FILE")) else "",
        "server_name": os.environ.get("DAF_SERVER_NAME", ""),
    }
    try:
        return replace(endpoint, **{name: value for name, value in given.items() if value})
    except InvalidArgument as error:
        raise InvalidArgument.of(
            Violation(_VARIABLES.get(violation.field, violation.field), violation.message)
            for violation in error.violations
        ) from None


def _endpoint(contexts: Contexts, name: str) -> Endpoint | None:
    if name == EMBEDDED:
        return None
    if name not in contexts.endpoints:
        known = ", ".join([EMBEDDED, *sorted(contexts.endpoints)])
        raise NotFound(f"there is no context {name!r} (there are: {known}): add it with `daf context add NAME ADDRESS`")
    return contexts.endpoints[name]


def _write(contexts: Contexts) -> None:
    """Writes the file, which holds tokens: `write_json` makes it readable for its owner alone."""
    endpoints = {name: asdict(endpoint) for name, endpoint in contexts.endpoints.items()}
    write_json(_path(), {"current": contexts.current, "contexts": endpoints})


def _path() -> Path:
    return home() / "contexts.json"
