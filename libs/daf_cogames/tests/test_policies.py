"""A policy is checked before it is called, and takes the arguments that its constructor names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mettagrid.policy.policy_env_interface import PolicyEnvInterface

from daf_cogames.code import on_path
from daf_cogames.missions import Mission, build_mission
from daf_cogames.policies import PolicyError, PolicySource, load_policy, load_policy_class, named_parameters

OWN_POLICIES = """
import torch
from mettagrid.policy.noop import NoopPolicy
from mettagrid.policy.policy import AgentPolicy

class Counting(NoopPolicy):
    def __init__(self, policy_env_info, device="cpu", *, size: int = 3, rate: float = 0.5, fast=False, name: str | None = None, **kwargs):
        super().__init__(policy_env_info)
        self.size, self.rate = size, rate

class Deaf(NoopPolicy):
    def __init__(self, policy_env_info, hidden_size: int = 32):
        super().__init__(policy_env_info)
        self.net = torch.nn.Linear(2, 32)
        self.net.hidden_size = 32

    def network(self):
        return self.net

class Doubling(Deaf):
    def __init__(self, policy_env_info, hidden_size: int = 32):
        super().__init__(policy_env_info)
        self.net = torch.nn.Linear(2, 2 * hidden_size)
        self.net.hidden_size = 2 * hidden_size

class Calling(NoopPolicy):
    def __init__(self, env, device="cpu", *, size: int = 3):
        super().__init__(env)
        self.size = size

class Demanding(NoopPolicy):
    def __init__(self, policy_env_info, size: int):
        super().__init__(policy_env_info)

class Exploding(NoopPolicy):
    def __init__(self, policy_env_info):
        raise RuntimeError("out of luck")

class Quitting(NoopPolicy):
    def __init__(self, policy_env_info):
        raise SystemExit(0)

class Agent(AgentPolicy): ...

class Stranger:
    def __init__(self, *args):
        raise SystemExit("a class that is not a policy was called")

