"""An installation on a real cluster, from its first version to its end. The tests build on each other, in order."""

from __future__ import annotations

import csv
import io
import json
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
from tests.e2e_cluster.runs import MISSION, TRAINING
from tests.e2e_cluster.tools import freeze, items, kill, running_pods, thaw, wait_until
from tests.recorded import assert_recorded_once
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
TAKEOVER_SECONDS = 15.0
LONG_RUN = (*TRAINING, "--steps", "10000000")
"""A run that lasts until it is cancelled."""
EPISODES = (
    "--policy", "random", "--mission", MISSION, "--cogs", "4", "--steps", "300",
    "--episodes", "200",
)  # fmt: skip
"""An evaluation that lasts for longer than a rollback."""


def test_the_earlier_version_is_upgraded_without_a_failed_call(
    installation: Installation, earlier: Version, current: Version
) -> None:
    installation.upgrade(earlier.chart, earlier.tag)
    daf = installation.client()
    daf("sweep", "run", str(QUICK), "--name", "before", seconds=SWEEP_SECONDS)
    before = results(daf.json("sweep", "get", "before"))
    daf("train", *LONG_RUN, "--name", "upgraded", "--detach")
    wait_until(lambda: _updates(daf, "upgraded") > 0, "the job steps")

    with _client(daf) as client, SteadyCalls(client, "trainingJobs/steady-up") as calls:
        installation.upgrade(current.chart, current.tag)
        time.sleep(5)  # the last of the old pods end
        _check(calls, "upgrade")

    # The workers of the version before report to this one, as if nothing had happened.
    reached = _updates(daf, "upgraded")
    wait_until(lambda: _updates(daf, "upgraded") > reached, "the job goes on")
    daf("job", "cancel", "upgraded")
    daf("job", "watch", "upgraded", code=1)
    (attempt,) = daf.json("job", "attempts", "upgraded")["attempts"]
    assert attempt["failure"]["reason"] == "CANCELLED"
    assert _updates(daf, "upgraded") > reached
    assert_recorded_once(_recorded_updates(daf, "upgraded"), _updates(daf, "upgraded"))

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
    daf("train", *LONG_RUN, "--name", "logged", "--detach")
    following = daf.start("logs", "--follow", "trainingJobs/logged")
    assert following.stdout is not None
    live = following.stdout.readline()
    assert running_pods(installed.jobs, "training")
    assert following.poll() is None
    daf("job", "cancel", "logged")
    rest, errors = following.communicate(timeout=120)
    assert following.returncode == 0, errors
    assert "agent steps" in live + rest

    wait_until(lambda: not items(installed.jobs, "pods"), "its pods are gone")
    assert daf("logs", "trainingJobs/logged") == live + rest


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
    backing.kill_database()
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
    ends = backing.query(
        "select name from scheduler.transitions where to_state in ('SUCCEEDED', 'FAILED') and name like"
        " 'sweeps/disturbed/trials/%'"
    )
    assert Counter(ends) == {f"sweeps/disturbed/trials/{number}": 1 for number in (1, 2)}
    for trial in sweep["trials"]:
        job = trial["training_job"]
        assert_recorded_once(_recorded_updates(daf, job), _updates(daf, job))


def test_a_standby_takes_over_from_a_leader_that_stands_still(installed: Installation, backing: Backing) -> None:
    leader = _leader(backing)
    assert leader in installed.pods("scheduler")
    if not freeze(leader):
        pytest.skip("NO PROCESSES: the cluster runs elsewhere, so no pod of it can be made to stand still")
    try:
        wait_until(lambda: _leader(backing) != leader, "another one leads", TAKEOVER_SECONDS)
    finally:
        thaw(leader)
    assert _leader(backing) in set(installed.pods("scheduler")) - {leader}
    installed.client()("sweep", "run", str(QUICK), "--name", "after-the-takeover", seconds=SWEEP_SECONDS)
    assert _leader(backing) != leader


