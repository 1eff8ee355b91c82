"""Why pods do not run and how they ended, in words: from what an API server says of them."""

from __future__ import annotations

from typing import Any

import pytest

from daf_common.kube.reasons import failure_time, has_begun, why_failed, why_waiting

NODE = {"nodeName": "n", "containers": [{"name": "worker", "resources": {"limits": {"memory": "2Gi"}}}]}


def pod(status: dict[str, Any], spec: dict[str, Any] = NODE) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": spec, "status": {"phase": "Pending", **status}}


def container(**state: Any) -> dict[str, Any]:
    return {"name": "worker", "image": "i:1", "state": state}


def failed(**status: Any) -> dict[str, Any]:
    return pod({"phase": "Failed", **status})


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes have room"}
EVICTED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "evicting"}


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (pod({"phase": "Running"}), ""),
        (pod({"conditions": [UNSCHEDULABLE]}, {}), "it cannot be scheduled: 0/1 nodes have room"),
        (pod({}, {}), "it waits for the scheduler"),
        (
            pod({"containerStatuses": [container(waiting={"reason": "ErrImagePull", "message": "no such tag"})]}),
            "its image i:1 cannot be pulled: no such tag",
        ),
        (
            pod({"containerStatuses": [container(waiting={"reason": "RunContainerError", "message": "no s"})]}),
            "RunContainerError: no s",
        ),
        (pod({"containerStatuses": [container(waiting={"reason": "ContainerCreating"})]}), "its containers are being"),
    ],
)
def test_what_a_pod_waits_for(seen: dict[str, Any], why: str) -> None:
    assert why_waiting(seen, ()).startswith(why)
    assert bool(why_waiting(seen, ())) == bool(why)


@pytest.mark.parametrize(
    ("seen", "begun"),
    [
        (pod({"phase": "Running"}), True),
        (pod({"initContainerStatuses": [{**container(running={"startedAt": "t"}), "name": "init-pytorch"}]}), True),
        (pod({"initContainerStatuses": [{**container(waiting={}), "name": "init-pytorch"}]}), False),
        (pod({"conditions": [UNSCHEDULABLE]}, {}), False),
        (pod({"containerStatuses": [container(waiting={"reason": "ErrImagePull"})]}), False),
        ({**pod({"phase": "Running"}), "metadata": {"name": "p", "deletionTimestamp": "t"}}, False),
        (failed(), False),
    ],
)
def test_which_pods_run_or_wait_for_the_first_alone(seen: dict[str, Any], begun: bool) -> None:
    assert has_begun(seen) is begun


def test_a_warning_says_more_than_that_containers_are_being_created() -> None:
    events = [{"reason": "Older", "message": "m"}, {"reason": "FailedMount", "message": "no such volume"}]
    assert why_waiting(pod({}), events) == "FailedMount: no such volume"


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (failed(containerStatuses=[container(terminated={"exitCode": 3})]), "exit code 3"),
        (
            failed(containerStatuses=[container(terminated={"exitCode": 137})]),
            "ended by SIGKILL (exit code 137)",
        ),
        (
            failed(containerStatuses=[container(terminated={"exitCode": 137, "reason": "OOMKilled"})]),
            "OOM-killed: it used more than its 2Gi of memory (exit code 137)",
        ),
        (failed(reason="Evicted", message="low on memory"), "Evicted: low on memory"),
        (failed(conditions=[EVICTED]), "evicted, as when a node is drained: evicting"),
        (
            failed(initContainerStatuses=[{**container(terminated={"exitCode": 1}), "name": "init-pytorch"}]),
            "exit code 1 of init-pytorch",
        ),
        (failed(), "it failed"),
    ],
)
def test_how_a_pod_ended(seen: dict[str, Any], why: str) -> None:
    assert why_failed(seen) == why


def test_the_cause_sorts_before_what_it_caused() -> None:
    def ended(at: str) -> dict[str, Any]:
        return failed(containerStatuses=[container(terminated={"exitCode": 75, "finishedAt": at})])

    first, later, unknown = ended("2026-01-01T00:00:01Z"), ended("2026-01-01T00:00:02Z"), failed()
    evicted = failed(conditions=[EVICTED])
    assert sorted([unknown, later, first, evicted], key=failure_time) == [evicted, first, later, unknown]
