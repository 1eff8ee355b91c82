"""What networks are going to answer is worked out in a batch before agents ask.

For policies of which nothing is known but their network. Each agent's own code runs as ever, one agent after another;
only when it calls the network, the answer is already there, if it asks what was foreseen: what the environment shows
it, and the state in which the network left it. Whatever else it asks goes to the network. The first steps are played
without: there calls are written down, to learn what will be asked and to check that a batch answers the same, to the
bit.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from daf_cogames.play.asking import Asker, Call, answer_of, give, question
from daf_cogames.play.batching import NotBatchable, by_network
from daf_cogames.play.failures import PolicyFailure, blame
from daf_cogames.play.known_agents import as_it_is, multiplied, padded_with_zeros
from daf_cogames.play.random_state import GlobalRandomState
from daf_cogames.play.rows import RowByRow, aligned
from daf_cogames.play.trees import UnknownTree, built

COMPARING_NANOSECONDS = 100_000
"""About what it costs an agent that its answer is foretold: a network that answers more quickly is asked."""

Sight = Callable[[torch.Tensor], torch.Tensor]
"""How agents pass on what the environment shows them (uint8, [..., tokens, 3])."""


def _padded(number: Sight, seen: torch.Tensor) -> torch.Tensor:
    return number(padded_with_zeros(seen))


def _divided(seen: torch.Tensor) -> torch.Tensor:
    return seen.float() / 255.0


_NUMBERS: Sequence[Sight] = (as_it_is, torch.Tensor.float, _divided, multiplied, torch.Tensor.long, torch.Tensor.int)
_SIGHTS: Sequence[Sight] = (*_NUMBERS, *(partial(_padded, number) for number in _NUMBERS))


@dataclass(frozen=True)
class _Part:
    """A tensor that a network is given: where it is from, its shape for one agent, and in which dimension agents are.

    sight: how it is what is seen; last: the number of the tensor in the last answer that it is; without both, it is as
    it was.
    """

    sight: Sight | None
    last: int | None
    shape: torch.Size
    dimension: int


class Foretelling:
    """Foretells the answers of one network, or of equal ones, to agents of a policy."""

    def __init__(self, askers: Sequence[Asker], policy: int) -> None:
        """The agents go on where their calls end.

        Raises:
            NotBatchable: what they ask cannot be foreseen, or a batch does not answer it, or it saves no time.
        """
        self._askers = askers
        self._policy = policy
        self._rows = len(askers)
        self._network = askers[0].network
        last = self._alike()
        self._method, self._asked, self._answered = last.method, last.asked, last.answered
        self._given: list[torch.Tensor] = []
        self._answers: list[torch.Tensor] = []
        self._check()
        self._seen = np.stack([asker.episode.observations[asker.agent] for asker in askers])
        self._foreseen: list[tuple[torch.Tensor, ...]] = []
        self._foretold: list[tuple[torch.Tensor, ...]] = []

    def begin(self) -> None:
        """From now on the agents' calls are answered here; `step` has to come before each of their steps."""
        for place, asker in enumerate(self._askers):
            asker.answers, asker.place = self, place

    def step(self) -> None:
        """The answers for one step of all episodes that have not ended."""
        if self._askers[0].answers is None:
            return
        for place, asker in enumerate(self._askers):
            if not asker.episode.over:
                self._seen[place] = asker.episode.observations[asker.agent]
        started = time.perf_counter_ns()
        try:
            with blame(self._policy, None, "step"):
                self._given = self._next()
                self._answers = self._forward(self._given)
        except PolicyFailure:
            self._give_up()
            return
        given = [torch.split(part, 1, kind.dimension) for part, kind in zip(self._given, self._parts, strict=True)]
        self._foreseen = list(zip(*given, strict=True))
        copies = [_rows_apart(part, dimension) for part, dimension in zip(self._answers, self._dimensions, strict=True)]
        self._foretold = list(zip(*self._split(copies), strict=True))
        share = (time.perf_counter_ns() - started) // self._rows
        for asker in self._askers:
            if not asker.episode.over:
                asker.episode.policies[self._policy].latency.total_nanoseconds += share

    def ask(self, asker: Asker, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Asker.ask`."""
        if method == self._method and self._foresaw(asker.place, args, kwargs):
            return give(self._answered.structure, self._foretold[asker.place], args, kwargs)
        returned = asker.network.call(method, *args, **kwargs)
        self._remember(asker.place, args, kwargs, returned)
        return returned

    def _foresaw(self, place: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        try:
            asked = question(args, kwargs)
        except UnknownTree:
            return False
        return asked.structure == self._asked.structure and all(map(_same, asked.leaves, self._foreseen[place]))

    def _remember(self, place: int, args: tuple[Any, ...], kwargs: dict[str, Any], returned: object) -> None:
        """The state in which the network left an agent that asked something else."""
        try:
            answered = answer_of(args, kwargs, returned)
        except UnknownTree:
            return
        if answered.kind == self._answered.kind:
            with torch.no_grad():
                for part, dimension, found in zip(self._answers, self._dimensions, answered.leaves, strict=True):
                    part.narrow(dimension, place, 1).copy_(found)

    def _give_up(self) -> None:
        for asker in self._askers:
            asker.answers = None
            asker.strange = "a batch failed"

    def _alike(self) -> Call:
        """The last call of the first agent: all but first calls are like it."""
        like = self._askers[0].calls[-1] if self._askers[0].calls else None
        for asker in self._askers:
            if asker.strange is not None:
                raise NotBatchable(self._policy, asker.strange)
            if like is None or len(asker.calls) != asker.steps:
                raise NotBatchable(self._policy, "its network is not asked in each step")
            if any(call.answered.kind != like.answered.kind for call in asker.calls) or any(
                (call.method, call.asked.kind) != (like.method, like.asked.kind) for call in asker.calls[1:]
            ):
                raise NotBatchable(self._policy, "its network is not always asked, or does not always answer, alike")
        assert like is not None
        return like

    def _check(self) -> None:
        difference = "a batch cannot be made"
        for state_dimension in (0, 1):
            self._parts = [self._part(number, state_dimension) for number in range(len(self._asked.leaves))]
            for self._row_by_row in (True, False):
                try:
                    found = self._difference()
                except Exception as error:
                    difference = f"a batch fails: {type(error).__name__}"
                    continue
                if found is None:
                    self._check_time()
                    return
                difference = found
        raise NotBatchable(self._policy, difference)

    def _check_time(self) -> None:
        started = [time.thread_time_ns()]
        for _ in range(3):
            self._forward(self._given)
            started.append(time.thread_time_ns())
        share = min(end - start for start, end in itertools.pairwise(started)) // self._rows
        if min(call.nanoseconds for call in self._later()) <= share + COMPARING_NANOSECONDS:
            raise NotBatchable(self._policy, "its network is quick enough")

    def _part(self, number: int, state_dimension: int) -> _Part:
        leaf = self._asked.leaves[number]
        shape = leaf.shape
        for sight in _SIGHTS:
            if all(
                call.seen.numel() == shape.numel()
                and _same(sight(call.seen.clone()).reshape(shape), call.asked.leaves[number])
                for call in self._later()
            ):
                return _Part(sight, None, shape, 0)
        dimension = state_dimension if shape[state_dimension : state_dimension + 1] == (1,) else 0
        for last in range(len(self._answered.leaves)):
            if all(
                _same(before.answered.leaves[last].flatten(), call.asked.leaves[number].flatten())
                for asker in self._askers
                for before, call in zip(asker.calls, asker.calls[1:], strict=False)
            ):
                return _Part(None, last, shape, dimension)
        if all(
            _same(asker.calls[1].asked.leaves[number], call.asked.leaves[number])
            for asker in self._askers
            for call in asker.calls[1:]
        ):
            return _Part(None, None, shape, dimension)
        raise NotBatchable(self._policy, "what its network is given is not what the environment shows, nor its state")

    def _later(self) -> list[Call]:
        return [call for asker in self._askers for call in asker.calls[1:]]

    def _difference(self) -> str | None:
        """Answers the calls that were written down, and says what is not the same."""
        if any(part.shape[part.dimension : part.dimension + 1] != (1,) for part in self._parts):
            return "its network is not given batches"
        for number in range(1, len(self._askers[0].calls)):
            calls = [asker.calls[number] for asker in self._askers]
            self._given = [
                torch.cat([call.asked.leaves[place] for call in calls], part.dimension)
                for place, part in enumerate(self._parts)
            ]
            random_before = GlobalRandomState.of_this_process()
            try:
                self._answers = self._forward(self._given)
            finally:
                random_before.restore()
            self._dimensions = [
                _only_dimension(one.shape, all_.shape, self._rows)
                for one, all_ in zip(self._answered.leaves, self._answers, strict=True)
            ]
            for rows, *expected in zip(
                self._split(self._answers), *(call.answered.leaves for call in calls), strict=True
            ):
                if not all(_same(row, one) for row, one in zip(rows, expected, strict=True)):
                    return "in a batch, the last bits of its network's answers differ"
        return None

    def _next(self) -> list[torch.Tensor]:
        seen = torch.from_numpy(self._seen)
        given = []
        for part, before in zip(self._parts, self._given, strict=True):
            if part.sight is not None:
                given.append(part.sight(seen.clone()).reshape(self._rows, *part.shape[1:]))
            elif part.last is not None:
                rows = self._answers[part.last].movedim(self._dimensions[part.last], 0)
                shape = [size for place, size in enumerate(part.shape) if place != part.dimension]
                given.append(rows.reshape(self._rows, *shape).movedim(0, part.dimension).contiguous())
            else:
                given.append(before)
        return given

    def _forward(self, given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        args, kwargs = built(self._asked.structure, iter(given))
        with torch.no_grad(), RowByRow(self._rows) if self._row_by_row else nullcontext():
            returned = self._network.call(self._method, *args, **kwargs)
        answered = answer_of(args, kwargs, returned)
        if answered.structure != self._answered.structure:
            raise ValueError("a batch is answered in another form")
        return answered.leaves

    def _split(self, answers: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, ...]]:
        return [torch.split(part, 1, dimension) for part, dimension in zip(answers, self._dimensions, strict=True)]


def foretellings(policy: int, askers: Sequence[Asker]) -> list[Foretelling]:
    """One for each network that several agents ask, of those whose episodes go on. Raises NotBatchable."""
    going_on = [asker for asker in askers if not asker.episode.over]
    groups = by_network(going_on, lambda asker: asker.network.network)
    made = [Foretelling(group, policy) for group in groups if len(group) > 1]
    for foretelling in made:
        foretelling.begin()
    return made


def _only_dimension(one: torch.Size, all_: torch.Size, rows: int) -> int:
    """In which dimension a shape holds so many rows of another."""
    for dimension, size in enumerate(one):
        if size == 1 and all_ == (*one[:dimension], rows, *one[dimension + 1 :]):
            return dimension
    raise ValueError("an answer does not grow with the batch")


def _rows_apart(part: torch.Tensor, dimension: int) -> torch.Tensor:
    """A copy, with every row where memory would begin for it alone (see `daf_cogames.play.rows`)."""
    rows = part.movedim(dimension, 0)
    return aligned(rows.flatten(1).clone()).view(rows.shape).movedim(0, dimension)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
