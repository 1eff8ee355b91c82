"""How a training run is, by its name or by the checkpoints that it left."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from daf.checkpoints import LINEAGE
from daf.client import Client
from daf.connection import given_or_connected
from daf.render_training import job_state
from daf.training_jobs import read_training_job, training_job_name
from daf_common.errors import NotFound
from daf_protos.training.v1.training_job_pb2 import TrainingJob

_COGAMES_MODEL = re.compile(r"model_(\d+)\.pt")


def daf_get_training_status(checkpoints_path: str | Path, *, client: Client | None = None) -> dict[str, Any]:
    """How a training run is, and its newest checkpoint.

    Args:
        checkpoints_path: the job's name, as `trainingJobs/NAME` or `job/NAME`, or a directory with checkpoints of DAF
            or of plain CoGames, of which the newest is taken.
        client: where the job is; otherwise where the context in use says.

    Returns:
        `name` of the job, `status`, `agent_steps`, `total_agent_steps`, `update`, `latest_checkpoint`. What a directory
        does not tell is None; its `status` is that of the job, or `unknown` where there is no such job any more.

    Raises:
        FileNotFoundError: there is no such directory, or no checkpoint in it.
        NotFound: there is no such job.
    """
    if isinstance(checkpoints_path, str) and checkpoints_path.startswith(("trainingJobs/", "job/")):
        with given_or_connected(client) as connected:
            job = read_training_job(connected, training_job_name(checkpoints_path))
        return _status(job)
    directory = Path(checkpoints_path).expanduser()
    found = _newest_checkpoint(directory)
    if found is None:
        raise FileNotFoundError(f"there is no checkpoint in {directory}")
    path, lineage = found
    status = {"name": None, "status": "unknown", "agent_steps": None, "total_agent_steps": None, "update": None}
    status.update({key: lineage[key] for key in ("agent_steps", "update") if key in lineage})
    if "training_job" in lineage:
        status["name"] = lineage["training_job"]
        try:
            with given_or_connected(client) as connected:
                status = _status(read_training_job(connected, lineage["training_job"]))
        except NotFound:
            pass
    return {**status, "latest_checkpoint": str(path)}


def _status(job: TrainingJob) -> dict[str, Any]:
    at = job.progress
    return {
        "name": job.name,
        "status": job_state(job),
        "agent_steps": at.agent_steps,
        "total_agent_steps": at.total_agent_steps or job.spec.agent_steps,
        "update": at.update,
        "latest_checkpoint": job.checkpoint.name or None,
    }


def _newest_checkpoint(directory: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint in a directory, and what is known of it: of DAF's if there are any, else of CoGames'."""
    own = sorted(directory.rglob(LINEAGE), key=lambda path: path.stat().st_mtime)
    if own:
        return own[-1].parent, json.loads(own[-1].read_text(encoding="utf-8"))
    models = [(path, match) for path in directory.rglob("*.pt") if (match := _COGAMES_MODEL.fullmatch(path.name))]
    if not models:
        return None
    path, match = max(models, key=lambda model: (model[0].stat().st_mtime, int(model[1][1])))
    return path, {"update": int(match[1])}
