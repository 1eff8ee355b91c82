import subprocess
import sys

import pytest

from daf_cogames.parameter_table import ENVIRONMENT_PARAMETERS, TRAINER_PARAMETERS, Kind
from daf_cogames.params import (
    Problem,
    canonical_name,
    check_environment_parameters,
    check_minibatch,
    check_trainer_parameters,
)


def test_the_defaults_of_the_table_are_accepted():
    assert check_trainer_parameters({parameter.name: parameter.default for parameter in TRAINER_PARAMETERS}) == []


def test_the_defaults_are_those_that_cogames_passes_to_its_trainer(monkeypatch, tmp_path):
    import torch

    from daf_cogames.missions import Mission, build_mission
    from daf_cogames.training.cogames_trainer import cogames_train

    class Captured(Exception):
        pass

    def capture(config, *_):
        raise Captured(config)

    monkeypatch.setattr(cogames_train.pufferl, "PuffeRL", capture)
    with pytest.raises(Captured) as caught:
        cogames_train.train(
            env_cfg=build_mission(Mission("cogsguard_arena.basic", cogs=4)),
            policy_class_path="mettagrid.policy.lstm.LSTMPolicy",
            device=torch.device("cpu"),
            initial_weights_path=None,
            num_steps=1,
            checkpoints_path=tmp_path,
            seed=0,
            minibatch_size=256,
            vector_num_envs=1,
        )

    [config] = caught.value.args
    names = {parameter.key: parameter.default for parameter in TRAINER_PARAMETERS if parameter.key != "minibatch_size"}
    assert {name: config[name] for name in names} == names


def test_an_unknown_name_is_answered_with_the_nearest_and_with_all_that_are_known():
    [problem] = check_trainer_parameters({"trainer.learning_rat": 0.1})

    assert problem.name == "trainer.learning_rat"
    assert "did you mean 'trainer.learning_rate'" in problem.message
    assert all(parameter.name in problem.message for parameter in TRAINER_PARAMETERS)


@pytest.mark.parametrize(
    "name", ["trainer.min_lr_ratio", "trainer.optimizer", "trainer.max_minibatch_size", "trainer.compile"]
)
def test_an_argument_of_the_trainer_that_would_do_nothing_or_harm_is_refused_with_the_reason(name):
    [problem] = check_trainer_parameters({name: 1})

    assert problem.message.startswith("cannot be set: ")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("trainer.learning_rate", "1e-3", "must be a number, not '1e-3': this is a text, write"),
        ("trainer.update_epochs", "2", "must be a whole number, not '2'"),
        ("trainer.learning_rate", True, "must be a number, not True"),
        ("trainer.learning_rate", float("nan"), "must be a number, not nan"),
        ("trainer.learning_rate", 0, "must be greater than 0 and at most 1, not 0"),
        ("trainer.learning_rate", 1.5, "must be greater than 0 and at most 1, not 1.5"),
        ("trainer.adam_beta1", 1.0, "must be at least 0 and less than 1, not 1.0"),
        ("trainer.gamma", -0.1, "must be at least 0 and at most 1, not -0.1"),
        ("trainer.update_epochs", 2.0, "must be a whole number, not 2.0"),
        ("trainer.update_epochs", True, "must be a whole number, not True"),
        ("trainer.bptt_horizon", 1, "must be at least 2 and at most 4096, not 1"),
        ("trainer.anneal_lr", 1, "must be true or false, not 1"),
        ("trainer.precision", "float16", "must be one of float32, bfloat16, not 'float16'"),
        ("trainer.precision", 32, "must be a string, not 32"),
    ],
)
def test_a_value_of_a_wrong_type_or_out_of_bounds_is_refused(name, value, message):
    [problem] = check_trainer_parameters({name: value})

    assert problem.name == name
    assert message in problem.message


def test_a_whole_number_is_a_number():
    assert check_trainer_parameters({"trainer.gamma": 1}) == []


