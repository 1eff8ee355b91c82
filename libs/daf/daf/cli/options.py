"""Options that change what a document says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from daf.document_config import DocumentConfig
from daf.documents import Document, Scalar, read, scalar
from daf.missions import is_file
from daf_common.errors import InvalidArgument

MissionNames = Annotated[
    list[str] | None, typer.Option("--mission", "-m", help="Mission, pattern or file of your own; may be repeated.")
]
MissionSets = Annotated[list[str] | None, typer.Option("--mission-set", "-S", help="Set of missions; may be repeated.")]
Difficulty = Annotated[str, typer.Option(help="Difficulty of missions that have one.")]
MapSeed = Annotated[int | None, typer.Option(min=0, help="Pins the map; otherwise every episode's seed makes its own.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes at most.")]
Fast = Annotated[
    bool, typer.Option("--fast", help="Batch networks also where that changes their last bits; results say so.")
]
Isolated = Annotated[bool, typer.Option("--isolated", help="Every policy in a sandbox, not only bundles.")]
TimeLimit = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="For a policy to load, to start or for one step, before it forfeits."),
]
Metric = Annotated[str, typer.Option(help="reward, or a statistic of the agents or the game.")]
Aggregation = Annotated[
    str, typer.Option(help="How the values of a policy's seats become one: mean, sum, min or max; mean if not given.")
]
OwnFiles = Annotated[list[str] | None, typer.Option("--code", help="Your own file or folder; may be repeated.")]


def document_with[C: DocumentConfig](model: type[C], file: Path | None, options: Mapping[str, Any]) -> C:
    """A document of a file, or an empty one, with what options say in its place.

    Args:
        model: what it is.
        file: where it is read, if anywhere; paths in it are relative to there.
        options: values by key; None and empty ones change nothing, mappings change what is in them.

    Raises:
        DocumentError: the file cannot be used.
        InvalidArgument: something is missing or wrong in the options.
    """
    document = read(file) if file is not None else Document("the command", {}, {(): 1})
    _merge(document.data, options)
    if file is None:
        try:
            return model.model_validate(document.data)
        except ValidationError as error:
            raise InvalidArgument("\n".join(_problems(error))) from None
    config = document.check(model)
    config._directory = file.resolve().parent
    return config


def missions(document: Path | None, names: Sequence[str] | None, changes: Mapping[str, Any]) -> list[Any] | None:
    """The missions that options name, or those of the document, each with the changes; None if nothing changes."""
    changes = {key: value for key, value in changes.items() if value not in (None, "", [])}
    listed: Any = [absolute_path(name) if is_file(name) else name for name in names or []]
    if not listed and changes and document is not None:
        listed = read(document).data.get("missions") or []
    if not listed:
        return None
    return [{**(m if isinstance(m, dict) else {"mission": m}), **changes} for m in listed]


def settings(pairs: Sequence[str] | None) -> dict[str, dict[str, Scalar]]:
    """Hyperparameters given as `NAME=VALUE`, by where documents have them: `policy` and `trainer`.

    Raises:
        InvalidArgument: one is not of this form.
    """
    found: dict[str, dict[str, Scalar]] = {"policy": {}, "trainer": {}}
    for pair in pairs or []:
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not name or not value:
            raise InvalidArgument.field("--set", f"{pair[:80]!r} is not NAME=VALUE")
        place, dot, rest = name.partition(".")
        if dot and place == "env":
            raise InvalidArgument.field(
                "--set", f"{name} is a matter of the mission: see --cogs, --max-steps, --variant"
            )
        if dot and place == "policy":
            found["policy"][rest] = scalar(value)
        else:
            found["trainer"][name] = scalar(value)
    return found


def absolute(paths: Sequence[str] | None) -> list[str] | None:
    """Paths on the command line, which are relative to where the user is and not to a document."""
    return [absolute_path(path) for path in paths] if paths else None


def absolute_path(path: str) -> str:
    """A path on the command line; an empty one stays empty."""
    return str(Path(path).expanduser().absolute()) if path else ""


def _merge(data: dict[str, Any], options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        if isinstance(value, Mapping):
            inner = data.setdefault(key, {})
            if isinstance(inner, dict):
                _merge(inner, value)
            if not data[key]:
                del data[key]
        elif value not in (None, "", [], ()):
            data[key] = value


_OPTION_OF = {
    "missions": "--mission/-m",
    "policy": "--policy/-p",
    "policies": "--policy/-p",
    "time_limit_seconds": "--time-limit",
}


def _problems(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors(include_url=False):
        first = str(problem["loc"][0]) if problem["loc"] else ""
        option = _OPTION_OF.get(first, first)
        message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
        if problem["type"] == "too_short":
            message = f"give at least {problem['ctx']['min_length']}"
        missing = problem["type"] == "missing"
        lines.append(f"give {option}, or a FILE" if missing else f"{option}: {message}" if option else message)
    return lines
