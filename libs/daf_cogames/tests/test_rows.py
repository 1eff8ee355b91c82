"""What goes through a network in a batch comes out as if each row had gone through alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from daf_cogames.play.rows import RowByRow


class Cell(nn.Module):
    """An LSTM cell that returns all that it changes."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(48, 40, bias=bias)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return torch.cat(self.cell(given, (given[:, :40].tanh(), given[:, 8:])), dim=1)


class Sequences(nn.Module):
    """A linear layer over (batch * time) rows, as recurrent networks have it in training."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 32)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.linear(given.flatten(0, 1)).view(given.shape[0], -1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(48, 40, batch_first=True)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.lstm(given.unsqueeze(1))[0]
        return found


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "wide": (lambda: nn.Linear(600, 128), (600,)),
    "square, no bias": (lambda: nn.Linear(128, 128, bias=False), (128,)),
    "fewer than 400 weights": (lambda: nn.Linear(30, 13), (30,)),
    "exactly 400 weights": (lambda: nn.Linear(20, 20), (20,)),
    "rows of any length": (lambda: nn.Linear(101, 17), (101,)),
    "one output": (lambda: nn.Linear(128, 1), (128,)),
    "linear over several tokens": (lambda: nn.Linear(48, 32), (10, 48)),
    "batch times time": (Sequences, (5, 48)),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(6, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1)),
        (6, 13, 13),
    ),
    "lstm cell": (lambda: Cell(bias=True), (48,)),
    "lstm cell, no bias": (lambda: Cell(bias=False), (48,)),
    "lstm": (Recurrent, (48,)),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("rows", [1, 2, 4, 31, 64])
@pytest.mark.parametrize("name", NETWORKS)
def test_rows_are_equal_to_the_bit(name: str, rows: int) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(rows)
    network, given = make(), torch.randn(rows, *shape)
    alone = torch.cat([network(row.clone()) for row in given.split(1)])

    with RowByRow(rows):
        together = network(given)

    assert torch.equal(together, alone)


def test_a_plain_batch_is_not_equal() -> None:
    """The reason for all this. Should it fail on some machine, nothing is wrong there."""
    torch.manual_seed(0)
    network, given = nn.Linear(600, 128), torch.randn(32, 600)

    assert not torch.equal(network(given), torch.cat([network(row) for row in given.split(1)]))


def test_what_does_not_hold_a_batch_is_left_alone() -> None:
    network, given = nn.Linear(600, 128), torch.randn(3, 600)

    with RowByRow(2):
        assert torch.equal(network(given), torch.nn.functional.linear(given, network.weight, network.bias))
