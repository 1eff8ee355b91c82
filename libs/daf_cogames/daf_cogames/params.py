"""Whether parameters that an experiment sets by name can be used, as pure functions: services, which carry no torch,
ask them. What there is to set is in `daf_cogames.parameter_table`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from daf_cogames.parameter_table import (
    ALIASES,
    DEFAULT_BPTT_HORIZON,
    ENVIRONMENT_PARAMETERS,
    REFUSED,
    TRAINER_PARAMETERS,
    Kind,
    Parameter,
    Target,
    Value,
)


@dataclass(frozen=True)
class Problem:
    """What is wrong with the parameter `name` (as the user wrote it)."""

    name: str
    message: str


def canonical_name(name: str, policy_arguments: Collection[str] = ()) -> str:
    """The full name of a parameter: of an alias (`lr`), or of one written without its first part (`gamma`).

    policy_arguments: the named constructor arguments of the policy in question (`hidden_size`). Where a name is one of
    the trainer and of the policy, it is the trainer's. A name that is not known is returned as it is.
    """
    target, dot, rest = name.partition(".")
    bare = rest if dot and target == Target.TRAINER.value else name
    if bare in ALIASES:
        return ALIASES[bare]
    if dot:
        return name
    for known in (*_TRAINER, *_ENVIRONMENT, *(f"{Target.POLICY.value}.{argument}" for argument in policy_arguments)):
        if known.endswith(f".{name}"):
            return known
    return name


def check_trainer_parameters(values: Mapping[str, Value]) -> list[Problem]:
    """What is wrong with these trainer parameters, by full name or alias; empty if PuffeRL can train with them."""
    problems = _check(values, _TRAINER)
    if not problems:
        problems = _check_batch({canonical_name(name): value for name, value in values.items()})
    return problems


def check_minibatch(values: Mapping[str, Value], environments: int, agents: int) -> list[Problem]:
    """Whether a minibatch that was asked for divides a worker's batch; if not, PuffeRL would drop the rest of it.

    environments: of one worker; agents: in each of them. One that is larger than the batch is reduced, not refused.
    """
    named = {canonical_name(name): value for name, value in values.items()}
    minibatch = int(named.get("trainer.minibatch_size", 0))
    horizon = int(named.get("trainer.bptt_horizon", DEFAULT_BPTT_HORIZON))
    batch = environments * agents * horizon
    if not minibatch or minibatch >= batch or batch % minibatch == 0:
        return []
    segments = environments * agents
    fitting = [count * horizon for count in range(1, segments + 1) if segments % count == 0]
    nearest = min(fitting, key=lambda size: abs(size - minibatch))
    message = (
        f"must divide the batch of {batch} agent steps ({environments} environments x {agents} agents x bptt_horizon "
        f"{horizon}), for example {nearest}, not {minibatch}: the rest of every batch would be dropped"
    )
    return [Problem("trainer.minibatch_size", message)]


def check_environment_parameters(values: Mapping[str, Value]) -> list[Problem]:
    """What is wrong with these environment parameters; whether a variant exists and builds, the mission itself says."""
    return _check(values, _ENVIRONMENT)


_TRAINER = {parameter.name: parameter for parameter in TRAINER_PARAMETERS}
_ENVIRONMENT = {parameter.name: parameter for parameter in ENVIRONMENT_PARAMETERS}


def _check(values: Mapping[str, Value], table: Mapping[str, Parameter]) -> list[Problem]:
    problems = []
    written: dict[str, str] = {}
    for name, value in values.items():
        full = canonical_name(name)
        if full in written:
            problems.append(Problem(name, f"is {full}, which {written[full]!r} sets already"))
        elif full in table:
            message = _check_value(table[full], value)
            if message:
                problems.append(Problem(name, message))
        else:
            problems.append(Problem(name, _unknown(name, full, table)))
        written[full] = name
    return problems


def _unknown(name: str, full: str, table: Mapping[str, Parameter]) -> str:
    if full in REFUSED:
        return f"cannot be set: {REFUSED[full]}"
    near = difflib.get_close_matches(full[:100].lower(), table, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown parameter {name[:100]!r}{hint} (known: {', '.join(table)})"


def _check_value(parameter: Parameter, value: Value) -> str | None:
    """The message, or None if the value can be used."""
    if not _is_of(parameter.kind, value):
        number = parameter.kind in (Kind.INT, Kind.FLOAT) and isinstance(value, str)
        hint = ": this is a text, write the number without quotes" if number and _reads_as_number(value) else ""
        return f"must be {_KIND_NAMES[parameter.kind]}, not {_short(value)}{hint}"
    if isinstance(value, str):
        known = not parameter.choices or value in parameter.choices
        return None if known else f"must be one of {', '.join(parameter.choices)}, not {_short(value)}"
    return _check_bounds(parameter, value)


def _reads_as_number(text: object) -> bool:
    try:
        float(str(text))
    except ValueError:
        return False
    return True


def _is_of(kind: Kind, value: Value) -> bool:
    match kind:
        case Kind.BOOL:
            return isinstance(value, bool)
        case Kind.STRING:
            return isinstance(value, str)
        case Kind.INT:
            return isinstance(value, int) and not isinstance(value, bool)
        case Kind.FLOAT:
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_KIND_NAMES = {Kind.BOOL: "true or false", Kind.INT: "a whole number", Kind.FLOAT: "a number", Kind.STRING: "a string"}


def _short(value: Value) -> str:
    return repr(value[:100] if isinstance(value, str) else value)


def _check_bounds(parameter: Parameter, value: float) -> str | None:
    too_small = value <= parameter.minimum if parameter.above_minimum else value < parameter.minimum
    too_large = value >= parameter.maximum if parameter.below_maximum else value > parameter.maximum
    if not too_small and not too_large:
        return None
    lower = f"greater than {parameter.minimum:g}" if parameter.above_minimum else f"at least {parameter.minimum:g}"
    upper = f"less than {parameter.maximum:g}" if parameter.below_maximum else f"at most {parameter.maximum:g}"
    return f"must be {lower} and {upper}, not {value!r}"


def _check_batch(values: Mapping[str, Value]) -> list[Problem]:
    """A minibatch is made of whole segments. Rounding what was asked for could make two trials of a sweep one."""
    minibatch = values.get("trainer.minibatch_size")
    if minibatch is None:
        return []
    horizon = int(values.get("trainer.bptt_horizon", DEFAULT_BPTT_HORIZON))
    if int(minibatch) % horizon == 0:
        return []
    nearest = max(1, round(int(minibatch) / horizon)) * horizon
    message = f"must be a multiple of trainer.bptt_horizon ({horizon}), for example {nearest}, not {minibatch}"
    return [Problem("trainer.minibatch_size", message)]
