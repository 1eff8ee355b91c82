"""Checkpoints of training jobs: found by a word or a number, and brought here so that plain CoGames loads them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

from daf.client import Client, all_pages
from daf.downloads import download
from daf.references import CHECKPOINT_FORMS
from daf_common.archives import ArchiveError, unpack
from daf_common.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound
from daf_common.values import scalars
from daf_protos.common.v1.policy_pb2 import PolicyClass
from daf_protos.training.v1.catalog_service_pb2 import ListPoliciesRequest
from daf_protos.training.v1.training_job_pb2 import Checkpoint, TrainingJob
from daf_protos.training.v1.training_service_pb2 import ListCheckpointsRequest

DEFAULT_BEST_METRIC = "env/reward_per_agent"
"""The metric of the best checkpoint where a job names none."""

POLICY_SPEC = "policy_spec.json"
WEIGHTS = "weights.pt"
LINEAGE = "checkpoint.json"
WHEELS = "wheels"
"""What is in a checkpoint's directory: what CoGames reads, the weights, where they come from, and the packages that are
to be installed first, if the policy has requirements."""

_PAGE_SIZE = 200


def list_checkpoints(client: Client, job_name: str) -> Iterator[Checkpoint]:
    """The checkpoints of a job, newest first.

    Raises:
        NotFound: there is no such job.
    """

    def read(token: str) -> tuple[list[Checkpoint], str]:
        request = ListCheckpointsRequest(parent=job_name, page_token=token, page_size=_PAGE_SIZE)
        answer = client.training.ListCheckpoints(request)
        return list(answer.checkpoints), answer.next_page_token

    return all_pages(read)


def find_checkpoint(client: Client, job: TrainingJob, which: str) -> Checkpoint:
    """A checkpoint of a job: `best`, `latest`, or the one of an update.

    Raises:
        InvalidArgument: it is none of these.
        NotFound: there is none of this update.
        FailedPrecondition: nothing has been saved yet, or nothing that has the metric of the best.
    """
    identifier = job.name.partition("/")[2]
    if which in ("best", "latest"):
        if not job.HasField("checkpoint"):
            raise FailedPrecondition(f"{job.name} has saved no checkpoint yet: see `daf job get {identifier}`")
        if which == "best" and not job.HasField("best_checkpoint"):
            metric = job.spec.best_metric or DEFAULT_BEST_METRIC
            raise FailedPrecondition(
                f"no checkpoint of {job.name} has {metric}, by which one is the best: "
                f"`daf job checkpoints {identifier}` lists them"
            )
        return job.best_checkpoint if which == "best" else job.checkpoint
    if not (which.isascii() and which.isdecimal()):
        raise InvalidArgument.field("checkpoint", f"{which[:80]!r} is no checkpoint: write {CHECKPOINT_FORMS}")
    saved = list(list_checkpoints(client, job.name))
    found = next((checkpoint for checkpoint in saved if checkpoint.update == int(which)), None)
    if found is None:
        known = ", ".join(str(checkpoint.update) for checkpoint in saved) or "none"
        raise NotFound(f"{job.name} has no checkpoint of update {which} (it has: {known})")
    return found


def save_checkpoint(client: Client, job: TrainingJob, checkpoint: Checkpoint, directory: Path) -> Path:
    """Brings a checkpoint here, as a directory that `cogames ... -p ./DIRECTORY` loads: the weights, the specification
    of the policy and the user's code. It is there as a whole or not at all.

    Returns:
        The directory.

    Raises:
        FailedPrecondition: there is something at this place already, or the user's code has a file of a name that
            CoGames needs.
        NotFound: its files are no longer in the store.
        DataLoss: its files are broken.
    """
    directory = directory.expanduser().absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FailedPrecondition(f"{directory} is there already: name a directory that is not, with --output")
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}-"))
    try:
        content = scratch / "content"
        _write(client, job, checkpoint, content, scratch)
        os.replace(content, directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return directory


def default_directory(job: TrainingJob, checkpoint: Checkpoint) -> str:
    """The name that CoGames gives to the directory of a checkpoint: of several, it then finds the newest."""
    return f"{job.name.partition('/')[2]}:v{checkpoint.update}"


def _write(client: Client, job: TrainingJob, checkpoint: Checkpoint, content: Path, scratch: Path) -> None:
    policy = job.spec.policy_class
    if policy.HasField("code"):
        archive = scratch / "code.zip"
        download(client, policy.code, archive)
        try:
            unpack(archive, content)
        except ArchiveError as error:
            raise DataLoss(f"the code of {job.name} cannot be unpacked: {error}") from error
        for name in (POLICY_SPEC, WEIGHTS, LINEAGE, WHEELS):
            if (content / name).exists():
                raise FailedPrecondition(f"the code of {job.name} has {name}, a name that the checkpoint needs")
    else:
        content.mkdir()
    class_path, sources = _class_of(client, policy)
    for name, text in sources.items():
        (content / name).parent.mkdir(parents=True, exist_ok=True)
        (content / name).write_text(text, encoding="utf-8")
    if policy.HasField("requirements"):
        from daf.wheels import LIMITS  # what resolves requirements is imported where there are some

        archive = scratch / "wheels.zip"
        download(client, policy.requirements, archive)
        try:
            unpack(archive, content / WHEELS, LIMITS)
        except ArchiveError as error:
            raise DataLoss(f"the requirements of {job.name} cannot be unpacked: {error}") from error
    download(client, checkpoint.weights, content / WEIGHTS)
    _write_json(content / LINEAGE, lineage(job, checkpoint))
    # Its arguments stand in the specification: CoGames' own training leaves them out, and then cannot load the weights.
    # Written plainly, for CoGames' own function leaves the file readable by its owner alone.
    spec = {
        "class_path": class_path,
        "data_path": WEIGHTS,
        "init_kwargs": scalars(policy.arguments),
    }
    _write_json(content / POLICY_SPEC, spec)


def lineage(job: TrainingJob, checkpoint: Checkpoint) -> dict[str, Any]:
    """Where weights come from, as plain data."""
    return {
        "checkpoint": checkpoint.name,
        "training_job": job.name,
        "update": checkpoint.update,
        "agent_steps": checkpoint.agent_steps,
        "attempt": checkpoint.attempt,
        "weights_sha256": checkpoint.weights.sha256,
        "parent": checkpoint.parent,
        "parent_sha256": checkpoint.parent_sha256,
        "time": checkpoint.create_time.ToDatetime(UTC).isoformat() if checkpoint.HasField("create_time") else None,
        "metrics": dict(sorted(checkpoint.metrics.items())),
    }


def _class_of(client: Client, policy: PolicyClass) -> tuple[str, Mapping[str, str]]:
    """The dotted path of a class that may be named by a short name or another name, and the source files, by path,
    without which plain CoGames does not find it."""
    if not policy.HasField("code"):
        for known in client.catalog.ListPolicies(ListPoliciesRequest()).policies:
            if policy.class_path in (known.name, known.class_path, *known.aliases):
                return known.class_path, known.sources
    return policy.class_path, {}


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
