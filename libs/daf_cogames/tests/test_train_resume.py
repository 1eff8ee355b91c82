"""Training that goes on from a checkpoint, in one process."""

import copy
import math
import subprocess
from dataclasses import replace

import pytest
import torch

import daf_cogames.training.train
from daf_cogames.training.checkpoints import WeightsError, random_state
from daf_cogames.training.progress import StopReason
from daf_cogames.training.resume import read_resume_point
from daf_cogames.training.train import Ending, PlanError
from libs.daf_cogames.tests.training_policies import Recurrent, policy
from libs.daf_cogames.tests.training_run import MISSION, UPDATE, Training

CPU = torch.device("cpu")
LEARNING_RATE = 0.00092
TOTAL = 4 * UPDATE


class Beginning:
    """What a trainer begins with, kept before the first step."""

    def __init__(self, trainer):
        self.weights = copy.deepcopy(trainer.uncompiled_policy.state_dict())
        self.optimizer = copy.deepcopy(trainer.optimizer.state_dict())
        self.generators = random_state(CPU)
        self.counters = (trainer.epoch, trainer.global_step)
        self.environment_seed = trainer.config["seed"]


@pytest.fixture
def beginnings(monkeypatch):
    seen = []

    class Watched(daf_cogames.training.train.Trainer):
        def __init__(self, *args, **keywords):
            super().__init__(*args, **keywords)
            seen.append(Beginning(self))

    monkeypatch.setattr(daf_cogames.training.train, "Trainer", Watched)
    return seen


