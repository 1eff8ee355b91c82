"""Training on a tiny scale: two environments of four agents, so that an update is 512 agent steps."""

import contextlib
import json
import logging
import math
import multiprocessing
import os
import random
import signal
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from mettagrid.policy.loader import initialize_or_load_policy
from mettagrid.policy.policy import PolicySpec
from mettagrid.policy.policy_env_interface import PolicyEnvInterface

from daf_cogames.missions import Mission, MissionError, build_mission
from daf_cogames.parameter_table import TRAINER_PARAMETERS
from daf_cogames.policies import PolicyError, PolicySource
from daf_cogames.training.checkpoints import WeightsError, save
from daf_cogames.training.cogames_trainer import cogames_train
from daf_cogames.training.progress import StopReason
from daf_cogames.training.train import Ending, PlanError
from daf_cogames.training.world import World
from libs.daf_cogames.tests.training_policies import Breaking, LstmFree, Masked, Memoryless, Raising, Recurrent, policy
from libs.daf_cogames.tests.training_run import MISSION, UPDATE, Training, weights_of


@pytest.fixture
def training(tmp_path):
    return Training(tmp_path)


def another_value(parameter):
    match parameter.default:
        case bool():
            return not parameter.default
        case str():
            return next(choice for choice in parameter.choices if choice != parameter.default)
        case _ if parameter.key == "minibatch_size":
            return 64
        case _ if parameter.key == "bptt_horizon":
            return 32
        case int():
            return parameter.default + 1
        case _:
            return parameter.default / 2


def test_every_parameter_reaches_the_trainer_and_those_of_the_optimizer_reach_the_optimizer(training):
    values = {parameter.key: another_value(parameter) for parameter in TRAINER_PARAMETERS}

    configuration = training.run(trainer=values, agent_steps=1).configuration

    assert configuration.trainer == {f"trainer.{name}": value for name, value in values.items()}
    assert configuration.optimizer == {
        "learning_rate": values["learning_rate"],
        "beta1": values["adam_beta1"],
        "beta2": values["adam_beta2"],
        "eps": values["adam_eps"],
    }


def test_the_learning_rate_is_how_far_the_weights_move(training, tmp_path):
    moved = {}
    for rate in (1e-9, 1e-2):
        outcome = training.run(trainer={"learning_rate": rate}, directory=tmp_path / str(rate), agent_steps=1)
        torch.manual_seed(1)
        start = initialize_or_load_policy(
            PolicyEnvInterface.from_mg_cfg(build_mission(MISSION)), PolicySpec(class_path=policy(Recurrent).class_path)
        )
        trained = weights_of(outcome.checkpoint)
        moved[rate] = max(float((trained[name] - t).abs().max()) for name, t in start.network().state_dict().items())

    assert moved[1e-9] < 1e-7
    assert moved[1e-2] == pytest.approx(1e-2, rel=0.1)  # Adam's first step is the learning rate


def test_an_argument_reaches_the_policy_and_what_cogames_later_loads_it_with(training):
    outcome = training.run(policy=policy(Recurrent, arguments={"hidden_size": 12}), agent_steps=1)

    spec = json.loads((outcome.checkpoint.weights.path.parent / "policy_spec.json").read_text())
    assert weights_of(outcome.checkpoint)["body.bias"].shape == (12,)
    assert spec["init_kwargs"] == {"hidden_size": 12}
    assert outcome.configuration.policy_parameters > 12 * 600


def test_one_wrapped_process_trains_as_plain_cogames_does_to_the_bit(training, tmp_path, capfd):
    outcome = training.run(agent_steps=3 * UPDATE, seed=5)

    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    cogames_train.train(
        env_cfg=build_mission(MISSION),
        policy_class_path=policy(Recurrent).class_path,
        device=torch.device("cpu"),
        initial_weights_path=None,
        num_steps=3 * UPDATE,
        checkpoints_path=tmp_path / "plain",
        seed=5,
        minibatch_size=4096,
        vector_num_envs=2,
    )

    [plain] = (tmp_path / "plain").glob("*/model_000003.pt")
    expected, trained = torch.load(plain, weights_only=True), weights_of(outcome.checkpoint)
    assert all(torch.equal(trained[name], expected[name]) for name in expected)


def test_the_same_plan_gives_the_same_weights_and_another_seed_others(training, tmp_path):
    digests = [
        training.run(seed=seed, directory=tmp_path / name).checkpoint.weights.sha256
        for seed, name in [(3, "a"), (3, "b"), (4, "c")]
    ]

    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_a_policy_without_memory_learns(training):
    outcome = training.run(policy=policy(Memoryless))

    assert not outcome.configuration.recurrent
    assert outcome.configuration.trainer["trainer.bptt_horizon"] == 64
    assert outcome.configuration.trainer["trainer.minibatch_size"] == UPDATE
    assert all(progress.metrics["losses/value_loss"] > 0 for progress in training.progress)


