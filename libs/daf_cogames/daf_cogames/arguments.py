"""Arguments for a policy's constructor, checked against its parameters without the class: services can ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from daf_cogames.suggestions import did_you_mean

Argument = bool | int | float | str


@dataclass(frozen=True)
class Parameter:
    """A named parameter of a policy's constructor. type: as annotated, else the default's, else empty."""

    name: str
    type: str
    default: Argument | None
    required: bool


_OF_128 = "it is always 128"

HARD_CODED: Mapping[str, Mapping[str, str]] = {
    "mettagrid.policy.lstm.LSTMPolicy": {"hidden_size": f"{_OF_128}; that of lstm_corrected can be set"},
    "mettagrid.policy.stateless.StatelessPolicy": {"hidden_size": _OF_128},
    "daf_cogames.corrected.StatelessPolicy": {"hidden_size": _OF_128},
    "cogames.policy.tutorial_policy.TutorialPolicy": {"hidden_size": "it is always 512, though the class accepts any"},
}
"""What a user would expect to set, and a class has as a constant: what is to be known of it, by class path and name."""


def argument_problem(
    policy: str,
    parameters: Sequence[Parameter],
    arguments: Mapping[str, Argument],
    hard_coded: Mapping[str, str] = MappingProxyType({}),
) -> tuple[str, str] | None:
    """The first (field, message) that is wrong with the arguments, or None.

    policy: its name in messages; hard_coded: its part of HARD_CODED.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name, value in arguments.items():
        if name in hard_coded:
            return f"arguments.{name}", f"{name} of {policy} cannot be set: {hard_coded[name]}"
        if name not in known:
            hint = did_you_mean(name, known) if known else "; it takes none"
            return f"arguments.{name}", f"{policy} has no parameter {name!r}{hint}"
        if not _fits(value, known[name].type):
            message = f"{name} of {policy} must be {known[name].type}, not {value!r}"
            return f"arguments.{name}", message
    for parameter in parameters:
        if parameter.required and parameter.name not in arguments:
            return f"arguments.{parameter.name}", f"{policy} needs a value for {parameter.name!r}"
    return None


def _fits(value: Argument, type_name: str) -> bool:
    """Whether a value may be given for a parameter of this annotated type; types other than scalars are not judged."""
    names = {part.strip() for part in type_name.replace("Optional[", "").replace("]", "").split("|")}
    if not names <= {"bool", "int", "float", "str", "None"} or not names - {"None"}:
        return True
    match value:
        case bool():
            return "bool" in names
        case int():
            return bool(names & {"int", "float"})
        case float():
            return "float" in names
        case str():
            return "str" in names
