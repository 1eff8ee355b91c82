"""Replays of an evaluation's episodes, brought to this machine."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from daf.client import Client
from daf.downloads import download
from daf.evaluation_results import mission_names
from daf.evaluations import list_episodes
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation

SUFFIX = ".json.z"
"""By which CoGames' player knows them."""


def save_replays(client: Client, evaluation: Evaluation, directory: Path) -> Iterator[Path]:
    """Writes the replays that an evaluation's episodes name, as `MISSION-SCENARIO-INDEX.json.z`. Those that are there
    already are left as they are, so that what was interrupted can go on.

    Yields:
        Each file, once it is there.

    Raises:
        NotFound: the store has one no longer.
        DataLoss: one came with another digest.
    """
    missions = [re.sub(r"[^\w.-]+", "_", name) for name in mission_names(evaluation.spec)]
    for episode in list_episodes(client, evaluation.name):
        if episode.HasField("replay"):
            mission = missions[evaluation.scenarios[episode.scenario].mission]
            path = directory / f"{mission}-{episode.scenario}-{episode.index}{SUFFIX}"
            if not _is(path, episode.replay):
                directory.mkdir(parents=True, exist_ok=True)
                part = path.with_name(f"{path.name}.part")
                download(client, episode.replay, part)
                os.replace(part, path)
            yield path


def _is(path: Path, artifact: Artifact) -> bool:
    if not path.is_file() or path.stat().st_size != artifact.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256
