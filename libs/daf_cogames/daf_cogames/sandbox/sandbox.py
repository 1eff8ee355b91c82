"""Policies of other people, each in a process of its own: what the worker sees of them.

A `Sandbox` loads policies as `daf_cogames.policies.load_policy` does, and what it returns plays as if it were here. It
plays the same actions, too: the process begins with the random state that this one has when it loads the policy. So a
policy that draws from it plays alone as it would here; of several, each has a stream of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import pickle
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

from mettagrid.policy.policy import AgentPolicy
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator import Action, AgentObservation, Simulation

from daf_cogames.evaluation.player_output import FLOOD_BYTES, KEPT_BYTES
from daf_cogames.play.failures import CRASHED, FAILED, FLOODED, HUNG, PolicyEnded
from daf_cogames.play.marks import goes_on
from daf_cogames.play.observations import encoded
from daf_cogames.play.random_state import GlobalRandomState
from daf_cogames.policies import Bundle, LoaderError, PolicyElsewhere, PolicyError, PolicySource
from daf_cogames.sandbox import messages
from daf_cogames.sandbox.confinement import Enforced
from daf_cogames.sandbox.messages import HEADER, MAX_REPLY_BYTES, Reply, Request
from daf_cogames.sandbox.policy import Load, SetUp
from daf_cogames.seeding import seed_generators

MEMORY_BYTES = 8 << 30
"""That a policy may take."""

_START_SECONDS = 300.0
_LOOK_SECONDS = 0.1
"""For what does not run foreign code: the imports of the warm process, on a machine that is busy."""

# How often who watches this process hears that a wait goes on, within the time for which it would wait itself.
_SIGNS_OF_LIFE = 10

# Of the worker's environment: how many threads a library takes changes the last bits of sums.
_PASSED_ON = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LD_LIBRARY_PATH")

logger = logging.getLogger(__name__)


class Sandbox:
    """Processes for policies, and the warm process that they are forked from, which is started when first needed."""

    def __init__(
        self, time_limit_seconds: float, memory_bytes: int = MEMORY_BYTES, scratch: Path | None = None
    ) -> None:
        """Limits for each policy: for loading it, for its set-up, and for each call; and for the memory it takes.

        scratch: where the directory goes in which policies write, if they have none in memory.
        """
        self._time_limit, self._memory_bytes, self._scratch = time_limit_seconds, memory_bytes, scratch
        self._warm: _WarmProcess | None = None
        self._set_up: dict[Path, Path | PolicyEnded] = {}

    def __enter__(self) -> Self:
        self._warm = _WarmProcess(self._scratch)  # it is ready by the time that it is needed
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
        process = _PolicyProcess(warm, self._time_limit)
        process.begin(task, "loading")
        return SandboxedPolicy(process, environment)

    def _prepared(self, warm: _WarmProcess, source: PolicySource, bundle: Bundle) -> PolicySource:
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

    def _run_set_up(self, warm: _WarmProcess, root: Path, script: str) -> Path:
        copy = Path(warm.ask("copy", of=str(root))["copied"])
        process = _PolicyProcess(warm, self._time_limit)
        try:
            process.begin(SetUp(copy, script, self._memory_bytes), f"its set-up script {script}")
        finally:
            process.end()
        return copy

    def _started(self) -> _WarmProcess:
        if self._warm is None or not self._warm.alive:
            self._warm = _WarmProcess(self._scratch)
            self._set_up.clear()
        return self._warm


class SandboxedPolicy(PolicyElsewhere):
    """A policy in another process, which ends with this object."""

    def __init__(self, process: _PolicyProcess, environment: PolicyEnvInterface) -> None:
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


class _PolicyProcess:
    """The process of one policy, and what is said with it. After a failure it is gone."""

    def __init__(self, warm: _WarmProcess, time_limit_seconds: float) -> None:
        self._warm, self._time_limit = warm, time_limit_seconds
        self._printed = 0
        self._received = bytearray()
        self._channel, far_channel = socket.socketpair()
        self._output, far_output = os.pipe()
        try:
            self._process = int(warm.ask("fork", descriptors=(far_channel.fileno(), far_output))["pid"])
        except BaseException:
            self._channel.close()
            os.close(self._output)
            raise
        finally:
            far_channel.close()
            os.close(far_output)
        self._channel.setblocking(False)
        os.set_blocking(self._output, False)
        self._poll = select.poll()
        self._poll.register(self._output, select.POLLIN)
        self._alive, self._silent = True, False

    def begin(self, task: Load | SetUp, doing: str) -> None:
        """Does the task. Raises PolicyError, PolicyEnded; LoaderError where it ends before it runs foreign code."""
        try:
            self._exchange(messages.message(Request.CONFINE, pickle.dumps(task)), "confining", _START_SECONDS)
        except PolicyEnded as error:
            raise LoaderError(f"a policy's process does not begin: {error}") from error
        try:
            self._done(messages.message(Request.BEGIN), doing)
        except _Said as failure:
            raise PolicyError("class_path", failure.text) from None

    def call(self, request: Request, content: bytes, doing: str) -> None:
        """Asks for what has no answer. Raises PolicyEnded."""
        with self._told():
            self._done(messages.message(request, content), doing)

    def step(self, observed: Sequence[tuple[int, bytes]], known_actions: int) -> list[messages.Action]:
        """The actions of some seats. Raises PolicyEnded."""
        with self._told():
            request = messages.message(Request.STEP, messages.step_request(observed))
            kind, content = self._exchange(request, "a step")
            with self._well_formed():
                self._raise_failure(kind, content)
                if kind != Reply.ACTIONS:
                    raise messages.Malformed(f"a reply of the kind {kind}")
                return messages.actions_in(content, len(observed), known_actions)

    def end(self) -> None:
        """Ends the process, with all that it may have started."""
        if not self._alive:
            return
        self._warm.kill(self._process)
        self._close()

    def _close(self) -> None:
        self._alive = False
        self._channel.close()
        os.close(self._output)

    def _done(self, request: bytes, doing: str) -> None:
        kind, content = self._exchange(request, doing)
        with self._well_formed():
            self._raise_failure(kind, content)
            if kind != Reply.DONE or content:
                raise messages.Malformed(f"a reply of the kind {kind}")

    @staticmethod
    def _raise_failure(kind: int, content: bytes) -> None:
        if kind == Reply.FAILED:
            raise _Said(*messages.failure_in(content))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except _Said as failure:
            where = "" if failure.seat is None else f"in seat {failure.seat}: "
            raise PolicyEnded(FAILED, where + failure.text) from None

    @contextlib.contextmanager
    def _well_formed(self) -> Iterator[None]:
        try:
            yield
        except messages.Malformed as error:
            self.end()
            raise PolicyEnded(FAILED, f"it answers nonsense: {error}") from error
        except _Said:
            self.end()
            raise

    def _exchange(self, request: bytes, doing: str, limit: float | None = None) -> tuple[int, bytes]:
        """Sends a request and waits for a reply, while what is printed is passed on."""
        if not self._alive:
            raise PolicyEnded(FAILED, "it has failed before")
        limit = self._time_limit if limit is None else limit
        deadline = time.monotonic() + limit
        unsent = memoryview(request)
        self._poll.register(self._channel, select.POLLIN | select.POLLOUT)
        while True:
            left = deadline - time.monotonic()
            ready = self._poll.poll(max(0.0, min(left, limit / _SIGNS_OF_LIFE)) * 1000)
            if not ready:
                if left <= 0:
                    self._give_up(HUNG, f"{doing} takes longer than {limit:g} s")
                goes_on()
            for descriptor, events in ready:
                if descriptor == self._output:
                    self._pass_on()
                elif events & ~select.POLLOUT:
                    if (reply := self._receive()) is not None:
                        return reply
                elif not (unsent := self._send(unsent)):
                    self._poll.modify(self._channel, select.POLLIN)
            if self._printed > FLOOD_BYTES:
                self._give_up(FLOODED, f"it prints more than {FLOOD_BYTES >> 20} MiB in an episode")

    def _send(self, data: memoryview) -> memoryview:
        try:
            return data[self._channel.send(data) :]
        except ConnectionError:
            self._died()

    def _receive(self) -> tuple[int, bytes] | None:
        try:
            data = self._channel.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self._died()
        self._received += data
        if len(self._received) < HEADER.size:
            return None
        kind, length = HEADER.unpack_from(self._received)
        if length > MAX_REPLY_BYTES or len(self._received) > HEADER.size + length:
            self._give_up(FAILED, "it answers nonsense: more than it was asked")
        if len(self._received) < HEADER.size + length:
            return None
        content = bytes(self._received[HEADER.size :])
        self._received.clear()
        return kind, content

    def _pass_on(self) -> bool:
        """Reads some of what was printed, and prints the beginning of it; whether there was any."""
        if self._silent:
            return False
        try:
            data = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self._poll.unregister(self._output)
            self._silent = True
            return False
        if (kept := KEPT_BYTES - self._printed) > 0:
            print(data[:kept].decode(errors="replace"), end="", flush=True)
            if kept < len(data):
                print("\n[the rest of what it prints in this episode is dropped]", flush=True)
        self._printed += len(data)
        return True

    def _died(self) -> NoReturn:
        while self._printed < KEPT_BYTES and self._pass_on():
            pass
        code = self._warm.ask("wait", pid=self._process)["code"]
        self._close()
        if code is None:
            raise PolicyEnded(FAILED, "it has closed its channel")
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise PolicyEnded(CRASHED, f"its process {how}")

    def _give_up(self, reason: str, message: str) -> NoReturn:
        self.end()
        raise PolicyEnded(reason, message)


class _Said(Exception):
    """What a policy's process says of a failure."""

    def __init__(self, seat: int | None, text: str) -> None:
        super().__init__(text)
        self.seat, self.text = seat, text


