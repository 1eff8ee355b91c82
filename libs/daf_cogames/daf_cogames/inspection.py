"""What can be known of a policy class, a user's own too: it is constructed once, so only a runner may ask."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from mettagrid.policy.policy_env_interface import PolicyEnvInterface

from daf_cogames.arguments import Parameter
from daf_cogames.policies import PolicyError, PolicySource, load_policy, load_policy_class, named_parameters


@dataclass(frozen=True)
class PolicyInspection:
    """A policy class. trainable: it has a network; problem: why its defaults do not construct it, else empty."""

    class_path: str
    description: str
    parameters: tuple[Parameter, ...]
    trainable: bool
    recurrent: bool
    problem: str


def inspect_policy(source: PolicySource, environment: PolicyEnvInterface) -> PolicyInspection:
    """Describe the class of a source. Raises PolicyError where there is no such policy class."""
    policy_class = load_policy_class(source)
    trainable = recurrent = False
    problem = ""
    try:
        policy = load_policy(source, environment)
        trainable = policy.network() is not None
        recurrent = bool(getattr(policy, "is_recurrent", lambda: False)())
    except PolicyError as error:
        problem = error.message
    return PolicyInspection(
        class_path=f"{policy_class.__module__}.{policy_class.__qualname__}",
        description=(inspect.getdoc(policy_class) or "").partition("\n")[0] if policy_class.__doc__ else "",
        parameters=named_parameters(policy_class),
        trainable=trainable,
        recurrent=recurrent,
        problem=problem,
    )
