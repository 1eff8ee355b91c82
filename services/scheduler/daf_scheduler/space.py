"""The search space: which values each parameter may take. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from daf_common.errors import Violation
from daf_common.values import Scalar, from_value, scalars
from daf_protos.scheduler.v1 import sweep_pb2

MAX_TRIALS = 1_000_000
"""Trials that a sweep may have, hence also the size of a grid."""
MAX_CHOICES = 10_000
MAX_INTEGER = 2**53
"""Whole numbers beyond this are not exact in an interval, whose ends are doubles."""

Parameters = Mapping[str, Scalar]
"""Values by name with place, for example `trainer.learning_rate`."""


@dataclass(frozen=True)
class Choices:
    """Listed values."""

    values: tuple[Scalar, ...]

    @property
    def size(self) -> int:
        """How many values there are."""
        return len(self.values)

    def at(self, index: int) -> Scalar:
        """The value with this number, from 0."""
        return self.values[index]

    def draw(self, uniform: float) -> Scalar:
        """The value that a number from [0, 1) stands for; equally probable ones."""
        return self.values[int(uniform * len(self.values))]

    def __contains__(self, value: object) -> bool:
        return any(value == known and type(value) is type(known) for known in self.values)


@dataclass(frozen=True)
class Interval:
    """Numbers between two ends, both included. `step` 0 means any value, or any whole one."""

    minimum: float
    maximum: float
    logarithmic: bool = False
    step: float = 0.0
    integer: bool = False

    @property
    def spacing(self) -> float:
        """The distance of neighbouring values; 0 if there is none."""
        return self.step or (1.0 if self.integer else 0.0)

    @property
    def size(self) -> int | None:
        """How many values there are; None if they cannot be counted."""
        if not self.spacing:
            return 1 if self.minimum == self.maximum else None
        # A millionth of a step forgives what binary fractions such as 0.1 lose.
        return math.floor((self.maximum - self.minimum) / self.spacing + 1e-6) + 1

    def at(self, index: int) -> Scalar:
        """The value with this number, from 0, of an interval whose values can be counted."""
        # Twelve digits, so that the third value from 0 by steps of 0.1 is 0.3 and not 0.30000000000000004.
        return self._number(min(float(f"{self.minimum + index * self.spacing:.12g}"), self.maximum))

    def draw(self, uniform: float) -> Scalar:
        """The value that a number from [0, 1) stands for; equally probable on the interval's scale."""
        if self.logarithmic:
            # Whole numbers get a share of the scale each, as if every one reached half a unit to both sides.
            margin = 0.5 if self.integer else 0.0
            low, high = math.log(self.minimum - margin), math.log(self.maximum + margin)
            return self._number(min(max(math.exp(low + uniform * (high - low)), self.minimum), self.maximum))
        if self.size is not None:
            return self.at(int(uniform * self.size))
        return self._number(min(self.minimum + uniform * (self.maximum - self.minimum), self.maximum))

    def _number(self, value: float) -> Scalar:
        return round(value) if self.integer else value

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.integer else float):
            return False
        if not self.minimum <= value <= self.maximum:
            return False
        steps = (value - self.minimum) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-6


Domain = Choices | Interval
Space = Mapping[str, Domain]


def from_message(message: sweep_pb2.SweepSpec) -> dict[str, Domain]:
    """The space of a sweep, by name in alphabetical order; domains without a kind are left out."""
    space: dict[str, Domain] = {}
    for name in sorted(message.space):
        domain = message.space[name]
        match domain.WhichOneof("kind"):
            case "choices":
                listed = {str(i): value for i, value in enumerate(domain.choices.values)}
                space[name] = Choices(tuple(scalars(listed).values()))
            case "interval":
                i = domain.interval
                space[name] = Interval(i.minimum, i.maximum, i.logarithmic, i.step, i.integer)
    return space


