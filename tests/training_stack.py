"""The embedded stack as a process, with real workers, as tests of training use it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daf_common.archives import pack
from daf_common.artifacts import ArtifactStore
from daf_common.channel import connect_blocking
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.statistics.v1.statistics_service_pb2 import ReadMetricsRequest
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_protos.training.v1.training_job_pb2 import (
    Checkpoint,
    TrainingAttempt,
    TrainingJob,
    TrainingJobState,
    TrainingSpec,
)
from daf_protos.training.v1.training_service_pb2 import (
    CreateTrainingJobRequest,
    GetTrainingJobRequest,
    ListAttemptsRequest,
    ListCheckpointsRequest,
    ReadLogsRequest,
)
from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceStub

ROOT = Path(__file__).resolve().parents[1]
CODE = [ROOT / "examples" / "policies" / "grid_policy.py", ROOT / "tests" / "policies" / "faulty_policy.py"]
MISSION = Mission(name="cogsguard_machina_1.miner_tutorial", cogs=4, max_steps=30)
BATCH = 2 * 4 * 64
"""Agent steps of one rank in an update: environments x cogs x horizon."""
ENDLESS = 10**9
NO_RANK = 99


class TrainingStack:
    """The embedded stack as a process, and its jobs."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        environment = {**os.environ, "DAF_HOME": str(home), **settings}
        self._process = subprocess.Popen([sys.executable, "-m", "daf_standalone"], env=environment)
        wait_for((home / "run" / "daf.sock").exists)
        channel = connect_blocking((home / "run" / "address").read_text().strip())
        self.jobs = TrainingServiceStub(channel)
        self._statistics = StatisticsServiceStub(channel)

    def end(self) -> None:
        self._process.terminate()
        assert self._process.wait(120) == 0

    async def train(self, job_id: str, fault: str = "", *, once: bool = False, **changes: Any) -> TrainingJob:
        """Starts a job on two ranks; `fault` is `WHAT@RANK`, or `@RANK` where that only waits for a file `until`."""
        name, _, rank = fault.partition("@")
        arguments = {"fault": Value(text=name), "rank": Value(integer=int(rank or NO_RANK))}
        if once:
            arguments["once"] = Value(text=str(self.home / f"{job_id}.once"))
        if "call" in changes:
            arguments["call"] = Value(integer=changes.pop("call"))
        if "until" in changes:
            arguments["until"] = Value(text=str(changes.pop("until")))
        code = await self.store(*CODE)
        values: dict[str, Any] = {
            "policy_class": PolicyClass(class_path="faulty_policy.FaultyPolicy", code=code, arguments=arguments),
            "missions": [MISSION],
            "agent_steps": 12 * BATCH,
            "environments": 2,
            "workers": 2,
            "seed": 1,
            "checkpoint_agent_steps": 2 * BATCH,
        }
        request = CreateTrainingJobRequest(job_id=job_id, spec=TrainingSpec(**{**values, **changes}))
        return self.jobs.CreateTrainingJob(request).training_job

    async def store(self, *files: Path) -> Artifact:
        artifacts = ArtifactStore((self.home / "artifacts").as_uri(), "deployment")
        return await artifacts.put(pack(files), "application/zip")

    def get(self, job_id: str) -> TrainingJob:
        return self.jobs.GetTrainingJob(GetTrainingJobRequest(name=f"trainingJobs/{job_id}")).training_job

    def ended(self, job_id: str) -> TrainingJob:
        states = [TrainingJobState.Value(f"TRAINING_JOB_STATE_{s}") for s in ("SUCCEEDED", "FAILED", "CANCELLED")]
        wait_for(lambda: self.get(job_id).state in states)
        return self.get(job_id)

    def succeeded(self, job_id: str) -> TrainingJob:
        job = self.ended(job_id)
        assert job.state == TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED, (job.failure, self.log(job_id))
        return job

    def attempts(self, job_id: str) -> list[TrainingAttempt]:
        """Oldest first."""
        request = ListAttemptsRequest(parent=f"trainingJobs/{job_id}")
        return list(reversed(self.jobs.ListAttempts(request).attempts))

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Newest first."""
        return list(self.jobs.ListCheckpoints(ListCheckpointsRequest(parent=f"trainingJobs/{job_id}")).checkpoints)

    def log(self, job_id: str) -> str:
        pieces = self.jobs.ReadLogs(ReadLogsRequest(name=f"trainingJobs/{job_id}"))
        return "".join(piece.text for piece in pieces)

    def updates(self, job_id: str) -> dict[int, float]:
        """The updates of which metrics are known, in their order, and when they were measured."""
        read = ReadMetricsRequest(source=f"trainingJobs/{job_id}", metrics=["losses/policy_loss"])
        (series,) = self._statistics.ReadMetrics(read).series
        assert len(set(series.steps)) == len(series.steps)
        return {step: at.ToNanoseconds() / 1e9 for step, at in zip(series.steps, series.times, strict=True)}

    def file_of(self, artifact: Artifact) -> Path:
        (path,) = (self.home / "artifacts").rglob(artifact.sha256)
        return path


def wait_for(what: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)
