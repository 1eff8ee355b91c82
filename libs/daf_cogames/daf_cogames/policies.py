"""Policies: from a name, arguments and weights to an object that plays.

cogames' loader calls whatever the class path names and lets a `**kwargs` constructor swallow a misspelt argument.
Here a class is checked before it is called, and only arguments that its constructor names are passed.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from mettagrid.policy.loader import discover_and_register_policies, initialize_or_load_policy
from mettagrid.policy.policy import AgentPolicy, MultiAgentPolicy, PolicySpec
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.policy.policy_registry import get_policy_registry
from mettagrid.simulator import Action
from mettagrid.util.module import load_symbol

from daf_cogames.aliases import CORRECTED_POLICIES
from daf_cogames.arguments import HARD_CODED, Argument, Parameter, argument_problem
from daf_cogames.code import shadowed_module
from daf_cogames.suggestions import did_you_mean

# What the loader itself passes; never an argument of the user.
LOADER_PARAMETERS = ("policy_env_info", "device")
"""Where no parameter has the name of the environment, it is the first."""


@dataclass(frozen=True)
class PolicySource:
    """Where a policy comes from.

    class_path: `module.Class`, or a short name of cogames; arguments: for its constructor, by name; weights: a file
    for its `load_policy_data`; code: a directory with the user's own modules (see `daf_cogames.code`), which must be
    on the path; requirements: a directory of packages that the code needs, likewise; bundle: whose class it is, with
    weights and arguments as cogames would pass them; elsewhere: who loads it instead of this process.
    """

    class_path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    code: Path | None = None
    requirements: Path | None = None
    bundle: Bundle | None = None
    elsewhere: PolicyLoader | None = None


@dataclass(frozen=True)
class Bundle:
    """An unpacked bundle, whose policy only a process of its own may load. setup: its set-up script, relative."""

    root: Path
    setup: str | None


class PolicyLoader(Protocol):
    """Loads policies that this process does not load itself."""

    def load(self, source: PolicySource, environment: PolicyEnvInterface, device: str) -> PolicyElsewhere:
        """As `load_policy`. Raises also LoaderError."""


class PolicyElsewhere(MultiAgentPolicy):
    """A policy that is not in this process, so that nothing here need take its observations apart."""

    def step_rows(self, observed: Sequence[tuple[int, bytes]]) -> list[Action]:
        """The actions of some seats, which see these rows; see `daf_cogames.play.observations`."""
        raise NotImplementedError

    def close(self) -> None:
        """Its episode is over."""
        raise NotImplementedError


class LoaderError(RuntimeError):
    """Policies cannot be had elsewhere; none of them is to blame."""


class PolicyError(ValueError):
    """A policy that cannot be used; `field` is `class_path`, `arguments.<name>` or `weights`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


def load_policy(source: PolicySource, environment: PolicyEnvInterface, device: str = "cpu") -> MultiAgentPolicy:
    """The policy, built by mettagrid's own loader after the checks. Raises PolicyError, whoever's code failed."""
    if source.elsewhere is not None:
        return source.elsewhere.load(dataclasses.replace(source, elsewhere=None), environment, device)
    policy_class = load_policy_class(source)
    if source.bundle is None:  # a bundle's are JSON, and pass as they are
        check_arguments(policy_class, source.arguments)
    arguments: dict[str, Any] = dict(source.arguments)
    if "device" in _signature(policy_class).parameters:
        arguments["device"] = device
    class_path = f"{policy_class.__module__}.{policy_class.__qualname__}"

    policy = _construct(class_path, arguments, environment)
    if source.bundle is None:
        _check_size(class_path, policy, arguments, environment)
    if source.weights is not None:
        try:
            policy.load_policy_data(str(source.weights))
        except (Exception, SystemExit) as error:
            message = f"{class_path} could not load the weights {source.weights.name}: {last_line(error)}"
            raise PolicyError("weights", message) from error
    return policy


def load_policy_class(source: PolicySource) -> type[MultiAgentPolicy]:
    """The class that a source names, checked to be a policy without calling it. Raises PolicyError."""
    class_path = _full_class_path(source.class_path)
    if source.code is not None and (owner := _shadowing(class_path, source.code)) is not None:
        module = class_path.partition(".")[0]
        raise PolicyError("class_path", f"your module {module!r} has the name of {owner}; rename it")
    try:
        symbol = load_symbol(class_path)
    except (Exception, SystemExit) as error:  # importing a user's module runs the user's code
        raise PolicyError("class_path", f"cannot import {class_path!r}: {last_line(error)}") from error
    if not inspect.isclass(symbol):
        raise PolicyError("class_path", f"{class_path} is not a class but a {type(symbol).__name__}")
    if not issubclass(symbol, MultiAgentPolicy):
        hint = "; name the one whose agent_policy() returns it" if issubclass(symbol, AgentPolicy) else ""
        raise PolicyError("class_path", f"{class_path} is not a mettagrid MultiAgentPolicy{hint}")
    return symbol


