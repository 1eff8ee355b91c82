"""The ranks of a training job on this machine: torchrun's own agent, with a function in place of a script.

`torchrun` runs a script in fresh interpreters, each of which imports for seconds. The same agent also takes a function
and forks, so that ranks start warm where this process is (see `daf_cogames.zygote`). Everything else is torchrun's: it
reads `PET_NNODES`, `PET_NODE_RANK` and `PET_NPROC_PER_NODE` (what a PyTorchJob sets) from the environment, tells each
rank its number, and ends all of them when one fails. It restarts none: the service starts a new attempt. One thing is
changed: a request to end is passed on to the ranks and no more, however often it comes; how long they may take is for
whoever asks. The agent would kill them after its own half minute, and at once when asked twice.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

import psutil
from torch.distributed.elastic.multiprocessing import api as agent_processes
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.distributed.run import config_from_args, get_args_parser

logger = logging.getLogger(__name__)

SIGNALLED = 128
"""What a shell adds to the number of the signal that ended a program."""

_QUIET = "torch.distributed.elastic", "torch.distributed.run"


def launch(rank_main: Callable[[], int]) -> int:
    """Runs `rank_main` once for every rank of this machine, in forked processes, and waits for all.

    Returns:
        0 if every rank returned 0; otherwise an exit code that says how the first rank failed that was seen to.
    """
    # Its tracebacks are of the agent, not of a rank; what it has to say is said below.
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    agent_processes._terminate_process_handler = _pass_on
    try:
        elastic_launch(_configuration(), _run_rank)(rank_main)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            logger.error("rank %d was ended by %s", rank, signal.Signals(-failure.exitcode).name)
            return SIGNALLED - failure.exitcode
        logger.error("rank %d ended with exit code %d", rank, failure.exitcode)
        return failure.exitcode
    return 0


def _pass_on(signum: int, frame: FrameType | None) -> None:
    """Handles a signal to the launcher: every rank is asked to end."""
    if multiprocessing.parent_process() is not None:  # a rank that has just been forked, and has nothing to save
        os._exit(SIGNALLED + signum)
    for rank in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            rank.terminate()


def _configuration() -> LaunchConfig:
    config, _, _ = config_from_args(get_args_parser().parse_args(_arguments()))
    return config


def _arguments() -> Sequence[str]:
    arguments = ["--start-method", "fork", "--log-dir", os.getcwd()]
    if os.environ.get("PET_NNODES", "1") == "1":
        # A rendezvous on whatever port is free, so that jobs of one machine cannot meet in each other's. (What
        # `torchrun --standalone` does outside of the parser.)
        arguments += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--rdzv-id", str(os.getpid())]
    return [*arguments, "--max-restarts", "0", "daf-runner"]


def _run_rank(rank_main: Callable[[], int]) -> None:
    code = rank_main()
    sys.stdout.flush()
    sys.stderr.flush()
    if code != 0:
        sys.exit(code)