class _WarmProcess:
    """The process that the policies' are forked from; see `daf_cogames.sandbox.child`."""

    def __init__(self, scratch: Path | None) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="sandbox-", dir=scratch)
        self._control, far = socket.socketpair()
        self._control.settimeout(_LOOK_SECONDS)
        self._unread = b""
        self._ended: list[int] = []
        self._enforced: Enforced | None = None
        self.alive = True
        with far:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-m", "daf_cogames.sandbox.child"),
                    *(str(far.fileno()), self._directory.name, str(os.getpid())),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(far.fileno(),),
                env={"LANG": "C.UTF-8", **{name: os.environ[name] for name in _PASSED_ON if name in os.environ}},
                cwd=self._directory.name,
                start_new_session=True,
            )

    @property
    def enforced(self) -> Enforced:
        """What it enforces; waits until it is ready. Raises LoaderError."""
        if self._enforced is None:
            self._enforced = Enforced(**self._answer()["ready"])
            logger.info("policies play in a sandbox: %s", self._enforced)
            if gaps := self._enforced.gaps:
                logger.warning("this machine does not enforce all of the sandbox: %s", "; ".join(gaps))
        return self._enforced

    def ask(self, verb: str, descriptors: Sequence[int] = (), **fields: object) -> dict[str, Any]:
        """Asks and waits. Raises LoaderError."""
        _ = self.enforced
        if ended := self._ended:
            self._ended = []
            self._exchange("reap", (), {"pids": ended})
        return self._exchange(verb, descriptors, fields)

    def kill(self, process: int) -> None:
        """Kills a process that was forked; its number stays its own until the next question."""
        if not self.alive:
            return
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(OSError):
                kill(process, signal.SIGKILL)
        self._ended.append(process)

    def close(self) -> None:
        """Ends it, and with it all that it has forked."""
        self.alive = False
        self._control.close()
        self._process.kill()
        self._process.wait()
        self._directory.cleanup()

    def _exchange(self, verb: str, descriptors: Sequence[int], fields: dict[str, object]) -> dict[str, Any]:
        try:
            socket.send_fds(self._control, [json.dumps({verb: fields}).encode() + b"\n"], descriptors)
        except OSError as error:
            self._fail(error)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        deadline = time.monotonic() + _START_SECONDS
        while b"\n" not in self._unread:
            goes_on()
            try:
                data = self._control.recv(1 << 16)
            except TimeoutError as error:
                if time.monotonic() > deadline:
                    self._fail(error)
                continue
            except OSError as error:
                self._fail(error)
            if not data:
                self._fail(EOFError("it has ended"))
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _fail(self, error: Exception) -> NoReturn:
        self.close()
        raise LoaderError(f"the process that starts policies fails: {error}") from error


def _next_random_state() -> GlobalRandomState:
    """The state that this process has; afterwards it has another, which the next policy gets."""
    state = GlobalRandomState.of_this_process()
    seed_generators(random.getrandbits(31))
    return state
