"""Runs several ranks of a training run as real processes, and keeps what each of them saw."""

import contextlib
import hashlib
import multiprocessing
import os
import pickle
import signal
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import torch

import daf_cogames.training.train
from daf_cogames.training.checkpoints import random_state
from daf_cogames.training.cogames_trainer import cogames_train
from daf_cogames.training.train import TrainingPlan
from daf_cogames.training.world import World
from tests.ports import free_port

DEADLINE_SECONDS = 240


@dataclass
class Rank:
    """What became of a rank. seconds: from the moment `train` was called; generators: at the start."""

    outcome: object = None
    error: type | None = None
    message: str = ""
    seconds: float = 0.0
    progress: list = field(default_factory=list)
    checkpoints: list = field(default_factory=list)
    learning_rates: list = field(default_factory=list)
    activities: int = 0
    environment_seed: int | None = None
    generators: dict | None = None
    weights: str = ""
    observations: str = ""
    exit_code: int | None = None


@dataclass(frozen=True)
class KillAt:
    """Ends the process like a machine that is switched off, at its n-th step of environments or gradients."""

    activity: int

    def __call__(self, rank):
        if rank.activities == self.activity:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class SleepAt:
    activity: int
    seconds: float

    def __call__(self, rank):
        if rank.activities == self.activity:
            time.sleep(self.seconds)


def train_ranks(plan: TrainingPlan, *, size=2, changes=None, stops=None, on_activity=None, absent=()) -> list[Rank]:
    """Trains the plan on `size` ranks.

    changes: for a rank, to its plan; stops: for a rank, what it answers after each update; on_activity: for a rank,
    what it does then; absent: ranks that never come.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["daf_cogames.training.train", "cogames.cli.mission", "torch._dynamo"])
    port = free_port()
    ranks = {}
    for number in set(range(size)) - set(absent):
        its_plan = replace(plan, world=World(number, size, number), directory=plan.directory / str(number))
        its_plan = replace(its_plan, **(changes or {}).get(number, {}))
        receiving, sending = context.Pipe(duplex=False)
        # Pickled here: multiprocessing would hand over tensors as open files of a process that may be killed.
        work = pickle.dumps((its_plan, port, (stops or {}).get(number, ()), (on_activity or {}).get(number)))
        process = context.Process(target=_train_rank, args=(work, sending))
        process.start()
        sending.close()
        ranks[number] = (process, receiving)
    deadline = time.monotonic() + DEADLINE_SECONDS
    try:
        return [_result(*ranks[number], deadline) for number in sorted(ranks)]
    finally:
        for process, _ in ranks.values():
            process.kill()
            process.join()


def start_with_environment_processes(plan: TrainingPlan):
    """Starts to train with environments in processes of their own, which cogames has on a GPU only."""
    process = multiprocessing.get_context("forkserver").Process(target=_train_with_processes, args=(plan,))
    process.start()
    return process


def wait_for(file):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextlib.contextmanager
def importable():
    """Rank processes find the modules of these tests where this process finds them."""
    root = str(Path(__file__).parents[3])
    sys.path.append(root)
    try:
        yield
    finally:
        sys.path.remove(root)


def _result(process, receiving, deadline):
    rank = Rank()
    with contextlib.suppress(EOFError):  # it was killed
        if receiving.poll(max(0.0, deadline - time.monotonic())):
            rank = pickle.loads(receiving.recv_bytes())
    process.join(max(0.0, deadline - time.monotonic()))
    rank.exit_code = process.exitcode
    return rank


def _train_rank(work, sending):
    plan, port, answers, act = pickle.loads(work)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    rank, answers = Rank(), iter(answers)
    with _watched(rank) as trainers:
        rank.seconds = -time.monotonic()

        def on_activity():
            rank.activities += 1
            if act is not None:
                act(rank)

        def on_start(configuration):
            rank.generators = random_state(torch.device("cpu"))
            rank.environment_seed = trainers[0].config["seed"]

        try:
            rank.outcome = daf_cogames.training.train.train(
                plan,
                on_start=on_start,
                on_progress=rank.progress.append,
                on_checkpoint=rank.checkpoints.append,
                on_activity=on_activity,
                stop=lambda: next(answers, None),
            )
        except Exception as error:
            rank.error, rank.message = type(error), str(error)
        rank.seconds += time.monotonic()
        if trainers:
            [trainer] = trainers
            rank.weights = _digest(*trainer.uncompiled_policy.state_dict().values())
            rank.observations = _digest(trainer.observations)
    sending.send_bytes(pickle.dumps(rank))


def _train_with_processes(plan):
    multiprocessing.set_start_method("fork", force=True)  # here it is that of this very process
    vector = cogames_train.pvector
    cogames_train.pvector = SimpleNamespace(
        make=vector.make, Serial=vector.Multiprocessing, Multiprocessing=vector.Multiprocessing
    )
    daf_cogames.training.train.train(plan, on_progress=lambda _: None, on_checkpoint=lambda _: None, stop=lambda: None)


@contextlib.contextmanager
def _watched(rank):
    """The trainers that are made, and the learning rates with which they learn."""
    trainers = []

    class Watched(daf_cogames.training.train.Trainer):
        def __init__(self, *args, **keywords):
            trainers.append(self)
            super().__init__(*args, **keywords)

        def train(self):
            rank.learning_rates.append(self.optimizer.param_groups[0]["lr"])
            super().train()

    original, daf_cogames.training.train.Trainer = daf_cogames.training.train.Trainer, Watched
    try:
        yield trainers
    finally:
        daf_cogames.training.train.Trainer = original


def _digest(*tensors):
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
