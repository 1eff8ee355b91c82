"""One forward pass for all agents of a policy, of several episodes, after a check that it changes nothing.

Agents first take a few steps one by one, by their own code, while what their networks are given and give, the state and
the random numbers are written down. Then the same steps are done as a batch. Only if all is equal to the bit, the batch
goes on in the agents' place.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mettagrid.simulator import Action
from mettagrid.simulator.rollout import StepResult

from daf_cogames.play.failures import blame, unseated
from daf_cogames.play.known_agents import CELL, HIDDEN, KnownAgent, known_agent
from daf_cogames.play.live_episodes import LiveEpisode
from daf_cogames.play.rows import RowByRow
from daf_cogames.policies import last_line

CHECKED_STEPS = 3
"""Steps that are taken one by one and compared: the first from the initial state, the others from a network's."""

TOLERANCE = 1e-3
"""How far an output may be off, absolutely and relatively, in a batch that need not be exact."""


class NotBatchable(RuntimeError):
    """A policy of which no batch does what its agents do, or can go on."""

    def __init__(self, policy: int, why: str) -> None:
        super().__init__(f"policy {policy} is stepped agent by agent: {why}")
        self.policy = policy


@dataclass(frozen=True)
class Row:
    """An agent of an episode, and how it steps."""

    episode: LiveEpisode
    agent: int
    known: KnownAgent


@dataclass(frozen=True)
class _Step:
    """What one agent's step was, by its own code."""

    seen: np.ndarray[Any, np.dtype[np.uint8]]
    given: torch.Tensor
    logits: torch.Tensor
    state: Sequence[torch.Tensor]
    random_before: torch.Tensor
    random_after: torch.Tensor
    action: str


@dataclass
class Witness:
    """Writes down the steps of one agent, from `watch` to `leave`."""

    row: Row
    steps: list[_Step] = field(default_factory=list)
    _calls: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    _random_before: torch.Tensor = field(default_factory=torch.get_rng_state)
    _own_forward: Any = None

    def watch(self) -> None:
        """Look on from now on."""
        self.row.episode.watched[self.row.agent] = self

    def leave(self) -> None:
        """Look on no longer."""
        del self.row.episode.watched[self.row.agent]

    def before(self) -> None:
        """See `daf_cogames.play.live_episodes.WatchesAgent`."""
        network, method = self.row.known.network, self.row.known.stepping.method
        original = getattr(network, method)
        self._own_forward = vars(network).get(method)

        def forward(given: torch.Tensor, *others: Any) -> Any:
            given_copy = given.clone()
            found = original(given, *others)
            self._calls.append((given_copy, found[0].clone()))
            return found

        self._calls = []
        self._random_before = torch.get_rng_state()
        vars(network)[method] = forward

    def after(self, result: tuple[Any, ...]) -> None:
        """See `daf_cogames.play.live_episodes.WatchesAgent`."""
        attributes, method = vars(self.row.known.network), self.row.known.stepping.method
        if self._own_forward is None:
            del attributes[method]
        else:
            attributes[method] = self._own_forward
        (given, logits), *others = self._calls or [(torch.empty(0), torch.empty(0))]
        self.steps.append(
            _Step(
                seen=self.row.episode.observations[self.row.agent].copy(),
                given=given,
                # A network that is asked several times is not one that a batch stands in for.
                logits=torch.empty(0) if others else logits,
                state=[part.clone() for part in self.row.known.state],
                random_before=self._random_before,
                random_after=torch.get_rng_state(),
                action=result[0].name,
            )
        )


