"""Every parameter that an experiment can set by name, as pure data: services, which carry no torch, read it.

A full name is `trainer.learning_rate`, `policy.hidden_size` or `env.max_steps`: the part before the dot says where the
value lands. The `trainer` parameters are those of PuffeRL, the optimiser loop that `cogames.train.train()` runs; their
defaults are the ones that function passes. The `policy` parameters are the named constructor arguments of a policy
class and differ by class, so they are not listed here.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
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


_ONE_STEP = "no effect with one gradient step per update (update_epochs 1 and the minibatch as large as the batch)"
_RATIO = "the policy ratio is 1 until the first gradient step of an update, so 1 and more has " + _ONE_STEP

TRAINER_PARAMETERS = (
    Parameter("trainer.learning_rate", Kind.FLOAT, 0.00092, "Adam's step size at the start", 0, 1, above_minimum=True),
    Parameter(
        "trainer.anneal_lr",
        Kind.BOOL,
        True,
        "let the learning rate fall to 0 along a cosine over the whole run; else it stays",
    ),
    Parameter("trainer.adam_beta1", Kind.FLOAT, 0.95, "decay of Adam's mean of gradients", 0, 1, below_maximum=True),
    Parameter("trainer.adam_beta2", Kind.FLOAT, 0.999, "decay of Adam's mean of squares", 0, 1, below_maximum=True),
    Parameter("trainer.adam_eps", Kind.FLOAT, 1e-8, "added to Adam's denominator", 0, 1, above_minimum=True),
    Parameter("trainer.gamma", Kind.FLOAT, 0.995, "discount of a reward for each environment step; 1 is none", 0, 1),
    Parameter(
        "trainer.gae_lambda",
        Kind.FLOAT,
        0.90,
        "weight of longer returns in the advantage; 0 looks one step ahead",
        0,
        1,
    ),
    Parameter(
        "trainer.update_epochs",
        Kind.INT,
        1,
        "passes over a batch in each update; of all of them together, whole minibatches are learnt from",
        1,
        100,
    ),
    Parameter(
        "trainer.clip_coef", Kind.FLOAT, 0.2, f"range of the policy ratio; {_ONE_STEP}", 0, 10, above_minimum=True
    ),
    Parameter("trainer.vf_coef", Kind.FLOAT, 2.0, "weight of the value loss", 0, 1000),
    Parameter(
        "trainer.vf_clip_coef", Kind.FLOAT, 0.2, f"range of a value's change; {_ONE_STEP}", 0, 1000, above_minimum=True
    ),
    Parameter(
        "trainer.ent_coef",
        Kind.FLOAT,
        0.01,
        "weight of the entropy bonus; 0 lets a policy become sure of itself early",
        0,
        10,
    ),
    Parameter(
        "trainer.max_grad_norm",
        Kind.FLOAT,
        1.5,
        "the gradient of each step is scaled down to this norm",
        0,
        1e6,
        above_minimum=True,
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
        "agent steps in a gradient step, for each worker; a multiple of bptt_horizon that divides the batch "
        "(environments x agents x bptt_horizon); a larger one is reduced to the batch",
        2,
        32768,
    ),
    Parameter(
        "trainer.prio_alpha",
        Kind.FLOAT,
        0.8,
        "how much segments of large advantage are preferred; 0 draws all alike",
        0,
        10,
    ),
    Parameter(
        "trainer.prio_beta0",
        Kind.FLOAT,
        0.2,
        "how much that preference is corrected for at the start; it rises towards 1 with prio_alpha",
        0,
        1,
    ),
    Parameter(
        "trainer.vtrace_rho_clip",
        Kind.FLOAT,
        1.0,
        f"V-trace's limit of the value's ratio; {_RATIO}",
        0,
        1000,
        above_minimum=True,
    ),
    Parameter(
        "trainer.vtrace_c_clip",
        Kind.FLOAT,
        1.0,
        f"V-trace's limit of the trace's ratio; {_RATIO}",
        0,
        1000,
        above_minimum=True,
    ),
    Parameter(
        "trainer.precision",
        Kind.STRING,
        "float32",
        "number format of the forward passes; bfloat16 is faster on GPUs that have it, and less exact",
        choices=("float32", "bfloat16"),
    ),
)

ENVIRONMENT_PARAMETERS = (
    Parameter("env.variant", Kind.STRING, None, "one more variant of the mission to train on, after those that it has"),
    Parameter(
        "env.difficulty",
        Kind.STRING,
        None,
        "difficulty of the mission to train on",
        choices=DIFFICULTIES,
    ),
    Parameter(
        "env.cogs",
        Kind.INT,
        None,
        "agents in the mission to train on; `daf missions NAME` says which numbers build",
        1,
        1024,
    ),
    Parameter(
        "env.max_steps",
        Kind.INT,
        None,
        "environment steps in an episode of training; scores are of the mission's own length",
        1,
        1_000_000,
    ),
)

# Other names under which users know a parameter, without the part before the dot.
ALIASES: Mapping[str, str] = {
    "lr": "trainer.learning_rate",
    "learning_rate": "trainer.learning_rate",
    "batch_size": "trainer.minibatch_size",
}

# Arguments of PuffeRL that look like hyperparameters and are not to be had, and why.
REFUSED: Mapping[str, str] = {
    "trainer.min_lr_ratio": "PuffeRL never reads it: the learning rate always falls to 0",
    "trainer.optimizer": "only Adam is there: PuffeRL's other optimiser needs a package that CoGames does not install",
    "trainer.max_minibatch_size": "PuffeRL adds up the gradients of the parts of a minibatch, it does not average them",
    "trainer.compile": "CoGames sets no mode for it, so PuffeRL fails",
    "trainer.seed": "the seed is a field of the experiment",
    "trainer.total_timesteps": "the number of agent steps is a field of the experiment",
    "trainer.num_steps": "the number of agent steps is a field of the experiment",
    "trainer.checkpoint_interval": "the checkpoint interval is a field of the experiment",
}
