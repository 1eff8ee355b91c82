"""Reading what a training run goes on from."""

import os
import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from daf_cogames.training.checkpoints import WeightsError, random_state, restore_random_state, save
from daf_cogames.training.resume import FORMAT, ResumePoint, read_resume_point, restore_optimizer

CPU = torch.device("cpu")


def network(hidden=3):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, hidden), torch.nn.Linear(hidden, 1))


def trained(net):
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer


@pytest.fixture
def point():
    net = network()
    optimizer = trained(net)
    return ResumePoint(
        weights=net.state_dict(),
        optimizer=optimizer.state_dict(),
        update=3,
        agent_steps=1536,
        total_agent_steps=4096,
        agent_steps_per_update=512,
        settings={"seed": 1, "trainer.gamma": 0.9},
        random=(random_state(CPU),),
    )


@pytest.fixture
def files(tmp_path):
    """Saves a point, with changes to its state; returns the paths of the two files."""

    def write(point, **changes):
        weights = save(point.weights, tmp_path / "model.pt")
        state = save({**point.trainer_state(weights.sha256), **changes}, tmp_path / "trainer.pt")
        return weights.path, state.path

    return write


def test_what_was_saved_is_read_again(point, files):
    found = read_resume_point(*files(point))

    assert replace(found, weights={}, optimizer={}, random=()) == replace(point, weights={}, optimizer={}, random=())
    assert all(torch.equal(tensor, point.weights[name]) for name, tensor in found.weights.items())
    assert found.optimizer["param_groups"] == point.optimizer["param_groups"]
    assert torch.equal(found.optimizer["state"][0]["exp_avg"], point.optimizer["state"][0]["exp_avg"])


def test_generators_go_on_as_they_would_have(point, files):
    found = read_resume_point(*files(point))
    drawn = []
    for state in (point.random[0], found.random[0]):
        restore_random_state(state, CPU)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))

    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused_by_name(point, files, which, part):
    paths = files(point)
    content = paths[which].read_bytes()
    paths[which].write_bytes(content[: int(len(content) * part)])

    with pytest.raises(WeightsError, match=rf"{paths[which].name} is not .* cut off or damaged"):
        read_resume_point(*paths)


class Exploit:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("which", [0, 1])
def test_a_file_that_would_run_code_is_refused_and_does_not(point, files, tmp_path, which):
    paths = files(point)
    paths[which].write_bytes(pickle.dumps(Exploit(tmp_path / "done")))

    with pytest.raises(WeightsError, match="would run code"):
        read_resume_point(*paths)

    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_file_is_refused_by_name(point, files, which):
    paths = files(point)
    paths[which].unlink()

    with pytest.raises(WeightsError, match=f"there is no file {paths[which].name}"):
        read_resume_point(*paths)


def test_weights_of_another_checkpoint_are_refused(point, files):
    weights, state = files(point)
    save({name: tensor + 1 for name, tensor in point.weights.items()}, weights)

    with pytest.raises(WeightsError, match=r"trainer\.pt belongs to weights with the SHA-256 \w+, model\.pt has \w+"):
        read_resume_point(weights, state)


def test_weights_that_are_not_finite_are_refused(point, files):
    point.weights["1.bias"][0] = float("nan")

    with pytest.raises(WeightsError, match=r"model\.pt has values that are not finite in 1\.bias"):
        read_resume_point(*files(point))


def test_moments_that_are_not_finite_are_refused(point, files):
    point.optimizer["state"][2]["exp_avg_sq"][0] = float("inf")

    with pytest.raises(WeightsError, match=r"trainer\.pt has values that are not finite in exp_avg_sq of parameter 2"):
        read_resume_point(*files(point))


@pytest.mark.parametrize(("number", "age"), [(FORMAT + 1, "a newer"), (FORMAT - 1, "an older")])
def test_a_state_of_another_version_is_refused(point, files, number, age):
    with pytest.raises(WeightsError, match=f"was written by {age} version"):
        read_resume_point(*files(point, format=number))


@pytest.mark.parametrize(
    "changes", [{"optimizer": None}, {"update": "many"}, {"settings": 3}, {"random": None}, {"optimizer": {}}]
)
def test_a_state_without_what_it_takes_is_refused(point, files, changes):
    with pytest.raises(WeightsError, match=r"trainer\.pt is not a whole trainer state"):
        read_resume_point(*files(point, **changes))


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, torch.zeros(3)])
def test_a_file_that_is_no_trainer_state_is_refused(point, files, value):
    weights, state = files(point)
    save(value, state)

    with pytest.raises(WeightsError, match=r"trainer\.pt is not a trainer state"):
        read_resume_point(weights, state)


def test_an_optimizer_goes_on_from_its_state(point):
    fresh = torch.optim.Adam(network().parameters(), lr=0.5)

    restore_optimizer(fresh, point.optimizer)

    assert fresh.param_groups[0]["lr"] == 0.01
    assert all(int(moments["step"]) == 1 for moments in fresh.state.values())


def test_the_state_of_an_optimizer_of_other_parameters_is_refused_with_the_differences(point):
    other = torch.optim.Adam(network(hidden=5).parameters())

    with pytest.raises(WeightsError, match=r"parameter 0: \[3, 2\] in the state, \[5, 2\] in the network"):
        restore_optimizer(other, point.optimizer)


def test_the_state_of_an_optimizer_of_more_parameters_is_refused(point):
    other = torch.optim.Adam(network()[0].parameters())

    with pytest.raises(WeightsError, match="4 parameters in the state, 2 in the network"):
        restore_optimizer(other, point.optimizer)
