"""The process of one foreign policy, as the worker sees it: requests, replies, and what it prints."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from typing import NoReturn

from daf_cogames.evaluation.player_output import FLOOD_BYTES, KEPT_BYTES
from daf_cogames.play.failures import CRASHED, FAILED, FLOODED, HUNG, PolicyEnded
from daf_cogames.play.marks import goes_on
from daf_cogames.policies import LoaderError, PolicyError
from daf_cogames.sandbox import messages
from daf_cogames.sandbox.messages import HEADER, MAX_REPLY_BYTES, Reply, Request
from daf_cogames.sandbox.policy import Load, SetUp
from daf_cogames.sandbox.warm_process import START_SECONDS, WarmProcess

# How often who watches this process hears that a wait goes on, within the time for which it would wait itself.
_SIGNS_OF_LIFE = 10


class PolicyProcess:
    """The process of one policy, and what is said with it. After a failure it is gone."""

    def __init__(self, warm: WarmProcess, time_limit_seconds: float) -> None:
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
            self._exchange(messages.message(Request.CONFINE, pickle.dumps(task)), "confining", START_SECONDS)
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
