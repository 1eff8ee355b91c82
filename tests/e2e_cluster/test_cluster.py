"""An installation on a real cluster, from its first version to its end. The tests build on each other, in order."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from daf.client import Client
from tests.daf_command import Daf
from tests.e2e_cluster.calls import SteadyCalls
from tests.e2e_cluster.conftest import Version
from tests.e2e_cluster.installation import SERVICES, Backing, Installation
from tests.e2e_cluster.tools import items, kill, running_pods, wait_until
from tests.sweep_results import results

pytestmark = [pytest.mark.e2e_cluster, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
QUICK = ROOT / "examples" / "quick_sweep.yaml"
EXAMPLE = ROOT / "examples" / "sweep_config.yaml"
DISTURBED = Path(__file__).parent / "disturbed_sweep.yaml"
TWO_WORKERS = (
    '[{"name": "cpu-small", "workers": 2, "environments": 16, "cpus": 1, "memory_gib": 2, "gpus": 0}]'  # as values.yaml
)
SWEEP_SECONDS = 1500.0


def test_the_earlier_version_is_upgraded_without_a_failed_call(
    installation: Installation, earlier: Version, current: Version
) -> None:
    installation.upgrade(earlier.chart, earlier.tag)
    daf = installation.client()
    daf("sweep", "run", str(QUICK), "--name", "before", seconds=SWEEP_SECONDS)
    before = results(daf.json("sweep", "get", "before"))

    with _client(daf) as client, SteadyCalls(client) as calls:
        installation.upgrade(current.chart, current.tag)
        time.sleep(5)  # the last of the old pods end
    print(f"{calls.answered} calls during the upgrade, the slowest took {calls.slowest_seconds:.2f} s")
    assert calls.failures == []
    assert calls.answered > 100

    assert results(daf.json("sweep", "get", "before")) == before
    daf("sweep", "run", str(QUICK), "--name", "after", seconds=SWEEP_SECONDS)
    assert results(daf.json("sweep", "get", "after")) == before


def test_a_sweep_finds_what_it_finds_on_a_laptop(installed: Installation, tmp_path: Path) -> None:
    embedded = Daf(tmp_path / "laptop", DAF_TRAINING_PROFILES=TWO_WORKERS, DAF_EVALUATION_WORKERS="2")
    try:
        began = time.monotonic()
        embedded("sweep", "run", str(EXAMPLE), "--name", "example", seconds=SWEEP_SECONDS)
        print(f"embedded: {time.monotonic() - began:.0f} s")
        expected = results(embedded.json("sweep", "get", "example"))
    finally:
        embedded("down")

    daf = installed.client()
    began = time.monotonic()
    sweep = daf.start("sweep", "run", str(EXAMPLE), "--name", "example")
    wait_until(lambda: len(items(installed.jobs, "pytorchjobs")) > 0, "a PyTorchJob is there")
    (replicas,) = {_replicas(job) for job in items(installed.jobs, "pytorchjobs")}
    wait_until(lambda: len(running_pods(installed.jobs, "evaluation")) > 0, "a pod that evaluates is there", 600)
    output, errors = sweep.communicate(timeout=SWEEP_SECONDS)
    print(f"cluster: {time.monotonic() - began:.0f} s")
    assert sweep.returncode == 0, f"{output}\n{errors}"

    assert dict(replicas) == {"Master": 1, "Worker": 1}
    assert results(daf.json("sweep", "get", "example")) == expected
    wait_until(lambda: not items(installed.jobs, "pods"), "nothing is left of jobs and evaluations")
    assert items(installed.jobs, "pytorchjobs") == []


def test_logs_are_shown_while_pods_live_and_stay_when_they_are_gone(installed: Installation) -> None:
    daf = installed.client()
    job = daf.json("sweep", "get", "example")["trials"][0]["training_job"]
    text = daf("logs", job)
    assert "training" in text
    assert "agent step" in text


def test_kill_9_of_everything_loses_nothing_and_does_nothing_twice(installed: Installation, backing: Backing) -> None:
    daf = installed.client()
    watching = daf.start("sweep", "run", str(DISTURBED), "--name", "disturbed")
    wait_until(lambda: watching.poll() is not None or _steps(daf, 1) > 10_000, "the first trial has saved", 300)
    assert watching.poll() is None, watching.communicate()

    kill(installed.jobs, running_pods(installed.jobs, "training")[-1])
    for service in (*SERVICES, "gateway"):
        for pod in installed.pods(service):
            kill(installed.namespace, pod)
        installed.wait_until_ready()
    wait_until(lambda: len(running_pods(installed.jobs, "evaluation")) > 0, "a pod that evaluates is there", 600)
    wait_until(lambda: _episodes(daf) > 0, "episodes have been played")
    kill(installed.jobs, running_pods(installed.jobs, "evaluation")[0])
    watching.kill()
    watching.communicate()
    daf("sweep", "watch", "disturbed", seconds=SWEEP_SECONDS)

    sweep = daf.json("sweep", "get", "disturbed")
    assert [trial["state"] for trial in sweep["trials"]] == ["TRIAL_STATE_SUCCEEDED"] * 2
    for trial in sweep["trials"]:
        job = daf.json("job", "get", trial["training_job"])["training_job"]
        assert int(job["progress"]["agent_steps"]) >= int(job["progress"]["total_agent_steps"]) >= 60_000
        evaluation = daf.json("results", "show", trial["evaluation"])["evaluation"]
        assert (evaluation["total_episodes"], evaluation["done_episodes"]) == (40, 40)
    attempts = daf.json("job", "attempts", sweep["trials"][0]["training_job"])["attempts"]
    assert len(attempts) > 1
    assert any(attempt["resumed_from"] for attempt in attempts)
    ends = backing.shell(
        "psql postgres --tuples-only --no-align --command"
        " \"select name from scheduler.transitions where to_state in ('SUCCEEDED', 'FAILED') and name like"
        " 'sweeps/disturbed/trials/%'\""
    )
    assert Counter(ends.split()) == {f"sweeps/disturbed/trials/{number}": 1 for number in (1, 2)}


def test_a_backup_is_restored_into_another_installation(
    installed: Installation, backing: Backing, current: Version, image_prefix: str
) -> None:
    """As docs/operations.md says: the database is dumped and loaded; the bucket stays where it is."""
    expected = results(installed.client().json("sweep", "get", "example"))
    backing.shell(
        "pg_dump --format custom --file /data/daf.dump postgres;"
        " createdb restored;"
        " pg_restore --dbname restored --exit-on-error /data/daf.dump"
    )
    other = Installation(
        backing, installed.directory, f"{installed.namespace}-2", image_prefix, database="restored",
        values=("scheduler.replicas=1", "statistics.replicas=1", "deployment.replicas=1", "gateway.replicas=1"),
    )  # fmt: skip
    try:
        other.prepare()
        other.upgrade(current.chart, current.tag)
        daf = other.client()
        assert results(daf.json("sweep", "get", "example")) == expected
        again = daf.json("evaluate", "-p", "sweeps/example/trials/1", "-m", "cogsguard_machina_1.miner_tutorial",
                         "--cogs", "4", "--steps", "30", "--episodes", "1", "--seed", "5")  # fmt: skip
        assert again["evaluation"]["state"] == "EVALUATION_STATE_SUCCEEDED"
        other.uninstall()
    finally:
        other.delete()


def test_a_rollback_serves_what_the_newer_version_has_written(
    installation: Installation, earlier: Version, current: Version
) -> None:
    daf = installation.client()
    expected = results(daf.json("sweep", "get", "example"))
    with _client(daf) as client, SteadyCalls(client) as calls:
        installation.helm("rollback", "daf", "1", "--wait", "--timeout", "5m")
    assert calls.failures == []
    assert results(daf.json("sweep", "get", "example")) == expected
    daf("sweep", "run", str(QUICK), "--name", "rolled-back", seconds=SWEEP_SECONDS)
    installation.upgrade(current.chart, current.tag)


def test_helm_test_plays_episodes(installed: Installation) -> None:
    assert "Succeeded" in installed.helm("test", "daf", "--timeout", "5m")


def _client(daf: Daf) -> Client:
    """A client of the context that a `daf` command uses."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DAF_HOME", str(daf.home))
        from daf.connection import connect

        return connect()


def _replicas(job: dict[str, Any]) -> frozenset[tuple[str, int]]:
    specs = job["spec"]["pytorchReplicaSpecs"]
    return frozenset((role, spec["replicas"]) for role, spec in specs.items())


def _steps(daf: Daf, trial: int) -> int:
    """Agent steps up to the newest checkpoint of a trial's job."""
    sweeps = [sweep["name"] for sweep in daf.json("sweep", "list")["sweeps"]]
    if "sweeps/disturbed" not in sweeps:
        return 0
    trials = [t for t in daf.json("sweep", "get", "disturbed")["trials"] if t["number"] == trial]
    if not trials or not trials[0]["training_job"]:
        return 0
    job = daf.json("job", "get", trials[0]["training_job"])["training_job"]
    return int((job.get("checkpoint") or {}).get("agent_steps", 0))


def _episodes(daf: Daf) -> int:
    """Episodes that have been played of the evaluations that are under way."""
    evaluations = daf.json("results", "list")["evaluations"]
    return sum(e["done_episodes"] for e in evaluations if e["state"] == "EVALUATION_STATE_RUNNING")
