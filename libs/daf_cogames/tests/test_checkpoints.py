import os
import pickle
import resource

import pytest
import torch

from daf_cogames.training.checkpoints import WeightsError, load_weights, save


def network(hidden=3):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, hidden), torch.nn.Linear(hidden, 1))


def test_weights_that_were_saved_are_loaded_again(tmp_path):
    trained, fresh = network(), network()
    with torch.no_grad():
        trained[0].weight.fill_(0.5)

    stored = save(trained.state_dict(), tmp_path / "model.pt")
    load_weights(stored.path, fresh)

    assert torch.equal(fresh[0].weight, trained[0].weight)
    assert stored.size == stored.path.stat().st_size


def test_the_same_weights_have_the_same_digest_under_every_name(tmp_path):
    first = save(network().state_dict(), tmp_path / "a.pt")
    second = save(network().state_dict(), tmp_path / "b.pt")

    assert first.sha256 == second.sha256


def test_a_full_disk_leaves_the_checkpoint_before_as_it_was(tmp_path):
    stored = save(network().state_dict(), tmp_path / "model.pt")
    before = stored.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (stored.size, hard))  # the kernel cuts off any longer file
    try:
        with pytest.raises(OSError):  # noqa: PT011
            save(network(hidden=500).state_dict(), stored.path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert stored.path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.pt"]


def test_weights_of_another_shape_are_refused_with_the_difference(tmp_path):
    stored = save(network(hidden=5).state_dict(), tmp_path / "model.pt")

    with pytest.raises(WeightsError) as caught:
        load_weights(stored.path, network(hidden=3))

    assert "model.pt does not fit the network Sequential:" in str(caught.value)
    assert "0.weight: [5, 2] in the file, [3, 2] in the network" in str(caught.value)


def test_weights_of_another_network_are_refused_with_the_names(tmp_path):
    stored = save({"0.weight": torch.zeros(3, 2), "extra": torch.zeros(7)}, tmp_path / "model.pt")

    with pytest.raises(WeightsError) as caught:
        load_weights(stored.path, network())

    assert "0.bias: missing from the file, [3] in the network" in str(caught.value)
    assert "extra: [7] in the file, not in the network" in str(caught.value)


def test_weights_that_are_not_finite_are_refused_and_nothing_is_loaded(tmp_path):
    broken = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    broken["1.bias"][0] = float("nan")
    stored = save(broken, tmp_path / "model.pt")
    fresh = network()

    with pytest.raises(WeightsError, match=r"not finite in 1\.bias"):
        load_weights(stored.path, fresh)

    assert torch.isfinite(fresh[1].bias).all()


class Exploit:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("content", [b"these are no weights", b"", bytes(range(256)) * 8])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)

    with pytest.raises(WeightsError, match=r"model\.pt is not a file of weights"):
        load_weights(tmp_path / "model.pt", network())


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(tmp_path, part):
    stored = save(network().state_dict(), tmp_path / "model.pt")
    stored.path.write_bytes(stored.path.read_bytes()[: int(stored.size * part)])

    with pytest.raises(WeightsError, match="cut off or damaged"):
        load_weights(stored.path, network())


def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path):
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Exploit(tmp_path / "done")))

    with pytest.raises(WeightsError, match="would run code"):
        load_weights(tmp_path / "model.pt", network())

    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, torch.zeros(3)])
def test_a_file_that_is_no_state_dict_is_refused(tmp_path, value):
    stored = save(value, tmp_path / "model.pt")

    with pytest.raises(WeightsError, match="not a state_dict"):
        load_weights(stored.path, network())


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"there is no file model\.pt"):
        load_weights(tmp_path / "model.pt", network())
