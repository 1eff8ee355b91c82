"""`daf.common.v1.Value` and the Python value that it stands for."""

from __future__ import annotations

from collections.abc import Mapping

from daf_protos.common.v1.value_pb2 import Value

Scalar = bool | int | float | str


def to_value(scalar: Scalar) -> Value:
    """The message for a Python value; a flag stays a flag, a whole number a whole number.

    Raises:
        ValueError: a whole number of more than 64 bits.
    """
    match scalar:
        case bool():
            return Value(flag=scalar)
        case int():
            return Value(integer=scalar)
        case float():
            return Value(real=scalar)
        case str():
            return Value(text=scalar)


def from_value(value: Value) -> Scalar | None:
    """The Python value of a message; None if it has none."""
    match value.WhichOneof("kind"):
        case "real":
            return value.real
        case "integer":
            return value.integer
        case "text":
            return value.text
        case "flag":
            return value.flag
        case _:
            return None


def scalars(values: Mapping[str, Value]) -> dict[str, Scalar]:
    """A map of messages as a dictionary; entries without a value are left out."""
    found = {name: from_value(value) for name, value in values.items()}
    return {name: scalar for name, scalar in found.items() if scalar is not None}
