"""Single-node mode, as somebody uses it who tries DAF out: one pod with a volume, reached as `helm install` says."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.daf_command import Daf
from tests.e2e_cluster.conftest import Version
from tests.e2e_cluster.runs import MISSION, TRAINING
from tests.e2e_cluster.single_node import CLAIM, SingleNode, volume_for
from tests.e2e_cluster.test_uninstall import KINDS, NOT_OF_THE_RELEASE
from tests.e2e_cluster.tools import items, wait_until

pytestmark = [pytest.mark.e2e_cluster, pytest.mark.timeout(900)]

GAME = ("-m", MISSION, "--cogs", "4")
SMALL = (*TRAINING, "--workers", "1")


@pytest.fixture
def single_node(cluster: Cluster, image_prefix: str, current: Version, tmp_path: Path) -> Iterator[SingleNode]:
    made = SingleNode(tmp_path, f"daf-single-{uuid.uuid4().hex[:6]}", image_prefix)
    with volume_for(made.namespace, tmp_path / "volume"):
        try:
            made.prepare()
            made.start(current.tag)
            yield made
        finally:
            made.delete()


def test_all_is_there_in_the_next_pod_and_on_the_volume_in_the_end(single_node: SingleNode) -> None:
    daf = single_node.client_as_told()
    daf("evaluate", "-p", "random", *GAME, "--steps", "20", "--episodes", "2", "--seed", "1")
    daf("train", *SMALL, "--steps", "512", "--name", "small")
    before = _all(daf)
    assert [job["state"] for job in before["jobs"]] == ["TRAINING_JOB_STATE_SUCCEEDED"]
    assert [evaluation["done_episodes"] for evaluation in before["evaluations"]] == [2]
    assert "agent step" in before["logs"]

    daf(
        "train", *SMALL, "--steps", "12000", "--checkpoint-steps", "2048", "--max-restarts", "1", "--name", "long",
        "--detach",
    )  # fmt: skip
    wait_until(lambda: bool(daf.json("job", "checkpoints", "long")["checkpoints"]), "the long job has saved")
    single_node.lose_pod()

    assert _all(daf) == before
    daf("evaluate", "-p", "job/small/checkpoints/latest", *GAME, "--steps", "20", "--episodes", "1")
    wait_until(lambda: _state(daf, "long") == "TRAINING_JOB_STATE_SUCCEEDED", "the long job has gone on to its end")
    first, second = sorted(daf.json("job", "attempts", "long")["attempts"], key=lambda attempt: int(attempt["number"]))
    assert first["failure"]["reason"] == "WORKER_LOST"
    assert second["resumed_from"]

    assert "Succeeded" in single_node.helm("test", "daf", "--timeout", "5m")
    single_node.uninstall()
    wait_until(lambda: _left(single_node) == {f"PersistentVolumeClaim/{CLAIM}"}, "the volume's claim alone is left", 90)


def _all(daf: Daf) -> dict[str, Any]:
    """What came to be before the pod was lost."""
    jobs = [job for job in daf.json("job", "list")["training_jobs"] if job["name"].endswith("/small")]
    evaluations = daf.json("results", "list")["evaluations"]
    return {
        "jobs": jobs,
        "checkpoints": daf.json("job", "checkpoints", "small"),
        "logs": daf("job", "logs", "small"),
        "evaluations": evaluations,
        "results": [daf.json("results", "show", evaluation["name"]) for evaluation in evaluations],
    }


def _state(daf: Daf, job: str) -> str:
    return str(daf.json("job", "get", job)["training_job"]["state"])


def _left(release: SingleNode) -> set[str]:
    """What is there of a release."""
    return {
        f"{thing['kind']}/{thing['metadata']['name']}"
        for thing in items(release.namespace, f"{KINDS},persistentvolumeclaims")
        if thing["metadata"]["name"] not in NOT_OF_THE_RELEASE
    }
