"""PuffeRL, the optimiser loop inside `cogames.train.train()`, made to train on several ranks, to report, to stop, to
save and to go on as we need it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from daf_cogames.parameter_table import TRAINER_PARAMETERS, Value
from daf_cogames.policies import PolicyError
from daf_cogames.seeding import seed_generators
from daf_cogames.training.checkpoints import (
    SavedCheckpoint,
    nonfinite_tensors,
    random_state,
    restore_random_state,
    save,
)
from daf_cogames.training.cogames_trainer import pufferl
from daf_cogames.training.metrics import MetricsWindow
from daf_cogames.training.progress import EffectiveConfiguration, Progress, StopReason
from daf_cogames.training.pufferl_config import configure, notes_on
from daf_cogames.training.resume import ResumePoint, restore_optimizer
from daf_cogames.training.usage import UsageMeter
from daf_cogames.training.world import World

logger = logging.getLogger(__name__)

RUN_ID = "checkpoints"


class _LeaveLoop(KeyboardInterrupt):
    """The way out of the loop of `cogames.train.train()`: it catches KeyboardInterrupt and then closes the trainer."""


@dataclass
class Run:
    """What a trainer needs to know that cogames does not pass on. The trainer puts itself into `trainer`.

    settings: trainer parameters by their name in PuffeRL's config; fixed: what a resumed run must not change;
    agent_steps and checkpoint_agent_steps: of all ranks; seed: of this rank's generators once the weights are made;
    recurrent: what the policy says of itself, None where it says nothing; on_start: called right before the first
    environment step; on_progress and on_checkpoint: on rank 0; on_activity: after each step of the environments and
    each gradient step; stop: asked after every update.
    """

    world: World
    device: torch.device
    settings: Mapping[str, Value]
    fixed: Mapping[str, Value]
    agent_steps: int
    checkpoint_agent_steps: int | None
    missions: int
    progress_interval_s: float
    seed: int
    resume: ResumePoint | None
    on_start: Callable[[EffectiveConfiguration], None]
    on_progress: Callable[[Progress], None]
    on_checkpoint: Callable[[SavedCheckpoint], None]
    on_activity: Callable[[], None]
    stop: Callable[[], StopReason | None]
    recurrent: bool | None = None
    trainer: Trainer | None = None


class Trainer(pufferl.PuffeRL):
    """PuffeRL, with the public methods below in place of its own. Its `global_step` counts those of all ranks.

    All ranks take part in everything that concerns more than one of them at the same update, which follows from
    numbers that all of them have: a rank that decided by its own clock would wait for the others for ever.

    stopped_for: the strongest of what `run.stop` answered on any rank; diverged: whether the weights stopped being
    finite; checkpoint: the last one saved, on rank 0.
    """

    def __init__(self, config: dict[str, Any], vecenv: Any, policy: torch.nn.Module, *, run: Run) -> None:
        run.trainer = self
        self._run, self._world = run, run.world
        self.stopped_for: StopReason | None = None
        self.diverged = False
        self.checkpoint: SavedCheckpoint | None = None
        configure(config, run, agents=vecenv.num_agents)
        super().__init__(config, vecenv, policy, _Logger())
        # A thread that feeds only the dashboard, and that keeps the process alive for ever after an exception.
        self.utilization.stop()

        self._update_steps = config["batch_size"] * self._world.size
        self._go_on_from(run.resume)
        if self._world.size > 1:
            # Rank 0's weights go to all. It shares its parameters with the optimizer, which was made before it.
            self.policy = _Synchronized(policy, device_ids=[run.device] if run.device.type == "cuda" else None)
        self._set_generators()
        self._report_activity()

        self.configuration = self._read_back()
        self._window = MetricsWindow(by_mission=run.missions > 1)
        self._last_metrics: Mapping[str, float] = {}
        self._learning_rate = self.configuration.optimizer["learning_rate"]
        self._meter = UsageMeter(self._world.rank, run.device)
        self._own_steps = 0
        self._done_steps = self._reported_steps = self.global_step
        self._saved_update = self._first_update = self.epoch
        self._reported_at = time.monotonic()
        run.on_start(self.configuration)

    def train(self) -> None:
        own_steps = self.global_step - self._done_steps
        self._learning_rate = self.optimizer.param_groups[0]["lr"]
        if self.epoch > 0:  # a share of all agent steps, however many ranks there were for the updates so far
            self.total_epochs = self.epoch * self.config["total_timesteps"] / self._done_steps
        self.last_log_time = 0.0  # PuffeRL publishes losses and statistics by time, and drops those of other updates
        self._learn()
        for name, loss in self.losses.items():
            self._window.add(f"losses/{name}", loss)

        report_is_due = self._agree(own_steps)
        if self.diverged:
            raise _LeaveLoop
        if report_is_due:
            self._report()
        if self.global_step >= self.config["total_timesteps"]:
            return
        if self.epoch % self.config["checkpoint_interval"] == 0:
            self._save()
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
        self._world.wait()  # no rank has ended well before the last checkpoint is there

    def _go_on_from(self, point: ResumePoint | None) -> None:
        """Take over the optimizer and the counters, and set the schedules to the agent steps of all ranks."""
        if point is not None:
            restore_optimizer(self.optimizer, point.optimizer)
            self.epoch, self.global_step = point.update, point.agent_steps
        total = self.config["total_timesteps"]
        # In updates of this run's size, of which a run with another number of ranks may have done a part.
        self.scheduler.T_max = total / self._update_steps
        self.scheduler.last_epoch = self.global_step / self._update_steps
        rescheduled = point is not None and (total, self._update_steps) != (
            point.total_agent_steps,
            point.agent_steps_per_update,
        )
        if rescheduled and self.config["anneal_lr"]:
            # The scheduler derives each learning rate from the one before, and so would never leave 0 again.
            share = (1 + math.cos(math.pi * self.global_step / total)) / 2
            for group in self.optimizer.param_groups:
                group["lr"] = self.config["learning_rate"] * share

    def _set_generators(self) -> None:
        """Let ranks draw different actions and minibatches. Rank 0 of a fresh run draws what plain cogames draws."""
        point = self._run.resume
        if point is not None and len(point.random) == self._world.size:
            restore_random_state(point.random[self._world.rank], self._run.device)
        elif point is not None or self._world.rank > 0:
            seed_generators(self._run.seed)

    def _report_activity(self) -> None:
        receive, on_activity = self.vecenv.recv, self._run.on_activity

        def receive_and_report() -> Any:
            received = receive()
            on_activity()
            return received

        self.vecenv.recv = receive_and_report
        self.optimizer.register_step_post_hook(lambda *_: on_activity())

    def _learn(self) -> None:
        try:
            super().train()
        except RuntimeError as error:
            if "training graph has changed" not in str(error):
                raise
            message = "several workers can only train what uses the same parameters in every gradient step"
            raise PolicyError("class_path", message) from error

    def _agree(self, own_steps: int) -> bool:
        """Let all ranks know what each of them has seen in this update; whether rank 0 wants to report.

        The one exchange of an update besides the gradients.
        """
        broken = nonfinite_tensors(self.uncompiled_policy.state_dict())
        stop = self._run.stop()
        is_first = self.epoch == self._first_update + 1
        is_due = is_first or time.monotonic() - self._reported_at >= self._run.progress_interval_s
        steps, diverged, report_is_due, *stops = self._world.sum(
            [
                own_steps,
                bool(broken),
                is_due and self._world.rank == 0,
                *(stop is reason for reason in StopReason),
            ]
        )
        self._own_steps += own_steps
        self._done_steps += int(steps)
        self.global_step = self._done_steps
        self.diverged = diverged > 0
        if self.diverged:
            names = ", ".join(broken) or "weights of another rank"
            logger.error("diverged at agent step %d: not finite: %s", self.global_step, names)
        self.stopped_for = next((reason for reason, asked in zip(StopReason, stops, strict=True) if asked), None)
        return report_is_due > 0

    def _read_back(self) -> EffectiveConfiguration:
        group = self.optimizer.param_groups[0]
        beta1, beta2 = group["betas"]
        interval = self.config["checkpoint_interval"]
        return EffectiveConfiguration(
            trainer={parameter.name: self.config[parameter.key] for parameter in TRAINER_PARAMETERS},
            optimizer={"learning_rate": group["lr"], "beta1": beta1, "beta2": beta2, "eps": group["eps"]},
            recurrent=self.config["use_rnn"],
            workers=self._world.size,
            agents=self.total_agents * self._world.size,
            batch_size=self._update_steps,
            gradient_steps_per_update=self.total_minibatches,
            agent_steps=self.config["total_timesteps"],
            checkpoint_agent_steps=None if interval == math.inf else interval * self._update_steps,
            policy_parameters=self.model_size,
            notes=notes_on(self._run, self.config, self.total_minibatches),
        )

    def _report(self) -> None:
        """On all ranks, of all ranks."""
        steps, now = self.global_step - self._reported_steps, time.monotonic()
        if steps == 0:
            return
        parts = self._world.gather((self._window, self._meter.read(self._own_steps)))
        if parts is not None:
            window = MetricsWindow(by_mission=self._run.missions > 1)
            for part, _ in parts:
                window.merge(part)
            self._last_metrics = window.means()
            self._run.on_progress(
                Progress(
                    update=self.epoch,
                    agent_steps=self.global_step,
                    agent_steps_per_second=steps / max(now - self._reported_at, 1e-9),
                    learning_rate=self._learning_rate,
                    metrics=self._last_metrics,
                    nonfinite=window.nonfinite(),
                    workers=tuple(usage for _, usage in parts),
                    configuration=self.configuration,
                )
            )
        self._window = MetricsWindow(by_mission=self._run.missions > 1)
        self._reported_at, self._reported_steps, self._own_steps = now, self.global_step, 0

    def _save(self) -> None:
        """Save a checkpoint, once for an update, and only of weights that are finite. On all ranks; rank 0 writes."""
        if self.diverged or self._saved_update == self.epoch:
            return
        self._saved_update = self.epoch
        generators = self._world.gather(random_state(self._run.device))
        if generators is None:
            return
        point = ResumePoint(
            weights={name: tensor.detach().cpu() for name, tensor in self.uncompiled_policy.state_dict().items()},
            optimizer=self.optimizer.state_dict(),
            update=self.epoch,
            agent_steps=self.global_step,
            total_agent_steps=self.config["total_timesteps"],
            agent_steps_per_update=self._update_steps,
            settings=self._run.fixed,
            random=generators,
        )
        directory = Path(self.config["data_dir"]) / RUN_ID
        directory.mkdir(parents=True, exist_ok=True)
        weights = save(point.weights, directory / f"model_{self.epoch:06d}.pt")
        self.checkpoint = SavedCheckpoint(
            weights=weights,
            trainer_state=save(point.trainer_state(weights.sha256), directory / f"trainer_{self.epoch:06d}.pt"),
            update=self.epoch,
            agent_steps=self.global_step,
            metrics=self._last_metrics,
        )
        self._run.on_checkpoint(self.checkpoint)


class _Synchronized(DistributedDataParallel):
    """A network whose gradients are the means over all ranks.

    Buffers stay each rank's own. `static_graph` lets a network have parameters that it does not use.
    """

    def __init__(self, network: torch.nn.Module, device_ids: list[torch.device] | None) -> None:
        super().__init__(
            network, device_ids=device_ids, broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=True
        )

    def forward_eval(self, *args: Any, **kwargs: Any) -> Any:
        """What PuffeRL acts with: nothing is learned from it, and so nothing is exchanged."""
        return self.module.forward_eval(*args, **kwargs)


class _Logger:
    """What PuffeRL asks of a logger: here it only names the directory of the checkpoints."""

    run_id = RUN_ID
