"""Agents that ask their networks, and the calls that they make, written down.

A call is what the network was given and gave. That it did nothing else is checked: that it drew no random numbers, kept
nothing, and changed nothing but dictionaries that it was given.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from daf_cogames.play.live_episodes import LiveEpisode
from daf_cogames.play.random_state import GlobalRandomState
from daf_cogames.play.trees import Tree, UnknownTree, built, structure_of

_METHODS = ("forward", "forward_eval")


class AnswersAgents(Protocol):
    """Stands between agents and their network."""

    def ask(self, asker: Asker, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Asker.ask`."""


class CalledNetwork:
    """A network whose calls by agents come here, until `leave`. asking: the agent that is stepping, if any."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network
        self.asking: Asker | None = None
        self._own = {method: vars(network).get(method) for method in _METHODS}
        self._originals = {method: getattr(network, method) for method in _METHODS if hasattr(network, method)}
        for method in self._originals:
            vars(network)[method] = partial(self._called, method)

    def leave(self) -> None:
        """Let its calls be its own again."""
        for method in self._originals:
            if (own := self._own[method]) is None:
                del vars(self.network)[method]
            else:
                vars(self.network)[method] = own

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Its own answer; what it calls of itself meanwhile is answered by itself."""
        asking, self.asking = self.asking, None
        try:
            return self._originals[method](*args, **kwargs)
        finally:
            self.asking = asking

    def memory(self) -> object:
        """What a call would change that keeps anything in it."""
        return [
            (name, id(value), _version(value))
            for module in self.network.modules()
            for attributes in (vars(module), module._buffers, module._parameters)
            for name, value in attributes.items()
        ]

    def _called(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self.asking is None:
            return self._originals[method](*args, **kwargs)
        return self.asking.ask(method, args, kwargs)


@dataclass(frozen=True)
class Call:
    """asked: the arguments, by position and by name; answered: see `answer_of`; seen: what the environment showed."""

    seen: torch.Tensor
    method: str
    asked: Tree
    answered: Tree
    nanoseconds: int


class Asker:
    """An agent that asks a network."""

    def __init__(self, episode: LiveEpisode, agent: int, network: CalledNetwork) -> None:
        self.episode = episode
        self.agent = agent
        self.network = network
        self.answers: AnswersAgents | None = None
        self.place = 0
        self.steps = 0
        self.calls: list[Call] = []
        self.strange: str | None = None
        """What makes its calls ones that cannot be foretold."""

    def before(self) -> None:
        """See `daf_cogames.play.live_episodes.WatchesAgent`."""
        self.network.asking = self

    def after(self, result: tuple[Any, ...]) -> None:
        """See `daf_cogames.play.live_episodes.WatchesAgent`."""
        self.network.asking = None
        self.steps += 1

    def ask(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the network returns, and does to dictionaries that it is given."""
        if self.answers is not None:
            return self.answers.ask(self, method, args, kwargs)
        if self.strange is None and len(self.calls) <= self.steps:
            return self._write_down(method, args, kwargs)
        self.strange = self.strange or "its network is asked several times in a step"
        return self.network.call(method, *args, **kwargs)

    def _write_down(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            asked = question(args, kwargs)
        except UnknownTree as error:
            self.strange = str(error)
            return self.network.call(method, *args, **kwargs)
        before = asked.cloned()
        outside = _random_state(), self.network.memory(), [_version(leaf) for leaf in asked.leaves]
        started = time.thread_time_ns()
        returned = self.network.call(method, *args, **kwargs)
        nanoseconds = time.thread_time_ns() - started
        if outside != (_random_state(), self.network.memory(), [_version(leaf) for leaf in asked.leaves]):
            self.strange = "its network does more than to answer"
        try:
            answered = answer_of(args, kwargs, returned).cloned()
        except UnknownTree as error:
            self.strange = str(error)
        else:
            seen = torch.from_numpy(self.episode.observations[self.agent].copy())
            self.calls.append(Call(seen, method, before, answered, nanoseconds))
        return returned


@contextmanager
def asking(episodes: Sequence[LiveEpisode], policies: Collection[int]) -> Iterator[Mapping[int, Sequence[Asker]]]:
    """All agents of policies in episodes, by policy; for the time of the block they ask what is told here."""
    called: dict[torch.nn.Module, CalledNetwork] = {}
    askers: dict[int, list[Asker]] = {policy: [] for policy in policies}
    for episode in episodes:
        networks = networks_of(episode)
        for agent, policy in enumerate(episode.plan.seats):
            if policy in policies and (network := networks.get(policy)) is not None:
                if network not in called:
                    called[network] = CalledNetwork(network)
                askers[policy].append(Asker(episode, agent, called[network]))
                episode.watched[agent] = askers[policy][-1]
    try:
        yield askers
    finally:
        for asked in called.values():
            asked.leave()


def networks_of(episode: LiveEpisode) -> Mapping[int, torch.nn.Module]:
    """The networks of an episode's policies that say what theirs is, by policy."""
    before = GlobalRandomState.of_this_process()
    networks = {number: policy.network() for number, policy in episode.policies.items()}
    before.restore()
    return {number: network for number, network in networks.items() if network is not None}


def question(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tree:
    """What a network is given. Raises UnknownTree."""
    leaves: list[torch.Tensor] = []
    return Tree(structure_of((args, kwargs), leaves), leaves)


def answer_of(args: tuple[Any, ...], kwargs: dict[str, Any], returned: object) -> Tree:
    """What a network makes of the dictionaries that it is given, and what it returns. Raises UnknownTree."""
    dictionaries = _dictionaries(args, kwargs)
    leaves: list[torch.Tensor] = []
    return Tree((structure_of(dictionaries, leaves), structure_of(returned, leaves, dictionaries)), leaves)


def give(structure: Any, leaves: Sequence[torch.Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The reverse of `answer_of`: returns what is returned."""
    dictionaries = _dictionaries(args, kwargs)
    made, returned = structure
    rest = iter(leaves)
    for dictionary, content in zip(dictionaries, built(made, rest), strict=True):
        dictionary.clear()
        dictionary.update(content)
    return built(returned, rest, dictionaries)


def _dictionaries(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[dict[Any, Any]]:
    return [argument for argument in (*args, *kwargs.values()) if type(argument) is dict]


def _random_state() -> object:
    name, keys, *others = np.random.get_state()
    return random.getstate(), name, keys.tobytes(), others, torch.get_rng_state().numpy().tobytes()


def _version(value: object) -> int:
    return value._version if isinstance(value, torch.Tensor) and not value.is_inference() else 0
