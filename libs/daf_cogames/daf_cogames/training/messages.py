"""What a trainer says, as the messages of its reports."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from daf_cogames.training.progress import EffectiveConfiguration, Progress
from daf_cogames.training.reporter import reward_of
from daf_common.values import Scalar
from daf_protos.training.v1.training_job_pb2 import TrainingProgress, TrainingWorker
from daf_protos.training.v1.worker_service_pb2 import MetricSample

_LOSSES = "losses/"


def effective_values(configuration: EffectiveConfiguration) -> dict[str, Scalar]:
    """What the live trainer was found to train with: PuffeRL's parameters by their short names, the optimizer's own."""
    interval = configuration.checkpoint_agent_steps
    return {
        **{name.removeprefix("trainer."): value for name, value in configuration.trainer.items()},
        **{f"optimizer.{name}": value for name, value in configuration.optimizer.items()},
        "recurrent": configuration.recurrent,
        "agents": configuration.agents,
        "batch_size": configuration.batch_size,
        "gradient_steps_per_update": configuration.gradient_steps_per_update,
        "policy_parameters": configuration.policy_parameters,
        "workers": configuration.workers,
        **({} if interval is None else {"checkpoint_agent_steps": interval}),
    }


def progress_message(progress: Progress) -> TrainingProgress:
    """Where training is."""
    return TrainingProgress(
        agent_steps=progress.agent_steps,
        total_agent_steps=progress.configuration.agent_steps,
        update=progress.update,
        steps_per_second=progress.agent_steps_per_second,
        learning_rate=progress.learning_rate,
        reward=reward_of(progress.metrics),
        losses={
            name.removeprefix(_LOSSES): value for name, value in progress.metrics.items() if name.startswith(_LOSSES)
        },
        workers=[
            TrainingWorker(
                rank=worker.rank,
                steps_per_second=worker.agent_steps_per_second,
                cpu_cores=worker.cpu_cores,
                memory_bytes=worker.memory_bytes,
                gpu_utilization=worker.gpu_utilization,
                gpu_memory_bytes=worker.gpu_memory_bytes,
            )
            for worker in progress.workers
        ],
    )


def sample(progress: Progress) -> MetricSample:
    """A point of every metric series."""
    time = Timestamp()
    time.GetCurrentTime()
    values = {
        **progress.metrics,
        "learning_rate": progress.learning_rate,
        "agent_steps_per_second": progress.agent_steps_per_second,
    }
    return MetricSample(
        update=progress.update,
        agent_steps=progress.agent_steps,
        time=time,
        values=values,
        non_finite=progress.nonfinite,
    )
