"""Policies that do what no policy should, each in its own way, in the named stage or at the named step."""

import ctypes
import os
import random
import re
import signal
import sys
import time

from mettagrid.policy.policy import AgentPolicy, MultiAgentPolicy
from mettagrid.simulator import Action

from daf_cogames.play import marks

NOOP = Action(name="noop")


class Hostile(MultiAgentPolicy):
    """deed: a function of this module; stage: `load`, `agent`, `reset` or `step`; at: the step, from 0, of seat
    `seat` or, if it is negative, of any."""

    def __init__(self, policy_env_info, deed: str, stage: str = "step", at: int = 3, seat: int = -1):
        super().__init__(policy_env_info)
        self.deed, self.stage, self.at, self.seat = globals()[deed], stage, at, seat
        if stage == "load":
            self.deed()

    def agent_policy(self, agent_id):
        if self.stage == "agent":
            self.deed()
        return Agent(self, agent_id)


class Agent(AgentPolicy):
    def __init__(self, policy, seat):
        super().__init__(policy.policy_env_info)
        self.policy, self.seat, self.steps = policy, seat, 0

    def reset(self, simulation=None):
        if self.policy.stage == "reset":
            self.policy.deed()

    def step(self, obs):
        due = self.policy.stage == "step" and self.policy.seat in (-1, self.seat) and self.steps >= self.policy.at
        self.steps += 1
        return self.policy.deed() if due else NOOP


def raise_error():
    raise RuntimeError("out of luck")


def return_nothing():
    return None


def return_unknown_action():
    return Action(name="fly")


def raise_interrupt():
    raise KeyboardInterrupt


def loop():
    while True:
        pass


def swallow_everything():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass


def match_for_ever():
    re.match(r"(a+)+$", "a" * 64 + "b")


def sleep_holding_the_interpreter():
    ctypes.PyDLL(None).sleep(1000)


def exit_quietly():
    os._exit(0)


def exit_by_chance():
    if random.random() < 0.5:  # of the episode: the same in every run
        os._exit(0)


def exit_unmarked():
    marks.cells()[marks.WHO] = marks.NOBODY
    os._exit(0)


def abort():
    os.abort()


def segfault():
    ctypes.string_at(0)


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def tell_secret():
    raise RuntimeError(f"the token is {os.environ.get('DAF_TOKEN')}")


def flood():
    while True:
        os.write(1, b"x" * 65536 + b"\n")


def flood_from_python():
    while True:
        print("words " * 1000)


def chatter():
    print("word " * 100_000, file=sys.stderr)
    return NOOP


def leave_a_child():
    if os.fork() == 0:
        time.sleep(600)
    os._exit(7)
