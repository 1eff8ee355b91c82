"""Policies of other people, each in a process of its own: what the worker sees of them.

A `Sandbox` loads policies as `daf_cogames.policies.load_policy` does, and what it returns plays as if it were here. It
plays the same actions, too: the process begins with the random state that this one has when it loads the policy. So a
policy that draws from it plays alone as it would here; of several, each has a stream of its own.
"""

from __future__ import annotations

import dataclasses
import random
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from mettagrid.policy.policy import AgentPolicy
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator import Action, AgentObservation, Simulation

from daf_cogames.play.failures import FAILED, PolicyEnded
from daf_cogames.play.observations import encoded
from daf_cogames.play.random_state import GlobalRandomState
from daf_cogames.policies import Bundle, PolicyElsewhere, PolicyError, PolicySource
from daf_cogames.sandbox import messages
from daf_cogames.sandbox.confinement import Enforced
from daf_cogames.sandbox.messages import Request
from daf_cogames.sandbox.policy import Load, SetUp
from daf_cogames.sandbox.policy_process import PolicyProcess
from daf_cogames.sandbox.warm_process import WarmProcess
from daf_cogames.seeding import seed_generators

MEMORY_BYTES = 8 << 30
"""That a policy may take."""


class Sandbox:
    """Processes for policies, and the warm process that they are forked from, which is started when first needed."""

    def __init__(
        self, time_limit_seconds: float, memory_bytes: int = MEMORY_BYTES, scratch: Path | None = None
    ) -> None:
        """Limits for each policy: for loading it, for its set-up, and for each call; and for the memory it takes.

        scratch: where the directory goes in which policies write, if they have none in memory.
        """
        self._time_limit, self._memory_bytes, self._scratch = time_limit_seconds, memory_bytes, scratch
        self._warm: WarmProcess | None = None
        self._set_up: dict[Path, Path | PolicyEnded] = {}

    def __enter__(self) -> Self:
        self._warm = WarmProcess(self._scratch)  # it is ready by the time that it is needed
        return self

    def __exit__(self, *_: object) -> None:
        if self._warm is not None and self._warm.alive:
            self._warm.close()

    @property
    def enforced(self) -> Enforced:
        """What this machine enforces."""
        return self._started().enforced

    def load(self, source: PolicySource, environment: PolicyEnvInterface, device: str) -> PolicyElsewhere:
        """The policy, in a new process.

        Raises:
            PolicyError: it cannot be loaded.
            PolicyEnded: nor says why.
            LoaderError: no process can be had.
        """
        warm = self._started()
        if source.bundle is not None:
            source = self._prepared(warm, source, source.bundle)
        directories = [source.code, source.requirements]
        task = Load(
            source=source,
            environment=environment,
            device=device,
            path=[directory.resolve() for directory in directories if directory is not None],
            readable=[path.resolve() for path in (source.weights, source.bundle and source.bundle.root) if path],
            random=_next_random_state(),
            memory_bytes=self._memory_bytes,
        )
        process = PolicyProcess(warm, self._time_limit)
        process.begin(task, "loading")
        return SandboxedPolicy(process, environment)

    def _prepared(self, warm: WarmProcess, source: PolicySource, bundle: Bundle) -> PolicySource:
        """The source, with a bundle whose set-up script has run, once for all episodes."""
        if bundle.setup is None:
            return source
        if bundle.root not in self._set_up:
            try:
                self._set_up[bundle.root] = self._run_set_up(warm, bundle.root, bundle.setup)
            except PolicyEnded as error:
                self._set_up[bundle.root] = error
            except PolicyError as error:
                self._set_up[bundle.root] = PolicyEnded(FAILED, error.message)
        root = self._set_up[bundle.root]
        if isinstance(root, PolicyEnded):
            raise PolicyEnded(root.reason, str(root))

        def moved(path: Path | None) -> Path | None:
            return path and root / path.relative_to(bundle.root)

        return dataclasses.replace(source, weights=moved(source.weights), bundle=Bundle(root, None))

    def _run_set_up(self, warm: WarmProcess, root: Path, script: str) -> Path:
        copy = Path(warm.ask("copy", of=str(root))["copied"])
        process = PolicyProcess(warm, self._time_limit)
        try:
            process.begin(SetUp(copy, script, self._memory_bytes), f"its set-up script {script}")
        finally:
            process.end()
        return copy

    def _started(self) -> WarmProcess:
        if self._warm is None or not self._warm.alive:
            self._warm = WarmProcess(self._scratch)
            self._set_up.clear()
        return self._warm


class SandboxedPolicy(PolicyElsewhere):
    """A policy in another process, which ends with this object."""

    def __init__(self, process: PolicyProcess, environment: PolicyEnvInterface) -> None:
        super().__init__(environment)
        self.process = process
        weakref.finalize(self, process.end).atexit = False

    def agent_policy(self, agent_id: int) -> AgentPolicy:
        self.process.call(Request.SEAT, messages.seat_request(agent_id), "starting")
        return _SandboxedAgent(self, agent_id)

    def step_rows(self, observed: Sequence[tuple[int, bytes]]) -> list[Action]:
        names = self.policy_env_info.all_action_names
        actions = self.process.step(observed, len(names))
        return [Action(names[index], None if vibe is None else names[vibe]) for index, vibe in actions]

    def close(self) -> None:
        self.process.end()


class _SandboxedAgent(AgentPolicy):
    def __init__(self, policy: SandboxedPolicy, seat: int) -> None:
        super().__init__(policy.policy_env_info)
        self._policy, self._seat = policy, seat
        self._tokens = policy.policy_env_info.observation_shape[0]

    def reset(self, simulation: Simulation | None = None) -> None:
        self._policy.process.call(Request.RESET, messages.seat_request(self._seat), "starting")

    def step(self, obs: AgentObservation) -> Action:
        return self._policy.step_rows([(self._seat, encoded(obs, self._tokens))])[0]


def _next_random_state() -> GlobalRandomState:
    """The state that this process has; afterwards it has another, which the next policy gets."""
    state = GlobalRandomState.of_this_process()
    seed_generators(random.getrandbits(31))
    return state
