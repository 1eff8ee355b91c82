"""The real services that an evaluation needs, in this process, and real worker processes."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import daf_evaluation.main
import daf_statistics.main
from daf_cogames.missions import Mission
from daf_common.artifacts import ArtifactStore
from daf_common.channel import raising
from daf_common.local_backend import WORKER_MAIN, LocalBackend
from daf_common.processes import LocalProcesses
from daf_common.service import Context, Host
from daf_common.settings import ServiceSettings
from daf_protos.common.v1 import mission_pb2
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.evaluation.v1 import evaluation_service_pb2 as pb
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation, EvaluationSpec
from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from daf_protos.statistics.v1.episode_pb2 import Episode
from daf_protos.statistics.v1.statistics_service_pb2 import ListEpisodesRequest
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub

if TYPE_CHECKING:
    from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceAsyncStub
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub

MISSION = Mission("cogsguard_arena.basic", cogs=4, max_steps=30)
SEED, EPISODES = 7, 6


@dataclass
class Stack:
    """The services, and how to call them."""

    home: Path
    processes: LocalProcesses
    evaluations: EvaluationServiceAsyncStub
    statistics: StatisticsServiceAsyncStub

    async def create(self, id: str, **changes: Any) -> None:
        mission = mission_pb2.Mission(name=MISSION.name, cogs=MISSION.cogs, max_steps=MISSION.max_steps)
        spec = {"policies": [policy("starter")], "missions": [mission], "episodes": EPISODES, "seed": SEED, **changes}
        request = pb.CreateEvaluationRequest(evaluation_id=id, spec=EvaluationSpec(**spec))
        await raising(self.evaluations.CreateEvaluation(request))

    async def ended(self, id: str) -> Evaluation:
        return await self.until(id, lambda evaluation: evaluation.HasField("end_time"))

    async def until(self, id: str, condition: Any) -> Evaluation:
        request = pb.WatchEvaluationsRequest(name=f"evaluations/{id}")
        async with asyncio.timeout(240):
            async for response in self.evaluations.WatchEvaluations(request):
                for evaluation in response.evaluations:
                    if condition(evaluation):
                        return evaluation
        raise AssertionError("the watch ended")

    async def episodes(self, id: str) -> list[Episode]:
        request = ListEpisodesRequest(evaluation=f"evaluations/{id}", page_size=1000)
        return list((await raising(self.statistics.ListEpisodes(request))).episodes)

    async def put_archive(self, files: dict[str, str]) -> Artifact:
        """An archive of these files, by name, in the store."""
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return await self.artifacts.put(content.getvalue(), "application/zip")

    @property
    def artifacts(self) -> ArtifactStore:
        return ArtifactStore((self.home / "artifacts").as_uri(), "evaluation")


@asynccontextmanager
async def running(home: Path) -> AsyncIterator[Stack]:
    """The services, with their state and their workers under `home`."""
    address = f"unix:{home}/daf.sock"
    settings = ServiceSettings(
        home=home, listen=address, evaluation_address=address, statistics_address=address, drain_seconds=0.2
    )
    context = Context(settings)
    processes = LocalProcesses(home / "workers", WORKER_MAIN)
    backend = LocalBackend(processes, "evaluate", home / "cache")
    services = [daf_statistics.main.build(context), daf_evaluation.main.build(context, backend)]
    host = Host(context, services)
    await host.start()
    yield Stack(
        home,
        processes,
        EvaluationServiceStub(context.peer("evaluation")),
        StatisticsServiceStub(context.peer("statistics")),
    )
    for name in processes.names():
        await processes.stop(name, grace_seconds=0)  # one that waits for its service would wait for a day
    await asyncio.sleep(0)  # lets those be killed that do not end by themselves
    await host.stop()


def policy(class_path: str, **fields: Any) -> Policy:
    return Policy(policy_class=PolicyClass(class_path=class_path, **fields))