class Batch:
    """Steps agents of one policy, which share a network, together. Its rows are those agents, episode by episode."""

    def __init__(self, rows: Sequence[Row], policy: int, *, row_by_row: bool, exact: bool = True) -> None:
        """exact: whether it has to be; row_by_row: how its forward pass is made (see `daf_cogames.play.rows`)."""
        first = rows[0]
        self.exact = exact
        self._rows = rows
        self._policy = policy
        self._known = first.known
        self._stepping = first.known.stepping
        self._network = first.known.network
        self._state = self._stepping.start(first.known.implementation, len(rows))
        self._row_by_row = row_by_row
        self._actions = [Action(name=name) for name in first.episode.policies[policy].policy_env_info.action_names]
        self._seen = np.stack([row.episode.observations[row.agent] for row in rows])
        self._parts = _by_episode(rows)
        self._places = {id(episode): places for episode, _, places in self._parts}
        self._probabilities = torch.empty(len(rows), len(self._actions))
        self._races = torch.empty_like(self._probabilities)
        self._race = list(self._races)
        self._nanoseconds = 0

    def step(self) -> None:
        """The forward pass of one step of all episodes that have not ended.

        Raises:
            PolicyFailure: the network raised.
            NotBatchable: its output is not finite.
        """
        for episode, agents, places in self._parts:
            if not episode.over:
                self._seen[places] = episode.observations[agents]
        started = time.perf_counter_ns()
        with blame(self._policy, None, "step"):
            _, logits = self._forward()
        if not torch.isfinite(logits).all():
            raise NotBatchable(self._policy, "the output of its network is not finite")
        self._probabilities = self._stepping.probabilities(logits)
        self._nanoseconds = time.perf_counter_ns() - started

    def step_agents(self, episode: LiveEpisode, agents: Sequence[int]) -> list[StepResult]:
        """See `daf_cogames.play.live_episodes.StepsAgents`; `agents` are all of the policy's in the episode."""
        drawn = self._draw(self._places[id(episode)], episode.generator)
        share = self._nanoseconds * len(agents) // len(self._rows)
        latency = episode.policies[self._policy].latency
        latency.add(self._nanoseconds, len(agents))
        latency.total_nanoseconds += share - self._nanoseconds
        milliseconds = self._nanoseconds / 1e6
        return [
            (agent, self._actions[action], milliseconds, {}, 0, self._nanoseconds)
            for agent, action in zip(agents, drawn, strict=True)
        ]

    def difference(self, witnesses: Sequence[Witness]) -> str | None:
        """Do the steps that were written down, one witness for each row, and say what is not the same."""
        generator = torch.Generator()
        for number in range(max(len(witness.steps) for witness in witnesses)):
            steps = [witness.steps[min(number, len(witness.steps) - 1)] for witness in witnesses]
            self._seen[:] = [step.seen for step in steps]
            given, logits = self._forward()
            self._probabilities = self._stepping.probabilities(logits)
            for place, (step, witness) in enumerate(zip(steps, witnesses, strict=True)):
                if number >= len(witness.steps):
                    continue  # its episode has ended
                what = self._difference(place, step, given, logits, generator)
                if what is not None:
                    return f"{what} of agent {self._rows[place].agent} in step {number}"
        return None

    def _difference(
        self, place: int, step: _Step, given: torch.Tensor, logits: torch.Tensor, generator: torch.Generator
    ) -> str | None:
        state = [] if self._state is None else [self._state[HIDDEN], self._state[CELL]]
        found = [logits[place], *(part[place] for part in state if part is not None)]
        expected = [step.logits, *step.state]
        if not _same(given[place], step.given):
            return "the observation"
        if len(found) != len(expected):
            return "the state"
        if not self.exact:
            off = not all(_close(one, other) for one, other in zip(found, expected, strict=True))
            return "the network's output" if off else None
        if not all(_same(one, other) for one, other in zip(found, expected, strict=True)):
            return "the last bits of the network's output"
        generator.set_state(step.random_before)
        (drawn,) = self._draw(slice(place, place + 1), generator)
        if self._actions[drawn].name != step.action or not torch.equal(generator.get_state(), step.random_after):
            return "the action"
        return None

    def _forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        apart: AbstractContextManager[Any] = RowByRow(len(self._rows)) if self._row_by_row else nullcontext()
        with torch.no_grad():
            given = self._stepping.see(torch.from_numpy(self._seen.copy()))
            with apart:
                logits, _ = getattr(self._network, self._stepping.method)(given, self._state)
        return given, logits

    def _draw(self, places: slice, generator: torch.Generator) -> list[int]:
        """As torch.multinomial draws one sample for each row, one call a row: by a race of exponential times."""
        for race in self._race[places]:
            race.exponential_(generator=generator)
        drawn: list[int] = (self._probabilities[places] / self._races[places]).argmax(-1).tolist()
        return drawn


