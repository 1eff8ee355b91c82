"""Which checkpoints of a job are kept, which is the best, and what a job shows that goes on from one. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.training.v1.training_job_pb2 import Checkpoint, TrainingProgress, TrainingSpec

DEFAULT_KEPT = 5
DEFAULT_METRIC = "env/reward_per_agent"
"""The metric by which a checkpoint is the best if a spec names none; `Checkpoint.reward` is this one."""


@dataclass(frozen=True)
class CheckpointRow:
    """A checkpoint as it is stored."""

    update: int
    attempt: int
    score: float | None
    """The value of the metric by which one is the best; None where it was not measured."""
    artifacts: tuple[str, ...]
    """Digests of the artifacts that it names."""
    message: bytes = field(repr=False)
    """The serialized `Checkpoint`."""


@dataclass(frozen=True)
class Parent:
    """What training went on from; empty for fresh weights."""

    checkpoint: str
    """Resource name of the checkpoint, if it has one."""
    sha256: str
    """Of its weights."""


@dataclass(frozen=True)
class Retention:
    """Which checkpoints of a job stay."""

    kept: int
    """How many of the newest."""
    metric: str = DEFAULT_METRIC
    """The best by this metric stays, too."""
    minimize: bool = False

    @classmethod
    def of(cls, kept: int, spec: TrainingSpec) -> Retention:
        """So many, and the best by the metric of a spec."""
        return cls(kept, spec.best_metric or DEFAULT_METRIC, spec.minimize_best_metric)

    def score(self, checkpoint: Checkpoint) -> float | None:
        """The value of the metric, if it was measured and is finite."""
        value = checkpoint.metrics.get(self.metric)
        if value is None and self.metric == DEFAULT_METRIC and checkpoint.HasField("reward"):
            value = checkpoint.reward
        return value if value is not None and math.isfinite(value) else None

    def best(self, scores: Mapping[int, float | None]) -> int | None:
        """The update of the best checkpoint, of equally good ones the last; None where no score is known."""
        sign = -1.0 if self.minimize else 1.0
        known = [(sign * score, update) for update, score in scores.items() if score is not None]
        return max(known)[1] if known else None

    def superfluous(self, scores: Mapping[int, float | None]) -> list[int]:
        """The updates of checkpoints that are to go: all but the newest ones and the best, from scores by update."""
        newest = set(sorted(scores)[-self.kept :])
        return sorted(scores.keys() - newest - {self.best(scores)})


def checkpoint_row(checkpoint: Checkpoint, attempt: int, parent: Parent, retention: Retention) -> CheckpointRow:
    """The row of a checkpoint that an attempt reports; its message says where it comes from."""
    message = Checkpoint()
    message.CopyFrom(checkpoint)
    message.attempt = attempt
    message.parent, message.parent_sha256 = parent.checkpoint, parent.sha256
    return CheckpointRow(
        update=message.update,
        attempt=attempt,
        score=retention.score(message),
        artifacts=tuple(artifact.sha256 for artifact in checkpoint_artifacts(message)),
        message=message.SerializeToString(),
    )


def kept_checkpoints(spec: TrainingSpec) -> int:
    """How many of its newest checkpoints a job keeps."""
    return spec.max_checkpoints if spec.HasField("max_checkpoints") else DEFAULT_KEPT


def checkpoint_artifacts(checkpoint: Checkpoint) -> Sequence[Artifact]:
    """The artifacts that a checkpoint names."""
    return [checkpoint.weights, *([checkpoint.trainer_state] if checkpoint.HasField("trainer_state") else [])]


def progress_at(checkpoint: bytes, progress: bytes = b"") -> bytes:
    """How far a job is that goes on from its newest checkpoint: serialized messages, empty ones for none.

    The length of the run stays what it was in the progress before.
    """
    saved, before = Checkpoint.FromString(checkpoint), TrainingProgress.FromString(progress)
    return TrainingProgress(
        agent_steps=saved.agent_steps,
        total_agent_steps=before.total_agent_steps,
        update=saved.update,
        reward=saved.reward if saved.HasField("reward") else None,
    ).SerializeToString()


def done_agent_steps(progress: bytes) -> int:
    """Agent steps in a serialized progress."""
    return TrainingProgress.FromString(progress).agent_steps
