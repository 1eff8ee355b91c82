"""Search spaces as users write them, and the settings in them."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError, model_validator

from daf.documents import Scalar
from daf.references import Section, SingleValue, problem_at

MAX_GRID = 1_000_000
_UNLISTED = "a grid needs listed values or an interval with a step"

type Strategy = Literal["grid", "random", "bayesian"]


class Choices(Section):
    """Listed values, whatever the strategy."""

    choices: list[SingleValue] = Field(min_length=1)


class Interval(Section):
    """Numbers from `min` to `max`, both included."""

    min: float
    max: float
    log: bool = False
    """Whether it is searched on a logarithmic scale."""
    step: float = Field(0.0, ge=0)
    """Distance of neighbouring values; 0 means any value."""
    int: bool = False
    """Whether values are whole numbers."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min:g} is greater than max {self.max:g}")
        if self.log and self.min <= 0:
            raise ValueError(f"a logarithmic scale begins above zero, not at {self.min:g}")
        if self.log and self.step:
            raise ValueError("log and step exclude each other")
        if self.int and not (self.min.is_integer() and self.max.is_integer() and self.step.is_integer()):
            raise ValueError("with int, the ends and the step are whole numbers")
        return self

    def values(self) -> list[Scalar] | None:
        """All values, or None where they cannot be listed."""
        step = self.step or (1.0 if self.int and not self.log else 0.0)
        if not step:
            return [self.min] if self.min == self.max else None
        count = math.floor((self.max - self.min) / step + 1e-9) + 1
        if count > MAX_GRID:
            raise ValueError(f"{count} values are more than the {MAX_GRID} that a grid may have")
        return [round(self.min + i * step) if self.int else self.min + i * step for i in range(count)]


def _form(value: Any) -> str | None:
    if isinstance(value, list):
        return "list"
    if isinstance(value, Choices) or (isinstance(value, Mapping) and "choices" in value):
        return "choices"
    return "interval" if isinstance(value, Mapping | Interval) else None


Domain = Annotated[
    Annotated[list[SingleValue], Tag("list"), Field(min_length=1)]
    | Annotated[Choices, Tag("choices")]
    | Annotated[Interval, Tag("interval")],
    Discriminator(
        _form,
        custom_error_type="domain",
        custom_error_message="should be a list of values, {choices: [...]} or {min: ..., max: ...}",
    ),
]
"""A list of values (under random and bayesian, two numbers are the ends of an interval), or an explicit form."""

_DOMAIN: TypeAdapter[list[Scalar] | Choices | Interval] = TypeAdapter(Domain)


def explicit(domain: list[Scalar] | Choices | Interval, strategy: Strategy) -> Choices | Interval:
    """What a domain means under a strategy.

    Raises:
        ValueError: a pair's first number is the greater one.
    """
    if not isinstance(domain, list):
        return domain
    numbers = [value for value in domain if isinstance(value, int | float) and not isinstance(value, bool)]
    if strategy == "grid" or len(domain) != 2 or len(numbers) != 2:
        return Choices(choices=domain)
    low, high = numbers
    return Interval(min=float(low), max=float(high), int=isinstance(low, int) and isinstance(high, int))


def check(space: Mapping[str, list[Scalar] | Choices | Interval], strategy: Strategy) -> None:
    """Refuses a search space that does not suit its strategy.

    Raises:
        ValueError: names the parameter.
    """
    for name, domain in space.items():
        try:
            explicit(domain, strategy)
        except ValidationError as error:
            raise problem_at(("search_space", name), error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        if strategy == "grid" and not isinstance(domain, list | Choices):
            try:
                listed = domain.values()
            except ValueError as error:
                raise problem_at(("search_space", name), str(error)) from None
            if listed is None:
                raise problem_at(("search_space", name), _UNLISTED)
    if strategy == "grid":
        try:
            grid_size(space)
        except ValueError as error:
            raise problem_at(("search_space",), str(error)) from None


def grid_size(space: Mapping[str, list[Scalar] | Choices | Interval]) -> int:
    """How many settings a grid has.

    Raises:
        ValueError: it is too large, or an interval cannot be listed.
    """
    size = 1
    for name, domain in space.items():
        size *= len(_listed(name, domain))
        if size > MAX_GRID:
            raise ValueError(
                f"the grid has more than {MAX_GRID} combinations: list fewer values, or use strategy: random"
            )
    return size


def daf_grid_search(search_space: Mapping[str, Any]) -> list[dict[str, Scalar]]:
    """All combinations of a search space, the last parameter changing fastest.

    Raises:
        ValueError: there are more than a million, or an interval has no step.
    """
    space = {name: _DOMAIN.validate_python(domain) for name, domain in search_space.items()}
    grid_size(space)
    columns = [_listed(name, domain) for name, domain in space.items()]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*columns)]


def daf_random_search(search_space: Mapping[str, Any], num_samples: int, seed: int = 42) -> list[dict[str, Scalar]]:
    """Independent uniform draws from a search space; the same seed draws the same.

    Raises:
        ValueError: the search space or the number of samples cannot be used.
    """
    if num_samples < 0:
        raise ValueError(f"num_samples {num_samples} is negative")
    space = {name: explicit(_DOMAIN.validate_python(domain), "random") for name, domain in search_space.items()}
    source = random.Random(seed)
    return [{name: _draw(domain, source) for name, domain in space.items()} for _ in range(num_samples)]


def _listed(name: str, domain: list[Scalar] | Choices | Interval) -> Sequence[Scalar]:
    values = domain if isinstance(domain, list) else domain.choices if isinstance(domain, Choices) else domain.values()
    if values is None:
        raise ValueError(f"{name}: {_UNLISTED}")
    return values


def _draw(domain: Choices | Interval, source: random.Random) -> Scalar:
    if isinstance(domain, Choices):
        drawn: Scalar = source.choice(domain.choices)
        return drawn
    if (values := domain.values() if domain.step else None) is not None:
        return source.choice(values)
    if domain.log:
        value = math.exp(source.uniform(math.log(domain.min), math.log(domain.max)))
        value = min(max(value, domain.min), domain.max)
    elif domain.int:
        return source.randint(round(domain.min), round(domain.max))
    else:
        value = source.uniform(domain.min, domain.max)
    return round(value) if domain.int else value