def _by_episode(rows: Sequence[Row]) -> list[tuple[LiveEpisode, list[int], slice]]:
    """Episodes, which of their agents are rows, and which rows these are."""
    parts = []
    start = 0
    for _, group in itertools.groupby(rows, key=lambda row: id(row.episode)):
        own = list(group)
        parts.append((own[0].episode, [row.agent for row in own], slice(start, start + len(own))))
        start += len(own)
    return parts


def known_rows(episode: LiveEpisode) -> dict[int, list[Row]]:
    """The agents of an episode whose policy has agents of known classes only, by policy."""
    rows: dict[int, list[Row]] = {}
    unknown = set()
    for agent, policy in enumerate(episode.plan.seats):
        known = known_agent(unseated(episode.agents[agent]))
        if known is None:
            unknown.add(policy)
        else:
            rows.setdefault(policy, []).append(Row(episode, agent, known))
    return {policy: found for policy, found in rows.items() if policy not in unknown}


def batch_of(witnesses: Sequence[Witness], policy: int, *, fast: bool) -> Batch:
    """A batch that goes on with agents where they are after the steps which their witnesses wrote down.

    fast: whether it may be one that is not exact, if there is no other.

    Raises:
        NotBatchable: no batch does what the agents do. Nor may their networks go on: they were asked several times, and
            may remember it.
    """
    rows = [witness.row for witness in witnesses]
    ways: list[dict[str, bool]] = [{"row_by_row": True}, {"row_by_row": False}]
    if fast:
        ways.append({"row_by_row": False, "exact": False})
    difference: str | None = None
    for way in ways:
        try:
            batch = Batch(rows, policy, **way)
            difference = batch.difference(witnesses)
        except Exception as error:
            raise NotBatchable(policy, f"a batch fails: {last_line(error)}") from error
        if difference is None:
            return batch
    raise NotBatchable(policy, f"in a batch, {difference} differs")


def share_networks(witnesses: Sequence[Witness]) -> list[list[Witness]]:
    """Witnesses by network, in their order: of those with equal weights one is kept, and the others refer to it."""
    groups = by_network(witnesses, lambda witness: witness.row.known.network)
    for kept, *others in groups:
        for witness in others:
            _refer(witness.row.known.network, kept.row.known.network)
    return groups


def by_network[T](items: Sequence[T], network_of: Callable[[T], torch.nn.Module]) -> list[list[T]]:
    """Items in groups whose networks are equal, in their order."""
    groups: list[list[T]] = []
    for item in items:
        for group in groups:
            if _equal(network_of(group[0]), network_of(item)):
                group.append(item)
                break
        else:
            groups.append([item])
    return groups


def _equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return one is other or (
        type(one) is type(other) and ours.keys() == theirs.keys() and all(_same(ours[key], theirs[key]) for key in ours)
    )


def _refer(network: torch.nn.Module, kept: torch.nn.Module) -> None:
    """Let a network have the memory of another's equal weights."""
    for parameter, same in zip(network.parameters(), kept.parameters(), strict=True):
        parameter.data = same.data


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.flatten(), other.flatten())


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.numel() == other.numel() and torch.allclose(one.flatten(), other.flatten(), TOLERANCE, TOLERANCE)