@pytest.mark.parametrize(
    ("values", "nearest"),
    [
        ({"trainer.minibatch_size": 32}, "64"),
        ({"trainer.minibatch_size": 250}, "256"),
        ({"trainer.minibatch_size": 256, "trainer.bptt_horizon": 100}, "300"),
    ],
)
def test_a_minibatch_that_is_not_made_of_whole_segments_is_refused_with_one_that_is(values, nearest):
    [problem] = check_trainer_parameters(values)

    assert problem.name == "trainer.minibatch_size"
    assert f"for example {nearest}," in problem.message


@pytest.mark.parametrize("minibatch", [256, 1024, 6144, 8192, 1_000_000])
def test_a_minibatch_that_divides_the_batch_or_is_larger_is_no_problem(minibatch):
    assert check_minibatch({"trainer.minibatch_size": minibatch}, environments=16, agents=6) == []


@pytest.mark.parametrize(
    ("values", "nearest"),
    [
        ({"trainer.minibatch_size": 4096}, 3072),
        ({"batch_size": 320}, 256),
        ({"trainer.minibatch_size": 1216}, 1024),
    ],
)
def test_a_minibatch_that_leaves_a_rest_of_the_batch_is_refused_with_one_that_does_not(values, nearest):
    [problem] = check_minibatch(values, environments=16, agents=6)

    assert problem.name == "trainer.minibatch_size"
    assert "divide the batch of 6144 agent steps (16 environments x 6 agents x bptt_horizon 64)" in problem.message
    assert f"for example {nearest}," in problem.message
    assert check_minibatch({"trainer.minibatch_size": nearest}, environments=16, agents=6) == []


def test_the_default_minibatch_is_never_refused():
    assert check_minibatch({}, environments=16, agents=6) == []
    assert check_minibatch({"trainer.bptt_horizon": 100}, environments=3, agents=7) == []


def test_a_horizon_alone_is_no_problem_since_the_default_minibatch_follows_it():
    assert check_trainer_parameters({"trainer.bptt_horizon": 100}) == []


def test_a_parameter_that_is_set_twice_is_refused():
    problems = check_trainer_parameters({"lr": 0.1, "trainer.learning_rate": 0.2})

    assert problems == [Problem("trainer.learning_rate", "is trainer.learning_rate, which 'lr' sets already")]


def test_a_parameter_of_the_environment_is_checked_by_its_own_table():
    assert check_environment_parameters({"env.cogs": 4, "env.max_steps": 100, "env.difficulty": "easy"}) == []
    assert [problem.name for problem in check_environment_parameters({"env.cogs": 0, "env.gamma": 1})] == [
        "env.cogs",
        "env.gamma",
    ]


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("lr", "trainer.learning_rate"),
        ("learning_rate", "trainer.learning_rate"),
        ("trainer.lr", "trainer.learning_rate"),
        ("batch_size", "trainer.minibatch_size"),
        ("gamma", "trainer.gamma"),
        ("max_steps", "env.max_steps"),
        ("hidden_size", "policy.hidden_size"),
        ("policy.hidden_size", "policy.hidden_size"),
        ("trainer.gamma", "trainer.gamma"),
        ("policy.lr", "policy.lr"),
        ("nonsense", "nonsense"),
        ("", ""),
    ],
)
def test_the_full_name_of_what_users_write(name, full):
    assert canonical_name(name, policy_arguments=["hidden_size"]) == full


def test_every_parameter_has_a_default_of_its_own_kind():
    kinds = {Kind.BOOL: bool, Kind.INT: int, Kind.FLOAT: float, Kind.STRING: str}

    assert all(type(parameter.default) is kinds[parameter.kind] for parameter in TRAINER_PARAMETERS)
    assert all(parameter.default is None for parameter in ENVIRONMENT_PARAMETERS)


def test_services_can_import_it_without_torch_or_cogames():
    code = "import sys, daf_cogames.params; print({'torch', 'cogames', 'mettagrid', 'pufferlib'} & set(sys.modules))"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "set()"