def test_a_policy_is_recurrent_if_it_says_so_whatever_its_name(training):
    assert not training.run(policy=policy(LstmFree), agent_steps=1).configuration.recurrent


def test_agent_steps_are_rounded_up_to_whole_updates_none_of_them_at_learning_rate_zero(training):
    outcome = training.run(agent_steps=2 * UPDATE + 1)

    assert outcome.ending is Ending.COMPLETED
    assert (outcome.update, outcome.agent_steps) == (3, 3 * UPDATE)
    assert outcome.configuration.agent_steps == 3 * UPDATE
    rates = [progress.learning_rate for progress in training.progress]
    assert rates == pytest.approx([0.00092 * (1 + math.cos(math.pi * update / 3)) / 2 for update in range(3)])


def test_a_minibatch_larger_than_a_batch_is_cut_to_it_and_the_user_told(training):
    configuration = training.run(trainer={"minibatch_size": 1024, "clip_coef": 0.1}, agent_steps=1).configuration

    assert configuration.batch_size == UPDATE
    assert configuration.gradient_steps_per_update == 1
    assert configuration.notes == (
        "trainer.clip_coef has no effect: each update is one gradient step",
        "trainer.minibatch_size is 512, not 1024: a batch has no more agent steps",
    )


def test_progress_is_reported_by_time_the_first_update_and_the_last_in_any_case(training):
    training.run(agent_steps=4 * UPDATE, progress_interval_s=3600.0)

    assert [progress.update for progress in training.progress] == [1, 4]


def test_progress_says_how_training_goes(training):
    training.run(agent_steps=4 * UPDATE)

    last = training.progress[-1]
    assert (last.update, last.agent_steps) == (4, 4 * UPDATE)
    assert last.agent_steps_per_second > 0
    assert {"losses/policy_loss", "losses/value_loss", "losses/entropy"} <= set(last.metrics)
    episodes = [progress.metrics for progress in training.progress if "env/episodes" in progress.metrics]
    assert sum(metrics["env/episodes"] for metrics in episodes) >= 8  # 2 environments, 256 steps of 40 an episode
    assert all(0 < metrics["env/episode_steps"] <= 40 for metrics in episodes)
    assert all("env/reward_per_agent" in metrics for metrics in episodes)
    assert all(math.isfinite(value) for progress in training.progress for value in progress.metrics.values())


def test_nothing_is_written_to_the_terminal(training, capfd):
    training.run(agent_steps=1)

    assert capfd.readouterr().out == ""


def test_a_checkpoint_is_saved_every_so_many_agent_steps_in_whole_updates_and_at_the_end(training):
    outcome = training.run(agent_steps=5 * UPDATE, checkpoint_agent_steps=UPDATE + 1)

    assert [(saved.update, saved.agent_steps) for saved in training.checkpoints] == [
        (2, 2 * UPDATE),
        (4, 4 * UPDATE),
        (5, 5 * UPDATE),
    ]
    assert outcome.configuration.checkpoint_agent_steps == 2 * UPDATE
    assert outcome.checkpoint == training.checkpoints[-1]
    assert outcome.checkpoint.metrics == training.progress[-1].metrics


def test_the_trainer_state_has_what_it_takes_to_go_on_and_runs_no_code_when_read(training):
    outcome = training.run(agent_steps=3 * UPDATE)

    state = torch.load(outcome.checkpoint.trainer_state.path, weights_only=True)
    assert (state["update"], state["agent_steps"]) == (3, 3 * UPDATE)
    assert state["weights_sha256"] == outcome.checkpoint.weights.sha256
    assert all(int(moments["step"]) == 3 for moments in state["optimizer"]["state"].values())
    assert (state["total_agent_steps"], state["agent_steps_per_update"]) == (3 * UPDATE, UPDATE)
    [generators] = state["random"]
    assert torch.equal(generators["torch"], torch.get_rng_state())
    assert generators["python"] == random.getstate()
    assert generators["numpy"][1] == np.random.get_state()[1].tolist()


def test_plain_cogames_loads_a_checkpoint(training):
    outcome = training.run(agent_steps=1)

    directory = outcome.checkpoint.weights.path.parent
    spec = json.loads((directory / "policy_spec.json").read_text())
    loaded = initialize_or_load_policy(
        PolicyEnvInterface.from_mg_cfg(build_mission(MISSION)),
        PolicySpec(class_path=spec["class_path"], data_path=str(directory / spec["data_path"])),
    )
    trained = weights_of(outcome.checkpoint)
    assert all(torch.equal(tensor, trained[name]) for name, tensor in loaded.network().state_dict().items())


