"""PuffeRL, the optimiser loop inside `cogames.train.train()`, made to report, to stop and to save as we need it.

Importing this module imports `cogames.train` without what that import does to the process; import it from here.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import math
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from daf_cogames.checkpoints import SavedCheckpoint, nonfinite_tensors, random_state, save
from daf_cogames.metrics import MetricsWindow
from daf_cogames.params import DEFAULT_BPTT_HORIZON, DEFAULT_MINIBATCH_SIZE, TRAINER_PARAMETERS, Value


@contextlib.contextmanager
def _process_left_alone() -> Iterator[None]:
    """Undo what importing pufferl does to a process: it turns every RuntimeWarning into an error, makes SIGINT end the
    process with status 0, and has tracebacks printed by rich."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler, hook = signal.getsignal(signal.SIGINT), sys.excepthook
    with warnings.catch_warnings():
        yield
    sys.excepthook = hook
    if in_main_thread:
        signal.signal(signal.SIGINT, handler)


with _process_left_alone():
    from cogames import train as cogames_train
    from pufferlib import pufferl

__all__ = ["RUN_ID", "EffectiveConfiguration", "Progress", "Run", "StopReason", "Trainer", "cogames_train"]

logger = logging.getLogger(__name__)

RUN_ID = "checkpoints"


class StopReason(enum.Enum):
    """Why training is asked to end early: somebody cancelled it, or the machine is wanted for something else."""

    CANCELLED = "cancelled"
    PREEMPTED = "preempted"


@dataclass(frozen=True)
class EffectiveConfiguration:
    """What the live trainer was found to train with, read back from it before the first update.

    trainer: every parameter of `params.TRAINER_PARAMETERS` by its full name, as in PuffeRL's config; optimizer: of its
    parameter group; agents: in all environments; batch_size: agent steps in an update; agent_steps: that will be
    trained in all, in whole updates; policy_parameters: trainable numbers in the network; notes: what the user should
    know about values that do less than they seem to.
    """

    trainer: Mapping[str, Value]
    optimizer: Mapping[str, float]
    recurrent: bool
    agents: int
    batch_size: int
    gradient_steps_per_update: int
    agent_steps: int
    policy_parameters: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """What happened since the report before.

    learning_rate: of the last update; metrics: means over the updates (`losses/...`) and over the episodes that ended
    (`env/...`); nonfinite: the names of metrics that had a NaN or an infinity, left out of the means.
    """

    update: int
    agent_steps: int
    agent_steps_per_second: float
    learning_rate: float
    metrics: Mapping[str, float]
    nonfinite: tuple[str, ...]
    configuration: EffectiveConfiguration


class _LeaveLoop(KeyboardInterrupt):
    """The way out of the loop of `cogames.train.train()`: it catches KeyboardInterrupt and then closes the trainer."""


@dataclass
class Run:
    """What a trainer needs to know that cogames does not pass on. The trainer puts itself into `trainer`.

    settings: trainer parameters by their name in PuffeRL's config; recurrent: what the policy says of itself, None
    where it says nothing; on_start: called right before the first environment step; stop: asked after every update,
    the trainer leaves if the answer is not None.
    """

    settings: Mapping[str, Value]
    agent_steps: int
    missions: int
    progress_interval_s: float
    on_start: Callable[[EffectiveConfiguration], None]
    on_progress: Callable[[Progress], None]
    on_checkpoint: Callable[[SavedCheckpoint], None]
    stop: Callable[[], StopReason | None]
    recurrent: bool | None = None
    trainer: Trainer | None = None