def grid_size(space: Space) -> int | None:
    """How many combinations there are; None if a domain's values cannot be counted."""
    sizes = [domain.size for domain in space.values()]
    return math.prod(size for size in sizes if size is not None) if None not in sizes else None


def grid_point(space: Space, index: int) -> dict[str, Scalar]:
    """The combination with this number, from 0; the last name in alphabetical order changes fastest."""
    point: dict[str, Scalar] = {}
    for name in sorted(space, reverse=True):
        size = space[name].size
        if size is None:
            raise ValueError(f"the values of {name} cannot be counted")
        index, position = divmod(index, size)
        point[name] = space[name].at(position)
    return {name: point[name] for name in sorted(point)}


def check_domain(field: str, message: sweep_pb2.Domain) -> Iterator[Violation]:
    """What is wrong with a domain, whatever its parameter means."""
    match message.WhichOneof("kind"):
        case "choices":
            yield from _check_choices(field, message.choices)
        case "interval":
            yield from _check_interval(field, message.interval)
        case _:
            yield Violation(field, "list choices or give an interval")


def check_grid(field: str, space: Space) -> Iterator[Violation]:
    """What keeps a space from being a grid."""
    for name, domain in space.items():
        if domain.size is None:
            yield Violation(f"{field}[{name}]", "a grid needs listed values: give choices or a step")
    size = grid_size(space)
    if size is not None and size > MAX_TRIALS:
        yield Violation(field, f"the grid has {size} combinations, more than the {MAX_TRIALS} that a sweep may have")


def _check_choices(field: str, choices: sweep_pb2.Choices) -> Iterator[Violation]:
    values = [from_value(value) for value in choices.values]
    if not values:
        yield Violation(field, "list at least one value")
    if len(values) > MAX_CHOICES:
        yield Violation(field, f"{len(values)} values are more than the {MAX_CHOICES} that a list may have")
        return
    for index, value in enumerate(values):
        if value is None:
            yield Violation(f"{field}.choices[{index}]", "has no value")
        elif isinstance(value, float) and not math.isfinite(value):
            yield Violation(f"{field}.choices[{index}]", f"{value} is not a finite number")
        elif isinstance(value, str) and ("\x00" in value or len(value) > 1000):
            yield Violation(f"{field}.choices[{index}]", "use at most 1000 characters, without NUL")
    kinds = {_kind(value) for value in values if value is not None}
    if len(kinds) > 1:
        yield Violation(field, f"the values mix {' and '.join(sorted(kinds))}: use one kind")
    elif len(set(values)) < len(values):
        twice = next(value for index, value in enumerate(values) if value in values[:index])
        yield Violation(field, f"the value {twice!r} is listed twice")


def _check_interval(field: str, interval: sweep_pb2.Interval) -> Iterator[Violation]:
    low, high, step = interval.minimum, interval.maximum, interval.step
    if not all(map(math.isfinite, (low, high, step))):
        yield Violation(field, "minimum, maximum and step must be finite numbers")
        return
    if low > high:
        yield Violation(field, f"the minimum {low:g} is greater than the maximum {high:g}")
    if step < 0:
        yield Violation(f"{field}.step", f"must not be negative, not {step:g}")
    if interval.logarithmic and low <= 0:
        yield Violation(f"{field}.minimum", f"a logarithmic scale starts above 0, not at {low:g}")
    if interval.logarithmic and step:
        yield Violation(f"{field}.step", "a logarithmic scale has no step")
    if step and high > low and step > high - low:
        yield Violation(f"{field}.step", f"the step {step:g} is greater than the interval")
    if interval.integer and not all(end.is_integer() and abs(end) <= MAX_INTEGER for end in (low, high, step)):
        yield Violation(field, "an interval of whole numbers has whole ends and a whole step, at most 2^53")


def _kind(value: object) -> str:
    return "flags" if isinstance(value, bool) else "texts" if isinstance(value, str) else "numbers"
