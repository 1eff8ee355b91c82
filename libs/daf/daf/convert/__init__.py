"""Documents as protobuf messages and back: the one place that knows both."""

from daf.convert.evaluations import evaluation_config, evaluation_spec
from daf.convert.missions import mission_config, mission_messages
from daf.convert.policies import Resolver, policy_config
from daf.convert.sweeps import sweep_config, sweep_spec
from daf.convert.training import training_config, training_spec

__all__ = [
    "Resolver",
    "evaluation_config",
    "evaluation_spec",
    "mission_config",
    "mission_messages",
    "policy_config",
    "sweep_config",
    "sweep_spec",
    "training_config",
    "training_spec",
]