@pytest.fixture
def training(tmp_path):
    return Training(tmp_path / "training")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four updates, with a checkpoint after each."""
    training = Training(tmp_path_factory.mktemp("whole"))
    training.run(agent_steps=TOTAL, checkpoint_agent_steps=UPDATE)
    return training


def point_after(training, update):
    saved = training.checkpoints[update - 1]
    return read_resume_point(saved.weights.path, saved.trainer_state.path)


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_run_begins_again_with_everything_that_it_had(whole, training, beginnings):
    point = point_after(whole, 2)

    training.run(agent_steps=TOTAL, resume=point, attempt=2)

    [beginning] = beginnings
    assert same(beginning.weights, point.weights)
    assert beginning.optimizer["param_groups"] == point.optimizer["param_groups"]
    for index, moments in point.optimizer["state"].items():
        assert same(moments, beginning.optimizer["state"][index])
    assert beginning.generators["python"] == point.random[0]["python"]
    assert beginning.generators["numpy"] == point.random[0]["numpy"]
    assert torch.equal(beginning.generators["torch"], point.random[0]["torch"])
    assert beginning.counters == (2, 2 * UPDATE)


def test_a_resumed_run_ends_where_the_whole_one_does(whole, training):
    outcome = training.run(agent_steps=TOTAL, resume=point_after(whole, 2), attempt=2)

    assert (outcome.ending, outcome.update, outcome.agent_steps) == (Ending.COMPLETED, 4, TOTAL)
    assert [progress.update for progress in training.progress] == [3, 4]
    rates = [progress.learning_rate for progress in whole.progress]
    assert [progress.learning_rate for progress in training.progress] == rates[2:]
    assert all(int(m["step"]) == 4 for m in point_after(training, 1).optimizer["state"].values())


def test_a_run_that_was_stopped_goes_on_from_the_checkpoint_it_left(whole, tmp_path):
    stopped, resumed = Training(tmp_path / "stopped"), Training(tmp_path / "resumed")
    stopped.run(agent_steps=TOTAL, stop=lambda: StopReason.PREEMPTED)

    outcome = resumed.run(agent_steps=TOTAL, resume=point_after(stopped, 1), attempt=2)

    assert outcome.ending is Ending.COMPLETED
    rates = [progress.learning_rate for progress in stopped.progress + resumed.progress]
    assert rates == [progress.learning_rate for progress in whole.progress]


def test_each_attempt_that_resumes_plays_other_maps(whole, training, beginnings):
    point = point_after(whole, 3)
    for attempt in (2, 3):
        training.run(agent_steps=TOTAL, resume=point, attempt=attempt)

    first, second = (beginning.environment_seed for beginning in beginnings)
    assert min(abs(first - 1), abs(second - 1), abs(second - first)) > 1_000_000


def test_an_attempt_that_starts_afresh_is_the_run_from_its_beginning(whole, training):
    outcome = training.run(agent_steps=TOTAL, attempt=2)

    assert outcome.checkpoint.weights.sha256 == whole.checkpoints[-1].weights.sha256


@pytest.mark.parametrize("agent_steps", [TOTAL, TOTAL - UPDATE])
def test_a_run_that_has_all_its_agent_steps_ends_at_once(whole, training, agent_steps):
    outcome = training.run(agent_steps=agent_steps, resume=point_after(whole, 4), attempt=2)

    assert (outcome.ending, outcome.update, outcome.agent_steps) == (Ending.COMPLETED, 4, TOTAL)
    assert (training.progress, training.checkpoints, outcome.checkpoint) == ([], [], None)


def test_a_finished_run_that_is_extended_learns_on(whole, training):
    training.run(agent_steps=8 * UPDATE, resume=point_after(whole, 4), attempt=2)

    rates = [progress.learning_rate for progress in training.progress]
    assert rates == pytest.approx([LEARNING_RATE * (1 + math.cos(math.pi * n / 8)) / 2 for n in (4, 5, 6, 7)])


def test_without_annealing_the_learning_rate_stays(tmp_path):
    first, second = Training(tmp_path / "first"), Training(tmp_path / "second")
    trainer = {"anneal_lr": False}
    first.run(agent_steps=UPDATE, trainer=trainer)

    second.run(agent_steps=3 * UPDATE, trainer=trainer, resume=point_after(first, 1), attempt=2)

    assert [progress.learning_rate for progress in second.progress] == [LEARNING_RATE] * 2


def test_the_correction_of_priorities_rises_with_the_share_of_all_agent_steps(whole, training, monkeypatch):
    shares = []

    class Watched(daf_cogames.training.train.Trainer):
        def train(self):
            super().train()
            shares.append((self.epoch - 1) / self.total_epochs)

    monkeypatch.setattr(daf_cogames.training.train, "Trainer", Watched)
    of_two_ranks = replace(point_after(whole, 2), update=1, agent_steps_per_update=2 * UPDATE)
    training.run(agent_steps=TOTAL, resume=of_two_ranks, attempt=2)

    assert shares == [0.5, 0.75]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("trainer.gamma", {"trainer": {"gamma": 0.5}}),
        ("seed", {"seed": 2}),
        ("num_envs", {"num_envs": 3}),
        ("missions[0]", {"missions": (replace(MISSION, max_steps=50),)}),
        ("missions[0]", {"missions": (replace(MISSION, map_seed=0),)}),
        ("policy.hidden_size", {"policy": policy(Recurrent, arguments={"hidden_size": 16})}),
    ],
)
def test_a_run_that_is_another_is_refused_with_what_differs(whole, training, name, changes):
    with pytest.raises(PlanError) as caught:
        training.run(agent_steps=TOTAL, resume=point_after(whole, 2), **changes)

    assert [problem.name for problem in caught.value.problems] == [name]


def test_weights_of_another_network_are_refused_with_the_difference(whole, training):
    point = point_after(whole, 2)
    other = replace(point, weights={**point.weights, "body.bias": torch.zeros(9)})

    with pytest.raises(WeightsError, match=r"body\.bias: \[9\] in the file, \[8\] in the network"):
        training.run(agent_steps=TOTAL, resume=other)


@pytest.fixture
def small_disk(tmp_path):
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a disk of 1 MB can only be mounted by root")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_a_full_disk_ends_training_and_leaves_the_checkpoint_before(small_disk):
    training = Training(small_disk)
    large = policy(Recurrent, arguments={"hidden_size": 48})  # a checkpoint of 0.6 MB

    with pytest.raises(OSError, match="No space left"):
        training.run(policy=large, agent_steps=TOTAL, checkpoint_agent_steps=UPDATE)

    assert [saved.update for saved in training.checkpoints] == [1]
    assert point_after(training, 1).update == 1