def test_others_can_read_the_policy_spec_that_cogames_writes_for_its_owner_only(training):
    outcome = training.run(agent_steps=1)

    mode = (outcome.checkpoint.weights.path.parent / "policy_spec.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o644


@pytest.mark.parametrize("reason", list(StopReason))
def test_a_stop_ends_training_after_the_update_under_way_with_a_checkpoint(training, reason):
    answers = iter([None, reason])

    outcome = training.run(agent_steps=100 * UPDATE, stop=lambda: next(answers))

    assert (outcome.ending, outcome.stop_reason) == (Ending.STOPPED, reason)
    assert outcome.update == 2
    assert outcome.checkpoint.update == 2
    assert training.progress[-1].update == 2


def test_a_stop_right_after_a_checkpoint_saves_no_second_one(training):
    training.run(checkpoint_agent_steps=UPDATE, stop=lambda: StopReason.CANCELLED)

    assert [saved.update for saved in training.checkpoints] == [1]


def test_diverged_weights_end_training_and_are_not_saved(training, caplog):
    with caplog.at_level(logging.ERROR):
        outcome = training.run(policy=policy(Breaking), agent_steps=9 * UPDATE, checkpoint_agent_steps=UPDATE)

    assert outcome.ending is Ending.DIVERGED
    assert (outcome.update, outcome.agent_steps) == (3, 3 * UPDATE)
    assert outcome.checkpoint.update == 2
    assert sorted(path.name for path in outcome.checkpoint.weights.path.parent.glob("model_*")) == [
        "model_000001.pt",
        "model_000002.pt",
    ]
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(outcome.checkpoint).values())
    assert "losses/value_loss" in training.progress[-1].nonfinite
    assert "losses/value_loss" not in training.progress[-1].metrics
    assert f"diverged at agent step {3 * UPDATE}" in caplog.text


def test_training_that_diverges_at_once_has_no_checkpoint(training):
    outcome = training.run(policy=policy(Breaking), trainer={"update_epochs": 4})

    assert (outcome.ending, outcome.update, outcome.checkpoint) == (Ending.DIVERGED, 1, None)


def test_a_network_that_is_not_finite_from_the_start_is_not_said_to_diverge(training):
    with pytest.raises(PolicyError, match=r"not finite in mask.*persistent=False"):
        training.run(policy=policy(Masked))


def test_an_error_leaves_no_thread_that_keeps_the_process_alive(training):
    with pytest.raises(RuntimeError, match="out of luck"):
        training.run(policy=policy(Raising))

    for thread in threading.enumerate():
        if type(thread).__name__ == "Utilization":
            thread.join(timeout=30)
    assert "Utilization" not in [type(thread).__name__ for thread in threading.enumerate()]


@pytest.fixture
def on_a_gpu_that_torch_cannot_use(monkeypatch):
    """cogames gives environments processes of their own wherever the device is not the CPU."""
    monkeypatch.setattr("daf_cogames.training.train.resolve_training_device", lambda console, name: torch.device("mps"))


def test_an_error_leaves_no_process_of_an_environment(training, on_a_gpu_that_torch_cannot_use):
    with pytest.raises((RuntimeError, AssertionError)):
        training.run()

    for process in multiprocessing.active_children():
        process.join(timeout=30)
    assert multiprocessing.active_children() == []


def test_an_error_leaves_cogames_as_it_was(training):
    before = dict(vars(cogames_train))

    with pytest.raises(RuntimeError, match="out of luck"):
        training.run(policy=policy(Raising))

    assert dict(vars(cogames_train)) == before


def test_an_interrupt_is_not_taken_for_the_end_of_training(training):
    def interrupt_once(progress):
        if progress.update == 1 and len(training.progress) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.run(on_progress=interrupt_once)


def test_a_signal_is_left_to_the_caller_who_can_answer_it_with_a_stop(training):
    received = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        outcome = training.run(
            agent_steps=100 * UPDATE,
            on_progress=lambda progress: os.kill(os.getpid(), signal.SIGINT),
            stop=lambda: StopReason.PREEMPTED if received else None,
        )
    finally:
        signal.signal(signal.SIGINT, before)

    assert (outcome.ending, outcome.update) == (Ending.STOPPED, 2)
    assert set(received) == {signal.SIGINT}


@pytest.mark.parametrize(("cpus", "usable", "processes"), [(8, 4, 3), (2, 4, 2), (1, 64, 1)])
def test_environments_get_no_more_processes_than_the_plan_and_the_machine_allow(
    training, monkeypatch, on_a_gpu_that_torch_cannot_use, cpus, usable, processes
):
    class Asked(Exception):
        pass

    def ask(*_, num_workers, **__):
        raise Asked(num_workers)

    monkeypatch.setattr("psutil.cpu_count", lambda logical=True: 64)
    monkeypatch.setattr("daf_cogames.training.train.usable_cores", lambda: usable)
    monkeypatch.setattr(cogames_train, "pvector", contextlib.nullcontext())
    monkeypatch.setattr(cogames_train.pvector, "make", ask, raising=False)
    monkeypatch.setattr(cogames_train.pvector, "Multiprocessing", object(), raising=False)
    monkeypatch.setattr(cogames_train.pvector, "Serial", object(), raising=False)

    with pytest.raises(Asked) as caught:
        training.run(cpus=cpus, num_envs=6)

    assert caught.value.args == (processes,)


