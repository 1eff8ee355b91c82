"""Every parameter that an experiment can set by name, as pure data: services, which carry no torch, read it.

A full name is `trainer.learning_rate`, `policy.hidden_size` or `env.max_steps`: the part before the dot says where the
value lands. The `trainer` parameters are those of PuffeRL, the optimiser loop that `cogames.train.train()` runs; their
defaults are the ones that function passes. The `policy` parameters are the named constructor arguments of a policy
class and differ by class, so they are not listed here.
"""

from __future__ import annotations

import difflib
import enum
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from daf_cogames.missions import DIFFICULTIES

type Value = bool | int | float | str

DEFAULT_BPTT_HORIZON = 64
DEFAULT_MINIBATCH_SIZE = 4096


class Target(enum.Enum):
    """Where a parameter lands. The value is the first part of the parameter's full name."""

    TRAINER = "trainer"
    POLICY = "policy"
    ENVIRONMENT = "env"


class Kind(enum.Enum):
    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    STRING = "string"


@dataclass(frozen=True)
class Parameter:
    """One row of the table.

    name: the full name; default: None where the mission's own value is kept; minimum, maximum: the bounds, which are
    allowed themselves unless `above_minimum` or `below_maximum`; choices: of a string; note: what is known about its
    effect.
    """

    name: str
    kind: Kind
    default: Value | None
    note: str
    minimum: float = -math.inf
    maximum: float = math.inf
    above_minimum: bool = False
    below_maximum: bool = False
    choices: tuple[str, ...] = ()

    @property
    def target(self) -> Target:
        return Target(self.name.partition(".")[0])

    @property
    def key(self) -> str:
        """The name without its first part: what the target itself calls it."""
        return self.name.partition(".")[2]


@dataclass(frozen=True)
class Problem:
    """What is wrong with the parameter `name` (as the user wrote it)."""

    name: str
    message: str


_ONE_STEP = "no effect with one gradient step per update (update_epochs 1 and the minibatch as large as the batch)"

TRAINER_PARAMETERS = (
    Parameter("trainer.learning_rate", Kind.FLOAT, 0.00092, "Adam's step size at the start", 0, 1, above_minimum=True),
    Parameter("trainer.anneal_lr", Kind.BOOL, True, "let the learning rate fall to 0 along a cosine"),
    Parameter("trainer.adam_beta1", Kind.FLOAT, 0.95, "decay of Adam's mean of gradients", 0, 1, below_maximum=True),
    Parameter("trainer.adam_beta2", Kind.FLOAT, 0.999, "decay of Adam's mean of squares", 0, 1, below_maximum=True),
    Parameter("trainer.adam_eps", Kind.FLOAT, 1e-8, "added to Adam's denominator", 0, 1, above_minimum=True),
    Parameter("trainer.gamma", Kind.FLOAT, 0.995, "discount of a reward for each environment step", 0, 1),
    Parameter("trainer.gae_lambda", Kind.FLOAT, 0.90, "weight of longer returns in the advantage", 0, 1),
    Parameter("trainer.update_epochs", Kind.INT, 1, "passes over a batch in each update", 1, 100),
    Parameter(
        "trainer.clip_coef", Kind.FLOAT, 0.2, f"range of the policy ratio; {_ONE_STEP}", 0, 10, above_minimum=True
    ),
    Parameter("trainer.vf_coef", Kind.FLOAT, 2.0, "weight of the value loss", 0, 1000),
    Parameter(
        "trainer.vf_clip_coef", Kind.FLOAT, 0.2, f"range of a value's change; {_ONE_STEP}", 0, 1000, above_minimum=True
    ),
    Parameter("trainer.ent_coef", Kind.FLOAT, 0.01, "weight of the entropy bonus", 0, 10),
    Parameter(
        "trainer.max_grad_norm", Kind.FLOAT, 1.5, "the gradient is scaled down to this norm", 0, 1e6, above_minimum=True
    ),
    Parameter(
        "trainer.bptt_horizon",
        Kind.INT,
        DEFAULT_BPTT_HORIZON,
        "agent steps in a segment, the unit of advantages and of an LSTM's memory while learning; not 1, for which "
        "every advantage is zero",
        2,
        4096,
    ),
    Parameter(
        "trainer.minibatch_size",
        Kind.INT,
        DEFAULT_MINIBATCH_SIZE,
        "agent steps in a gradient step; at most one batch (environments x agents x bptt_horizon)",
        2,
        32768,
    ),
    Parameter("trainer.prio_alpha", Kind.FLOAT, 0.8, "how much segments of large advantage are preferred", 0, 10),
    Parameter("trainer.prio_beta0", Kind.FLOAT, 0.2, "how much that preference is corrected for at the start", 0, 1),
    Parameter(
        "trainer.vtrace_rho_clip", Kind.FLOAT, 1.0, "V-trace's limit of the value's ratio", 0, 1000, above_minimum=True
    ),
    Parameter(
        "trainer.vtrace_c_clip", Kind.FLOAT, 1.0, "V-trace's limit of the trace's ratio", 0, 1000, above_minimum=True
    ),
    Parameter(
        "trainer.precision",
        Kind.STRING,
        "float32",
        "number format of the forward passes",
        choices=("float32", "bfloat16"),
    ),
)

ENVIRONMENT_PARAMETERS = (
    Parameter("env.variant", Kind.STRING, None, "one more variant of the mission to train on"),
    Parameter(
        "env.difficulty",
        Kind.STRING,
        None,
        "difficulty of the mission to train on",
        choices=DIFFICULTIES,
    ),
    Parameter("env.cogs", Kind.INT, None, "agents in the mission to train on", 1, 1024),
    Parameter("env.max_steps", Kind.INT, None, "environment steps in an episode of training", 1, 1_000_000),
)

# Other names under which users know a parameter, without the part before the dot.
ALIASES: Mapping[str, str] = {
    "lr": "trainer.learning_rate",
    "learning_rate": "trainer.learning_rate",
    "batch_size": "trainer.minibatch_size",
}

# Arguments of PuffeRL that look like hyperparameters and are not to be had, and why.
_REFUSED: Mapping[str, str] = {
    "trainer.min_lr_ratio": "PuffeRL never reads it: the learning rate always falls to 0",
    "trainer.optimizer": "only Adam is there: PuffeRL's other optimiser needs a package that CoGames does not install",
    "trainer.max_minibatch_size": "PuffeRL adds up the gradients of the parts of a minibatch, it does not average them",
    "trainer.compile": "CoGames sets no mode for it, so PuffeRL fails",
    "trainer.seed": "the seed is a field of the experiment",
    "trainer.total_timesteps": "the number of agent steps is a field of the experiment",
    "trainer.num_steps": "the number of agent steps is a field of the experiment",
    "trainer.checkpoint_interval": "the checkpoint interval is a field of the experiment",
}


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
    if full in _REFUSED:
        return f"cannot be set: {_REFUSED[full]}"
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