class Trainer(pufferl.PuffeRL):
    """PuffeRL, with the public methods below in place of its own.

    stopped_for: what `run.stop` answered; diverged: whether the weights stopped being finite; checkpoint: the last one
    saved.
    """

    def __init__(self, config: dict[str, Any], vecenv: Any, policy: torch.nn.Module, *, run: Run) -> None:
        run.trainer = self
        self._run = run
        self.stopped_for: StopReason | None = None
        self.diverged = False
        self.checkpoint: SavedCheckpoint | None = None
        _configure(config, run, agents=vecenv.num_agents)
        super().__init__(config, vecenv, policy, _Logger())
        # A thread that feeds only the dashboard, and that keeps the process alive for ever after an exception.
        self.utilization.stop()

        self.configuration = self._read_back()
        self._window = MetricsWindow(by_mission=self._run.missions > 1)
        self._last_metrics: Mapping[str, float] = {}
        self._learning_rate = self.configuration.optimizer["learning_rate"]
        self._reported_at, self._reported_steps = time.monotonic(), 0
        run.on_start(self.configuration)

    def train(self) -> None:
        self._learning_rate = self.optimizer.param_groups[0]["lr"]
        self.last_log_time = 0.0  # PuffeRL publishes losses and statistics by time, and drops those of other updates
        super().train()
        for name, loss in self.losses.items():
            self._window.add(f"losses/{name}", loss)

        broken = nonfinite_tensors(self.uncompiled_policy.state_dict())
        if broken:
            self.diverged = True
            logger.error("diverged at agent step %d: not finite: %s", self.global_step, ", ".join(broken))
            raise _LeaveLoop
        is_first = self._reported_steps == 0
        if is_first or time.monotonic() - self._reported_at >= self._run.progress_interval_s:
            self._report()
        if self.global_step >= self.config["total_timesteps"]:
            return
        if self.epoch % self.config["checkpoint_interval"] == 0:
            self._save()
        self.stopped_for = self._run.stop()
        if self.stopped_for is not None:
            raise _LeaveLoop

    def mean_and_log(self) -> None:
        self._window.add_episodes(self.stats)

    def print_dashboard(self, *args: object, **kwargs: object) -> None:
        """Nothing: the log of a job is no terminal."""

    def save_checkpoint(self) -> None:
        """Nothing: PuffeRL calls it in the middle of `train`, whether the weights are finite or not."""

    def close(self) -> None:
        self.vecenv.close()
        self._report()
        self._save()

    def _read_back(self) -> EffectiveConfiguration:
        group = self.optimizer.param_groups[0]
        beta1, beta2 = group["betas"]
        return EffectiveConfiguration(
            trainer={parameter.name: self.config[parameter.key] for parameter in TRAINER_PARAMETERS},
            optimizer={"learning_rate": group["lr"], "beta1": beta1, "beta2": beta2, "eps": group["eps"]},
            recurrent=self.config["use_rnn"],
            agents=self.total_agents,
            batch_size=self.config["batch_size"],
            gradient_steps_per_update=self.total_minibatches,
            agent_steps=self.config["total_timesteps"],
            policy_parameters=self.model_size,
            notes=_notes(self._run.settings, self.config, self.total_minibatches),
        )

    def _report(self) -> None:
        now = time.monotonic()
        steps = self.global_step - self._reported_steps
        if steps == 0:
            return
        self._last_metrics = self._window.means()
        self._run.on_progress(
            Progress(
                update=self.epoch,
                agent_steps=self.global_step,
                agent_steps_per_second=steps / max(now - self._reported_at, 1e-9),
                learning_rate=self._learning_rate,
                metrics=self._last_metrics,
                nonfinite=self._window.nonfinite(),
                configuration=self.configuration,
            )
        )
        self._window = MetricsWindow(by_mission=self._run.missions > 1)
        self._reported_at, self._reported_steps = now, self.global_step

    def _save(self) -> None:
        """Save a checkpoint, once for an update, and only of weights that are finite."""
        weights = {name: tensor.detach().cpu() for name, tensor in self.uncompiled_policy.state_dict().items()}
        if (self.checkpoint is not None and self.checkpoint.update == self.epoch) or nonfinite_tensors(weights):
            return
        directory = Path(self.config["data_dir"]) / RUN_ID
        directory.mkdir(parents=True, exist_ok=True)
        saved = save(weights, directory / f"model_{self.epoch:06d}.pt")
        state = {
            "format": 1,
            "update": self.epoch,
            "agent_steps": self.global_step,
            "weights_sha256": saved.sha256,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.scheduler.state_dict(),
            "random": random_state(torch.device(self.config["device"])),
        }
        self.checkpoint = SavedCheckpoint(
            weights=saved,
            trainer_state=save(state, directory / f"trainer_{self.epoch:06d}.pt"),
            update=self.epoch,
            agent_steps=self.global_step,
            metrics=self._last_metrics,
        )
        self._run.on_checkpoint(self.checkpoint)


class _Logger:
    """What PuffeRL asks of a logger: here it only names the directory of the checkpoints."""

    run_id = RUN_ID


def _configure(config: dict[str, Any], run: Run, agents: int) -> None:
    """Put a run's settings into the config that cogames made, and what follows from them.

    cogames has a horizon of 1 for policies without memory, for which PuffeRL computes no advantage at all, so that they
    learn nothing; it fits the minibatch to that horizon; it takes a policy for recurrent if its class path says "rnn";
    and where agent_steps are not whole updates, the last update comes after the learning rate has reached 0.
    """
    if run.recurrent is not None:
        config["use_rnn"] = run.recurrent
    config.update(bptt_horizon=DEFAULT_BPTT_HORIZON, minibatch_size=DEFAULT_MINIBATCH_SIZE)
    config.update(run.settings)
    horizon = config["bptt_horizon"]
    batch = agents * horizon
    minibatch = min(config["minibatch_size"], batch)
    config["minibatch_size"] = max(horizon, minibatch - minibatch % horizon)
    config["total_timesteps"] = math.ceil(run.agent_steps / batch) * batch


def _notes(settings: Mapping[str, Value], config: Mapping[str, Any], gradient_steps: int) -> tuple[str, ...]:
    notes = []
    for name in ("clip_coef", "vf_clip_coef"):
        if name in settings and gradient_steps == 1:
            notes.append(f"trainer.{name} has no effect: each update is one gradient step")
    wanted = settings.get("minibatch_size", 0)
    if config["minibatch_size"] < int(wanted):
        notes.append(
            f"trainer.minibatch_size is {config['minibatch_size']}, not {wanted}: a batch has no more agent steps"
        )
    return tuple(notes)