def test_a_gpu_that_this_machine_lacks_is_refused(training, monkeypatch):
    monkeypatch.setattr(
        "daf_cogames.training.train.resolve_training_device", lambda console, name: torch.device("cuda")
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    with pytest.raises(PlanError, match="rank 1 needs GPU 1, and this machine has 1"):
        training.run(world=World(rank=1, size=2, local_rank=1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_replaced_by_the_cpu_and_the_user_told(training, caplog):
    outcome = training.run(device="cuda", agent_steps=1)

    assert outcome.ending is Ending.COMPLETED
    assert "CUDA requested but unavailable" in caplog.text


def test_environments_take_turns_with_the_missions(training):
    missions = (MISSION, Mission("cogsguard_machina_1.miner_tutorial", cogs=4, max_steps=40))

    training.run(missions=missions, agent_steps=4 * UPDATE)

    names = {name for progress in training.progress for name in progress.metrics if "reward_per_agent/" in name}
    assert len(names) == 2
    assert any("cogsguard_arena.basic" in name for name in names)
    assert any("cogsguard_machina_1.miner_tutorial" in name for name in names)


def test_missions_with_different_numbers_of_agents_are_refused(training):
    missions = (MISSION, Mission("cogsguard_arena.basic", cogs=2))

    with pytest.raises(MissionError, match=r"the number of agents differ \(2 and 4\)"):
        training.run(missions=missions)


def test_training_starts_from_given_weights(training, tmp_path):
    first = training.run(agent_steps=1, directory=tmp_path / "first").checkpoint

    second = training.run(
        policy=policy(Recurrent, weights=first.weights.path), trainer={"learning_rate": 1e-12}, agent_steps=1, seed=2
    ).checkpoint

    before, after = weights_of(first), weights_of(second)
    assert all(torch.allclose(after[name], before[name], atol=1e-9) for name in before)


def test_weights_of_another_shape_are_refused(training, tmp_path):
    other = save({"body.bias": torch.zeros(9)}, tmp_path / "other.pt")

    with pytest.raises(WeightsError, match=r"body\.bias: \[9\] in the file, \[8\] in the network"):
        training.run(policy=policy(Recurrent, weights=other.path))


def test_an_unknown_parameter_is_refused_with_the_known_ones_before_anything_starts(training, tmp_path):
    with pytest.raises(PlanError) as caught:
        training.run(trainer={"learnin_rate": 0.1})

    assert [problem.name for problem in caught.value.problems] == ["trainer.learnin_rate"]
    assert all(parameter.name in str(caught.value) for parameter in TRAINER_PARAMETERS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("agent_steps", 0),
        ("attempt", 0),
        ("cpus", 0),
        ("num_envs", 0),
        ("seed", -1),
        ("seed", 2**31),
        ("checkpoint_agent_steps", 0),
        ("missions", ()),
    ],
)
def test_a_plan_that_cannot_be_trained_is_refused_with_the_field(training, name, value):
    with pytest.raises(PlanError) as caught:
        training.run(**{name: value})

    assert [problem.name for problem in caught.value.problems] == [name]


def test_a_minibatch_that_does_not_divide_the_batch_is_refused_where_the_agents_are_known(training):
    with pytest.raises(PlanError, match="must divide the batch"):
        training.run(trainer={"bptt_horizon": 8, "minibatch_size": 24}, num_envs=2)


def test_the_largest_seed_can_be_used(training):
    assert training.run(seed=2**31 - 1, agent_steps=1).ending is Ending.COMPLETED


def test_a_policy_without_a_network_is_refused(training):
    with pytest.raises(PolicyError, match="has no network to train"):
        training.run(policy=PolicySource("random"))


def test_an_argument_that_the_policy_does_not_name_is_refused(training):
    with pytest.raises(PolicyError, match="has no parameter 'hiden_size'"):
        training.run(policy=policy(Recurrent, arguments={"hiden_size": 12}))


def test_importing_the_trainer_leaves_the_process_as_it_was():
    code = """
import signal, sys, warnings
filters, hook = list(warnings.filters), sys.excepthook
import daf_cogames.training.trainer
assert sys.modules["pufferlib.pufferl"]
assert not any(action == "error" for action, _, category, *_ in warnings.filters if category is RuntimeWarning)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert sys.excepthook is hook
"""
    subprocess.run([sys.executable, "-c", code], check=True)
