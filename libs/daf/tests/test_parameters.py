from __future__ import annotations

from pathlib import Path

import pytest

from daf.parameters import Parameters
from daf.user_code import UserCode
from daf_common.errors import InvalidArgument
from daf_common.values import to_value
from daf_protos.training.v1.catalog_service_pb2 import HyperparameterInfo

KNOWN = [
    HyperparameterInfo(name="trainer.learning_rate", default_value=to_value(0.001)),
    HyperparameterInfo(name="trainer.minibatch_size", default_value=to_value(4096)),
    HyperparameterInfo(name="trainer.gamma", default_value=to_value(0.9)),
    HyperparameterInfo(name="env.max_steps"),
]

POLICY = """
class Base: ...

class Mine(Base):
    def __init__(self, policy_env_info, device="cpu", size: int = 3, *, deep=True, **rest): ...

class Heir(Mine): ...
"""


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("lr", "trainer.learning_rate"),
        ("learning_rate", "trainer.learning_rate"),
        ("trainer.lr", "trainer.learning_rate"),
        ("batch_size", "trainer.minibatch_size"),
        ("gamma", "trainer.gamma"),
        ("policy.gamma", "policy.gamma"),
        ("size", "policy.size"),
        ("max_steps", "env.max_steps"),
    ],
)
def test_a_name_is_found_its_place(name: str, full: str) -> None:
    assert Parameters(KNOWN, ["size", "gamma"]).canonical(name, "field") == full


@pytest.mark.parametrize(
    ("name", "hint"), [("lerning_rate", "learning_rate"), ("trainer.gama", "gamma"), ("policy.siez", "size")]
)
def test_an_unknown_name_is_refused_with_the_nearest_and_all_known(name: str, hint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Parameters(KNOWN, ["size"]).canonical(name, "search_space.x")

    assert caught.value.violations[0].field == "search_space.x"
    assert f"did you mean '{hint}'?" in caught.value.message
    assert (
        "trainer.learning_rate, trainer.minibatch_size, trainer.gamma, env.max_steps, policy.size"
        in caught.value.message
    )


def test_a_policy_that_alone_knows_its_arguments_takes_explicit_names() -> None:
    parameters = Parameters(KNOWN, None)

    assert parameters.canonical("policy.anything", "x") == "policy.anything"
    with pytest.raises(InvalidArgument, match=r"if the policy's constructor takes it, write 'policy.anything'"):
        parameters.canonical("anything", "x")


def test_a_parameter_in_the_wrong_section_is_sent_to_the_right_one() -> None:
    parameters = Parameters(KNOWN, ["size"])

    assert parameters.under("policy", "size", "x", "training.trainer") == "size"
    with pytest.raises(InvalidArgument, match=r"'size' is policy.size: write it under policy_arguments"):
        parameters.under("trainer", "size", "x", "policy_arguments")
    with pytest.raises(InvalidArgument, match=r"\(known: policy.size\)"):
        parameters.under("policy", "nothing", "x", "training.trainer")


def test_a_whole_number_becomes_real_where_the_parameter_is() -> None:
    parameters = Parameters(KNOWN)

    assert repr(parameters.typed("trainer.learning_rate", 1)) == "1.0"
    assert repr(parameters.typed("trainer.minibatch_size", 1)) == "1"
    assert parameters.typed("trainer.learning_rate", True) is True


def test_a_constructors_arguments_are_read_without_running_the_code(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit\n" + POLICY)
    code = UserCode.of([tmp_path / "mine.py"])

    assert code.constructor_arguments("mine.Mine") == ("size", "deep")
    assert code.constructor_arguments("mine.Heir") is None
    assert code.has("mine.Mine")
    assert not code.has("other.Mine")


def test_a_package_keeps_its_name(tmp_path: Path) -> None:
    package = tmp_path / "pkg" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (package / "__init__.py").write_text(POLICY)

    assert UserCode.of([tmp_path / "pkg"]).constructor_arguments("pkg.inner.Mine") == ("size", "deep")


def test_code_that_is_no_python_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def")

    with pytest.raises(InvalidArgument, match=r"mine.py is not Python"):
        UserCode.of([tmp_path / "mine.py"]).has("mine.Mine")
    with pytest.raises(InvalidArgument, match=r"none.py is neither a file nor a directory"):
        UserCode.of([tmp_path / "none.py"])


@pytest.mark.parametrize("name", ["hidden_size", "policy.hidden_size"])
def test_what_cannot_be_set_is_refused_with_the_reason(name):
    parameters = Parameters(KNOWN, refused={"policy.hidden_size": "it is always 128", "trainer.seed": "set elsewhere"})

    with pytest.raises(InvalidArgument, match="cannot be set: it is always 128"):
        parameters.canonical(name, "search_space.x")
    with pytest.raises(InvalidArgument, match="cannot be set: it is always 128"):
        parameters.under("policy", name, "policy_arguments.x", "training.trainer")
    with pytest.raises(InvalidArgument, match=r"trainer\.seed cannot be set: set elsewhere"):
        parameters.canonical("trainer.seed", "search_space.x")