def test_a_backup_is_restored_into_another_installation(
    installed: Installation, backing: Backing, current: Version, image_prefix: str
) -> None:
    """As docs/operations.md says: the bucket and the database, a job under way; and the secrets of the release."""
    first = installed.client()
    expected = results(first.json("sweep", "get", "example"))
    first("train", *LONG_RUN, "--checkpoint-steps", "2048", "--max-restarts", "1", "--name", "saved", "--detach")
    wait_until(lambda: bool(first.json("job", "checkpoints", "saved")["checkpoints"]), "the job has saved")
    backing.copy_bucket("restored")
    backing.shell("pg_dump --format custom --file /data/daf.dump postgres")
    backing.copy_bucket("restored")
    first("job", "cancel", "saved")
    backing.shell("createdb restored; pg_restore --dbname restored --exit-on-error /data/daf.dump")
    other = Installation(
        installed.directory, f"{installed.namespace}-2", image_prefix, backing, database="restored",
        values=(
            "scheduler.replicas=1", "statistics.replicas=1", "deployment.replicas=1", "gateway.replicas=1",
            "artifacts.url=s3://restored",
        ),
    )  # fmt: skip
    try:
        other.prepare()
        other.take_secrets(installed)
        other.upgrade(current.chart, current.tag)
        assert other.token() == installed.token()
        daf = other.client()
        wait_until(lambda: len(daf.json("job", "attempts", "saved")["attempts"]) == 2, "the job has lost its pods")
        wait_until(lambda: _steps_of(daf, "saved") > 0, "it has gone on")
        daf("job", "cancel", "saved")
        second, lost = daf.json("job", "attempts", "saved")["attempts"]
        assert lost["failure"]["reason"] == "WORKER_LOST"
        assert second["resumed_from"]
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
    evaluation = daf.start("evaluate", *EPISODES, "--json")
    wait_until(lambda: len(running_pods(installation.jobs, "evaluation")) > 0, "a pod that evaluates is there")
    with _client(daf) as client, SteadyCalls(client, "trainingJobs/steady-down") as calls:
        installation.helm("rollback", "daf", "1", "--wait", "--timeout", "5m")
        _check(calls, "rollback")
    output, errors = evaluation.communicate(timeout=SWEEP_SECONDS)
    assert evaluation.returncode == 0, errors
    assert json.loads(output)["evaluation"]["done_episodes"] == 200
    assert results(daf.json("sweep", "get", "example")) == expected
    daf("sweep", "run", str(QUICK), "--name", "rolled-back", seconds=SWEEP_SECONDS)
    installation.upgrade(current.chart, current.tag)


def test_helm_test_plays_episodes(installed: Installation) -> None:
    assert "Succeeded" in installed.helm("test", "daf", "--timeout", "5m")


def _check(calls: SteadyCalls, during: str) -> None:
    print(f"{calls.answered} calls during the {during}, the slowest took {calls.slowest_seconds:.2f} s")
    calls.stop()
    assert calls.failures == []
    assert len(calls.written) > 20
    assert calls.read() == calls.written


def _leader(backing: Backing) -> str:
    """The pod of the scheduler that leads."""
    (holder,) = backing.query("select holder from scheduler.leases where name = 'scheduler'")
    return holder.partition("#")[0]


def _updates(daf: Daf, job: str) -> int:
    """How far a job says it is."""
    return int(daf.json("job", "get", job)["training_job"].get("progress", {}).get("update", 0))


def _recorded_updates(daf: Daf, job: str) -> list[int]:
    """The updates of which numbers are known, in their order."""
    return [int(row["update"]) for row in csv.DictReader(io.StringIO(daf("job", "metrics", job, "--csv")))]


def _client(daf: Daf) -> Client:
    """A client of the context that a `daf` command uses."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DAF_HOME", str(daf.home))
        from daf.connection import connect

        return connect()


def _replicas(job: dict[str, Any]) -> frozenset[tuple[str, int]]:
    specs = job["spec"]["pytorchReplicaSpecs"]
    return frozenset((role, spec["replicas"]) for role, spec in specs.items())


def _steps_of(daf: Daf, job: str) -> int:
    """Agent steps that a job has done in the attempt that runs; 0 while none does."""
    found = daf.json("job", "get", job)["training_job"]
    return int(found["progress"]["agent_steps"]) if found["state"] == "TRAINING_JOB_STATE_RUNNING" else 0


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
