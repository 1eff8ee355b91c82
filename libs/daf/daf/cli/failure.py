"""Errors as people read them: one clear line, what to do, and the exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from daf_common.errors import DafError, Internal, InvalidArgument, Unavailable, Unimplemented

_DEBUG = "DAF_DEBUG=1 shows where it comes from"
_NO_CONNECTION = ("failed to connect", "errors resolving")
_NO_STACK = "nothing answers at the address of the embedded stack"


def exit_code_of(error: Exception) -> int:
    """Prints an error to stderr and returns the exit code of the process."""
    if isinstance(error, BrokenPipeError):
        # Whoever read the output has gone; nothing more is to be flushed to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, DafError):
        _print(_unreachable(error) or error.message or type(error).__name__, _hint(error))
        return error.exit_code
    if isinstance(error, OSError) and error.filename:
        _print(f"{error.filename}: {error.strerror}", _home_hint(error))
        return InvalidArgument.exit_code
    if isinstance(error, ValueError):
        _print(_value_error(error))
        return InvalidArgument.exit_code
    _print(f"{type(error).__name__}: {error}", f"this is a defect of daf; {_DEBUG}")
    return Internal.exit_code


def _unreachable(error: DafError) -> str:
    """What to say where nothing is at the address: gRPC's own words are long."""
    if not isinstance(error, Unavailable) or not error.message.startswith(_NO_CONNECTION):
        return ""
    from daf.contexts import current_endpoint, current_name
    from daf.diagnosis import why_unreachable

    context = f" (context {name})" if (name := current_name()) else ""
    endpoint = current_endpoint()
    return (why_unreachable(endpoint, error.message) if endpoint else _NO_STACK) + context


def _home_hint(error: OSError) -> str:
    from daf.home import home

    path = Path(str(error.filename)).absolute()
    return (
        f"DAF keeps its state in {home()}: let DAF_HOME name another directory" if path.is_relative_to(home()) else ""
    )


def _hint(error: DafError) -> str:
    if isinstance(error, Unavailable):
        return "`daf status` says how the services are, `daf context list` which ones are in use"
    if isinstance(error, Unimplemented):
        return "this is not built yet"
    if isinstance(error, Internal) and type(error) is Internal:
        return f"this is a defect of DAF: the services' log says more; {_DEBUG}"
    if error.retry_after_seconds:
        return f"try again in {error.retry_after_seconds:g} s"
    return ""


def _print(message: str, hint: str = "") -> None:
    first, *rest = message.splitlines() or [""]
    print(f"daf: {first}", *(f"     {line}" for line in rest), sep="\n", file=sys.stderr)
    if hint:
        print(f"     {hint}", file=sys.stderr)


def _value_error(error: ValueError) -> str:
    from pydantic import ValidationError

    from daf.documents import dotted

    if not isinstance(error, ValidationError):
        return str(error)
    lines = []
    for problem in error.errors(include_url=False):
        message = str(problem["msg"]).removeprefix("Value error, ")
        where = dotted(tuple(part for part in problem["loc"]))
        lines.append(f"{where}: {message}" if where else message)
    return "\n".join(lines)
