"""A batch through a network, with every row to the bit as if it had gone through alone.

A matrix product adds up in another order for one row than for many, so a batch changes the last bits, and a sampled
action may turn on them. Here such an operation is done row by row within one call, in the order of the single row; all
around it, which is most of the time of a small network, is done once for the batch. Whether that holds for a network on
this machine is not promised: whoever uses it compares (see `daf_cogames.play.batching`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# Below this many weights, torch multiplies a batch of single rows by a loop of its own that adds up in another order.
_SMALL_PRODUCT = 400

_ALIGNMENT_BYTES = 64


class RowByRow(TorchFunctionMode):
    """While it is entered, what is known to mix up rows' bits keeps them apart. The batch is the first dimension."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """See `torch.overrides.TorchFunctionMode`."""
        exact = _EXACT.get(func)
        if exact is None or args[0].shape[0] % self._rows:
            return func(*args, **(kwargs or {}))
        return exact(self._rows, *args, **(kwargs or {}))


def _linear(rows: int, given: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    outputs, inputs = weight.shape
    if given.dim() != 2 or given.shape[0] != rows or outputs == 1 or outputs * inputs < _SMALL_PRODUCT:
        return _apart(functional.linear, rows, given, weight, bias)
    products = torch.bmm(aligned(given).unsqueeze(1), weight.t().unsqueeze(0).expand(rows, inputs, outputs)).squeeze(1)
    return products if bias is None else products + bias


def _lstm_cell(
    rows: int,
    given: torch.Tensor,
    state: Sequence[torch.Tensor],
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor | None = None,
    bias_hh: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    hidden, cell = state
    gates = _linear(rows, given, weight_ih, bias_ih) + _linear(rows, hidden, weight_hh, bias_hh)
    take, forget, new, give = gates.chunk(4, 1)
    cell = forget.sigmoid() * cell + take.sigmoid() * new.tanh()
    return give.sigmoid() * cell.tanh(), cell


def _apart(
    func: Callable[..., torch.Tensor], rows: int, given: torch.Tensor, *others: Any, **named: Any
) -> torch.Tensor:
    return torch.cat([func(row.clone(), *others, **named) for row in torch.split(given, given.shape[0] // rows)])


def aligned(given: torch.Tensor) -> torch.Tensor:
    """Rows, each where memory would begin for it alone, as the order of a sum depends on that, too."""
    step = _ALIGNMENT_BYTES // given.element_size()
    rows, columns = given.shape
    if columns % step == 0:
        return given
    padded = given.new_empty(rows, columns + step - columns % step)
    padded[:, :columns] = given
    return padded[:, :columns]


def _row_by_row(func: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda rows, given, *others, **named: _apart(func, rows, given, *others, **named)


_EXACT: Mapping[Callable[..., Any], Callable[..., Any]] = {
    functional.linear: _linear,
    torch.lstm_cell: _lstm_cell,
    **{func: _row_by_row(func) for func in (torch.conv1d, torch.conv2d, torch.conv3d)},
}