def named_parameters(policy_class: type[MultiAgentPolicy]) -> tuple[Parameter, ...]:
    """What a user may set: the constructor's named parameters, without those that the loader passes."""
    return tuple(
        Parameter(
            name=parameter.name,
            type=_type_name(parameter),
            default=parameter.default if isinstance(parameter.default, Argument) else None,
            required=parameter.default is inspect.Parameter.empty,
        )
        for parameter in _own_parameters(policy_class)
        if parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    )


def check_arguments(policy_class: type[MultiAgentPolicy], arguments: Mapping[str, Argument]) -> None:
    """Raise PolicyError for the first argument that the constructor does not name, or of the wrong type."""
    hard_coded = HARD_CODED.get(f"{policy_class.__module__}.{policy_class.__qualname__}", {})
    problem = argument_problem(policy_class.__name__, named_parameters(policy_class), arguments, hard_coded)
    if problem is not None:
        raise PolicyError(*problem)


def last_line(error: BaseException) -> str:
    """The last line of an error's traceback, such as `RuntimeError: out of luck`, at most 500 characters."""
    return " ".join("".join(traceback.format_exception_only(error)).split())[:500]


def _construct(class_path: str, arguments: dict[str, Any], environment: PolicyEnvInterface) -> MultiAgentPolicy:
    try:
        return initialize_or_load_policy(environment, PolicySpec(class_path=class_path, init_kwargs=arguments))
    except (Exception, SystemExit) as error:
        raise PolicyError("class_path", f"{class_path} could not be constructed: {last_line(error)}") from error


def _check_size(
    class_path: str, policy: MultiAgentPolicy, arguments: dict[str, Any], environment: PolicyEnvInterface
) -> None:
    """Raise PolicyError where a constructor accepts `hidden_size` and builds the same network for any.

    The attribute may well mean something else, so that the networks decide: another size must give other tensors.
    """
    if "hidden_size" not in arguments:
        return
    asked, network = arguments["hidden_size"], policy.network()
    built = getattr(network, "hidden_size", asked)
    if network is None or built == asked:
        return
    with torch.random.fork_rng(devices=[]):
        other = _construct(class_path, {**arguments, "hidden_size": 2 * asked}, environment).network()
    if other is not None and _shapes(other) == _shapes(network):
        message = f"{class_path} accepts hidden_size {asked}, but the network that it builds has {built}"
        raise PolicyError("arguments.hidden_size", message)


def _shadowing(class_path: str, directory: Path) -> str | None:
    """What is imported instead of the user's own module, unless that is a copy of it, as plain cogames may need."""
    owner = shadowed_module(class_path, directory)
    if owner is None:
        return None
    name = class_path.rpartition(".")[0]
    try:
        installed = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return owner
    copy = directory.joinpath(*name.split(".")).with_suffix(".py")
    if installed is None or installed.origin is None or not copy.is_file():
        return owner
    return None if copy.read_bytes() == Path(installed.origin).read_bytes() else owner


def _shapes(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _full_class_path(name: str) -> str:
    if "." in name:
        return name
    discover_and_register_policies()
    registry = {**get_policy_registry(), **CORRECTED_POLICIES}
    if name not in registry:
        raise PolicyError("class_path", f"unknown policy {name[:100]!r}{did_you_mean(name, sorted(registry))}")
    return registry[name]


def _signature(policy_class: type[MultiAgentPolicy]) -> inspect.Signature:
    return inspect.signature(policy_class.__init__)


def _own_parameters(policy_class: type[MultiAgentPolicy]) -> list[inspect.Parameter]:
    """The parameters that neither the loader nor Python passes."""
    parameters = list(_signature(policy_class).parameters.values())[1:]
    if "policy_env_info" not in {parameter.name for parameter in parameters}:
        del parameters[:1]
    return [parameter for parameter in parameters if parameter.name not in LOADER_PARAMETERS]


def _type_name(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    if annotation is not inspect.Parameter.empty:
        return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    if isinstance(parameter.default, Argument):
        return type(parameter.default).__name__
    return ""
