"""Replays in the artifact store. Equal ones are one artifact, so it stays for as long as any evaluation keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from daf_common.artifacts import ArtifactStore, check_artifact
from daf_common.errors import FailedPrecondition, InvalidArgument, Unavailable
from daf_common.leases import Leader
from daf_common.periodic import Periodic
from daf_common.store import Store
from daf_evaluation import replay_store
from daf_protos.common.v1.artifact_pb2 import Artifact, ArtifactLocation
from daf_protos.statistics.v1.episode_pb2 import Episode

MAX_BYTES = 256 << 20
CLEAR_SECONDS = 5.0
"""How often is cleared away what a replica that dropped it could not delete."""


class Replays:
    """What evaluations keep, and the clearing away of what none keeps."""

    def __init__(self, database: Store, leader: Leader, artifacts: ArtifactStore) -> None:
        self._store, self._leader, self._artifacts = database, leader, artifacts
        self._clearing = asyncio.Lock()

    async def prepare(self, evaluation: str, artifact: Artifact) -> ArtifactLocation:
        """Where a worker writes a replay of an evaluation.

        Raises:
            InvalidArgument: it is no artifact, or too large.
            Unavailable: one of this content is being deleted and that takes long.
        """
        wanted = self._artifacts.owned(artifact, "artifact")
        if wanted.size_bytes > MAX_BYTES:
            raise InvalidArgument.field("artifact.size_bytes", f"a replay has at most {MAX_BYTES >> 20} MiB")
        try:
            await self._store.run(replay_store.keep, evaluation, wanted.sha256)
        except Unavailable:
            await self.clear()
            await self._store.run(replay_store.keep, evaluation, wanted.sha256)
        return await self._artifacts.writing(wanted)

    async def check(self, evaluation: str, episodes: Sequence[Episode]) -> None:
        """Checks that the replays which episodes name were written.

        Raises:
            InvalidArgument: one was never prepared; names its field.
            FailedPrecondition: one is not there.
        """
        named = {number: episode.replay for number, episode in enumerate(episodes) if episode.HasField("replay")}
        if not named:
            return
        kept = await self._store.read(replay_store.kept, evaluation, {replay.sha256 for replay in named.values()})
        for number, replay in named.items():
            field = f"episodes[{number}].replay"
            check_artifact(replay, field)
            if replay.owner != self._artifacts.owner or replay.sha256 not in kept:
                raise InvalidArgument.field(field, "was not prepared: ask PrepareUpload where to write it")
            if not await self._artifacts.exists(replay):
                message = f"{field} is not in the store: write it and report again"
                raise FailedPrecondition(message, reason="ARTIFACT_MISSING")

    def clearing(self) -> Periodic:
        """Clears away now and then, where this replica leads."""

        async def step() -> None:
            await self._leader.elected()
            await self.clear()

        return Periodic("evaluation-replays", step, CLEAR_SECONDS)

    async def clear(self) -> None:
        """Deletes what no evaluation keeps; what could not be deleted is tried again the next time.

        Only the replica that leads does so: of two, one might delete what was written again since the other forgot it.

        Raises:
            Aborted: another one has come to lead meanwhile.
        """
        async with self._clearing:
            fence = self._leader.fence
            if fence is None or not await self._store.read(replay_store.has_garbage):
                return
            digests = await self._store.run(replay_store.garbage)
            for digest in digests:
                self._leader.check(fence)
                await self._artifacts.delete(Artifact(sha256=digest, owner=self._artifacts.owner))
            await self._store.run(replay_store.forget_garbage, digests)
