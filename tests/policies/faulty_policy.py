"""A policy that learns well until, on one rank and at one gradient step, something goes wrong with it."""

import math
import os
import signal
import sys
import time
from pathlib import Path

import torch
from grid_policy import GridPolicy


class FaultyPolicy(GridPolicy):
    """fault: what goes wrong, if anything; rank, call: where and when; once: a file that, once there, keeps it from
    going wrong; until: a file that has to be there before anything goes wrong, or on."""

    def __init__(self, policy_env_info, device="cpu", fault="", rank=0, call=3, once="", until="") -> None:
        super().__init__(policy_env_info, device=device, hidden_size=8)
        if int(os.environ.get("RANK", "0")) == rank:
            forward, calls = self._network.forward, 0

            def faulty(observations, state=None):
                nonlocal calls
                calls += 1
                logits, values = forward(observations, state)
                if calls == call and not (once and Path(once).exists()):
                    while until and not Path(until).exists():
                        time.sleep(0.02)
                    if once:
                        Path(once).touch()
                    if fault:
                        return globals()[fault](logits, values)
                return logits, values

            self._network.forward = faulty


def be_killed(logits, values):
    os.kill(os.getpid(), signal.SIGKILL)


def be_preempted(logits, values):
    os.kill(os.getppid(), signal.SIGTERM)  # as a machine does that is wanted for something else
    return logits, values


def hang_here(logits, values):
    while True:
        time.sleep(1)


def lose_all_sense(logits, values):
    return logits, values * torch.tensor(math.nan)


def leave(logits, values):
    sys.exit("the policy decided to leave")