def function(): ...
"""  # noqa: E501


@pytest.fixture(scope="module")
def environment() -> PolicyEnvInterface:
    return PolicyEnvInterface.from_mg_cfg(build_mission(Mission("cogsguard_arena.basic", cogs=2)))


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "own_policies.py").write_text(OWN_POLICIES)
    (tmp_path / "broken_policies.py").write_text("import a_module_that_is_not_there")
    (tmp_path / "quitting_policies.py").write_text("raise SystemExit(3)")
    with on_path(tmp_path):
        yield tmp_path


def test_a_short_name_loads_cogames_policy(environment: PolicyEnvInterface) -> None:
    policy = load_policy(PolicySource("puffer", {"hidden_size": 8}), environment)

    assert type(policy).__name__ == "PufferDefaultPolicy"
    network = policy.network()
    assert network is not None
    assert network.hidden_size == 8


def test_a_users_class_takes_its_arguments(environment: PolicyEnvInterface, code: Path) -> None:
    policy = load_policy(PolicySource("own_policies.Counting", {"size": 5, "rate": 1}, code=code), environment)

    assert (policy.size, policy.rate) == (5, 1)  # type: ignore[attr-defined]


def test_the_environment_comes_first_whatever_the_constructor_calls_it(
    environment: PolicyEnvInterface, code: Path
) -> None:
    policy = load_policy(PolicySource("own_policies.Calling", {"size": 5}, code=code), environment)

    assert policy.size == 5
    assert [
        one.name for one in named_parameters(load_policy_class(PolicySource("own_policies.Calling", code=code)))
    ] == ["size"]


def test_a_network_that_calls_something_else_its_hidden_size_is_left_alone(
    environment: PolicyEnvInterface, code: Path
) -> None:
    torch.manual_seed(5)
    policy = load_policy(PolicySource("own_policies.Doubling", {"hidden_size": 8}, code=code), environment)
    after = torch.rand(1)

    assert policy.network().hidden_size == 16  # type: ignore[union-attr]
    torch.manual_seed(5)
    torch.nn.Linear(2, 32), torch.nn.Linear(2, 16)
    assert torch.equal(torch.rand(1), after), "looking at the network drew random numbers"


def test_weights_are_loaded(environment: PolicyEnvInterface, tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = load_policy(PolicySource("lstm"), environment)
    trained.save_policy_data(str(tmp_path / "weights.pt"))

    loaded = load_policy(PolicySource("lstm", weights=tmp_path / "weights.pt"), environment)

    expected, found = trained.network(), loaded.network()
    assert expected is not None
    assert found is not None
    assert all(torch.equal(*pair) for pair in zip(expected.parameters(), found.parameters(), strict=True))


def test_weights_that_do_not_load_are_the_weights_fault(environment: PolicyEnvInterface, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_text("not weights")

    with pytest.raises(PolicyError, match=r"could not load the weights weights\.pt") as raised:
        load_policy(PolicySource("lstm", weights=tmp_path / "weights.pt"), environment)

    assert raised.value.field == "weights"


@pytest.mark.parametrize(
    ("class_path", "arguments", "field", "message"),
    [
        ("lstn", {}, "class_path", "did you mean 'lstm'?"),
        ("no_such_module.Policy", {}, "class_path", "No module named 'no_such_module'"),
        ("own_policies.Missing", {}, "class_path", "cannot import 'own_policies.Missing'"),
        ("broken_policies.Policy", {}, "class_path", "No module named 'a_module_that_is_not_there'"),
        ("quitting_policies.Policy", {}, "class_path", "SystemExit: 3"),
        ("own_policies.function", {}, "class_path", "not a class"),
        ("own_policies.Stranger", {}, "class_path", "not a mettagrid MultiAgentPolicy"),
        ("own_policies.Agent", {}, "class_path", "name the one whose agent_policy() returns it"),
        ("own_policies.Exploding", {}, "class_path", "RuntimeError: out of luck"),
        ("own_policies.Quitting", {}, "class_path", "SystemExit: 0"),
        ("own_policies.Demanding", {}, "arguments.size", "needs a value for 'size'"),
        ("own_policies.Counting", {"sise": 3}, "arguments.sise", "did you mean 'size'?"),
        ("own_policies.Counting", {"size": 3.5}, "arguments.size", "must be int, not 3.5"),
        ("own_policies.Counting", {"size": True}, "arguments.size", "must be int, not True"),
        ("own_policies.Counting", {"rate": "fast"}, "arguments.rate", "must be float"),
        ("own_policies.Counting", {"fast": 1}, "arguments.fast", "must be bool"),
        ("own_policies.Counting", {"device": "cuda"}, "arguments.device", "no parameter 'device'"),
        ("tutorial", {"hidden_size": 64}, "arguments.hidden_size", "cannot be set: it is always 512"),
        ("lstm", {"hidden_size": 64}, "arguments.hidden_size", "always 128; that of lstm_corrected can be set"),
        ("stateless", {"hidden_size": 64}, "arguments.hidden_size", "cannot be set: it is always 128"),
        ("stateless_corrected", {"hidden_size": 64}, "arguments.hidden_size", "cannot be set: it is always 128"),
        ("lstm", {"depth": 2}, "arguments.depth", "no parameter 'depth'; it takes none"),
        ("own_policies.Deaf", {"hidden_size": 64}, "arguments.hidden_size", "accepts hidden_size 64, but the network"),
        ("puffer", {"hiden_size": 64}, "arguments.hiden_size", "did you mean 'hidden_size'?"),
        ("token", {}, "arguments.features", "needs a value for 'features'"),
    ],
)
def test_what_cannot_be_used_says_which_field_and_why(
    class_path: str, arguments: dict[str, bool | int | float | str], field: str, message: str,
    environment: PolicyEnvInterface, code: Path,
) -> None:  # fmt: skip
    with pytest.raises(PolicyError) as raised:
        load_policy(PolicySource(class_path, arguments, code=code), environment)

    assert raised.value.field == field
    assert message in raised.value.message


def test_named_parameters_are_those_that_a_user_may_set(code: Path) -> None:
    parameters = named_parameters(load_policy_class(PolicySource("own_policies.Counting", code=code)))

    found = [(parameter.name, parameter.type, parameter.default, parameter.required) for parameter in parameters]
    assert found == [
        ("size", "int", 3, False),
        ("rate", "float", 0.5, False),
        ("fast", "bool", False, False),
        ("name", "str | None", None, False),
    ]


def test_a_users_module_that_hides_behind_an_installed_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "einops.py").write_text("class Policy: ...")

    with on_path(tmp_path), pytest.raises(PolicyError, match="'einops' has the name of an installed module"):
        load_policy_class(PolicySource("einops.Policy", code=tmp_path))
