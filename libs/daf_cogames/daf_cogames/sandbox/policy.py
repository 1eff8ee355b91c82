"""The process of one foreign policy in one episode: confines itself, then does what it is asked.

From `confine` on, nothing here is trusted by the side that asks: the policy's code may have changed any of it.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import pickle
import runpy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mettagrid.policy.policy import AgentPolicy, MultiAgentPolicy
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator import Action, AgentObservation

from daf_cogames.play.observations import decoded
from daf_cogames.play.random_state import GlobalRandomState
from daf_cogames.policies import PolicyError, PolicySource, last_line, load_policy
from daf_cogames.sandbox import messages
from daf_cogames.sandbox.bundle_files import module_root
from daf_cogames.sandbox.confinement import Enforced, confine
from daf_cogames.sandbox.messages import HEADER, Reply, Request


@dataclass(frozen=True)
class Load:
    """A policy to load. path: directories of modules; readable: what else it may read, beside Python's own files."""

    source: PolicySource
    environment: PolicyEnvInterface
    device: str
    path: Sequence[Path]
    readable: Sequence[Path]
    random: GlobalRandomState
    memory_bytes: int


@dataclass(frozen=True)
class SetUp:
    """A script of a bundle to run, in a copy of the bundle that it may write to."""

    root: Path
    script: str
    memory_bytes: int


def serve(channel: int, parent: int, scratch: Path, enforced: Enforced) -> None:
    """Does one task. Returns when the channel is closed, or what was asked has failed."""
    _, content = _receive(channel)
    task: Load | SetUp = pickle.loads(content)  # from the worker, and foreign code does not run yet
    match task:
        case SetUp():
            confine(enforced, parent, (), task.root, task.memory_bytes)
            _settle(task.root)
            _wait_to_begin(channel)
            if _tried(channel, None, lambda: _run(task)):
                _send(channel, Reply.DONE)
        case Load():
            confine(enforced, parent, [*task.path, *task.readable], scratch, task.memory_bytes)
            _settle(scratch)
            _wait_to_begin(channel)
            _Policy(channel, task.environment).play(task)


class _Policy:
    def __init__(self, channel: int, environment: PolicyEnvInterface) -> None:
        self._channel, self._environment = channel, environment
        self._policy: MultiAgentPolicy | None = None
        self._agents: dict[int, AgentPolicy] = {}
        self._at_work: int | None = None
        self._features = {feature.id: feature for feature in environment.obs_features}
        # Kept from step to step, as the simulator's: a policy may keep tokens, whose bytes then change under it.
        self._rows = np.full((environment.num_agents, *environment.observation_shape), 0xFF, dtype=np.uint8)

    def play(self, task: Load) -> None:
        if not _tried(self._channel, None, lambda: self._load(task)):
            return
        _send(self._channel, Reply.DONE)
        while True:
            kind, content = _receive(self._channel)
            if kind == Request.STEP:
                self._step(content)
                continue
            seat = messages.seat_of(content)
            act = self._take_seat if kind == Request.SEAT else self._reset
            if _tried(self._channel, seat, lambda act=act, seat=seat: act(seat)):  # type: ignore[misc]
                _send(self._channel, Reply.DONE)

    def _load(self, task: Load) -> None:
        source, path = task.source, list(task.path)
        if source.bundle is not None:
            root = source.bundle.root
            source = dataclasses.replace(source, code=module_root(root, source.class_path))
            path += dict.fromkeys((root, source.code or root))
        sys.path.extend(map(str, path))
        importlib.invalidate_caches()
        task.random.restore()
        self._policy = load_policy(source, task.environment, task.device)

    def _take_seat(self, seat: int) -> None:
        assert self._policy is not None
        self._agents[seat] = self._policy.agent_policy(seat)

    def _reset(self, seat: int) -> None:
        self._agents[seat].reset()

    def _step(self, content: bytes) -> None:
        observed = []
        for seat, rows in messages.observed_in(content, self._rows[0].nbytes):
            self._rows[seat] = np.frombuffer(rows, dtype=np.uint8).reshape(self._rows.shape[1:])
            observed.append((seat, decoded(seat, self._rows[seat], self._features)))
        try:
            actions = self._actions(observed)
        except BaseException as error:
            _fail(self._channel, self._at_work, error)
            return
        _send(self._channel, Reply.ACTIONS, messages.actions_reply(actions))

    def _actions(self, observed: list[tuple[int, AgentObservation]]) -> list[messages.Action]:
        """As mettagrid's rollout steps the agents of one policy."""
        agents = [self._agents[seat] for seat, _ in observed]
        self._at_work = None
        if agents[0].can_step_group(agents):
            return [self._checked(action) for action in agents[0].step_group(observed)]
        actions = []
        for agent, (seat, observation) in zip(agents, observed, strict=True):
            self._at_work = seat
            actions.append(self._checked(agent.step(observation)))
            _ = agent.infos  # the rollout reads them, and that may fail
        return actions

    def _checked(self, action: object) -> messages.Action:
        if not isinstance(action, Action):
            raise TypeError(f"step() returned {type(action).__name__} instead of an Action")
        known = self._environment.action_name_to_flat_index
        if action.name not in known or (action.vibe is not None and action.vibe not in known):
            raise ValueError(f"step() returned {action!r:.200}, which is no action of this environment")
        return known[action.name], None if action.vibe is None else known[action.vibe]


def _wait_to_begin(channel: int) -> None:
    _send(channel, Reply.DONE)
    _receive(channel)


def _run(task: SetUp) -> None:
    script = task.root / task.script
    sys.argv = [str(script)]
    sys.path.insert(0, str(script.parent))
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise


def _settle(directory: Path) -> None:
    os.chdir(directory)
    os.environ.update(HOME=str(directory), TMPDIR=str(directory))


def _tried(channel: int, seat: int | None, act: Callable[[], None]) -> bool:
    try:
        act()
    except BaseException as error:  # SystemExit, too: a policy says how it fails, or is killed
        _fail(channel, seat, error)
        return False
    return True


def _fail(channel: int, seat: int | None, error: BaseException) -> None:
    text = error.message if isinstance(error, PolicyError) else last_line(error)
    _send(channel, Reply.FAILED, messages.failure_reply(seat, text))


def _receive(channel: int) -> tuple[int, bytes]:
    kind, length = HEADER.unpack(_read(channel, HEADER.size))
    return kind, _read(channel, length)


def _read(channel: int, length: int) -> bytes:
    content = b""
    while len(content) < length:
        part = os.read(channel, length - len(content))
        if not part:
            os._exit(0)  # the worker is gone
        content += part
    return content


def _send(channel: int, kind: Reply, content: bytes = b"") -> None:
    data = messages.message(kind, content)
    while data:
        data = data[os.write(channel, data) :]
