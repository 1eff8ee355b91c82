"""Workloads on Kubernetes: each is one object of a kind that makes pods, and a secret with its token.

Where its pods talk to each other, it has a network policy of its own, too.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Protocol

from daf_common.errors import AlreadyExists, FailedPrecondition, NotFound
from daf_common.kube import reasons
from daf_common.kube.api import CONFIG_MAPS, EVENTS, PODS, SECRETS, Kind, KubernetesApi, Object, label_of, selector
from daf_common.kube.isolation import NETWORK_POLICIES, needs_network, network_of
from daf_common.kube.logs import PodLogs
from daf_common.kube.pods import pod_template, secret_content
from daf_common.kube.settings import BackendSettings
from daf_common.kube.watching import watch_objects
from daf_common.workloads import Observation, Resources, State, Workload

WORKLOAD = "daf/workload"
MANAGED_BY = "app.kubernetes.io/managed-by"
INSTANCE = "app.kubernetes.io/instance"
SERVICE = "daf/service"
ATTEMPT = "daf/attempt"

SLACK_SECONDS = 20.0
"""How much longer than its grace period a pod may take to end before it is given up, with its node."""
SHOWN_PODS = 3
"""The reasons of so many pods that wait are told."""


class Form(Protocol):
    """How the workloads of a service look on Kubernetes. Pure."""

    kind: Kind
    service: str
    """`training` or `evaluation`."""
    container: str
    """The name of the container in which the worker runs."""
    replaces_pods: bool
    """Whether a pod that takes the place of a lost one can go on with its work."""
    when_missing: str
    """What to do where the cluster does not know the kind."""

    environment: Sequence[Object]
    """Variables of its pods beyond those of every pod, as in a pod's spec."""

    def pod_resources(self, workload: Workload) -> Resources:
        """What one pod of a workload needs."""
        ...

    def specification(self, workload: Workload, pod: Object) -> Object:
        """The `spec` of a workload's object, given the template of its pods."""
        ...

    def pods(self, specification: Object) -> int:
        """How many pods an object of that `spec` makes."""
        ...

    def ending(self, found: Object) -> Observation | None:
        """How an object has ended, by its conditions; None if it has not."""
        ...

    def replica(self, pod: Object) -> int:
        """Which replica a pod is of."""
        ...


def object_name(workload: str) -> str:
    """The name of a workload's object and secret, from which a form derives those of its pods: all are DNS labels."""
    return f"daf-{workload}"


class KubernetesBackend:
    """A `daf_common.workloads.Backend` of the workloads of one form."""

    def __init__(
        self,
        settings: BackendSettings,
        form: Form,
        command: Sequence[str] = (),
        api: KubernetesApi | None = None,
    ) -> None:
        """Connects when it is first used.

        Args:
            settings: of the cluster.
            form: how its workloads look.
            command: what pods run in the place of the image's own program; tests have none of that.
            api: the cluster; None for the one that this process runs in or that KUBECONFIG names.
        """
        self._settings, self._form, self._command = settings, form, command
        self._api = api or KubernetesApi(settings.kubernetes_namespace)
        self._logs = PodLogs(self._api, form.container)
        self._belongings = (SECRETS, *([NETWORK_POLICIES] if settings.kubernetes_network_policies else []))
        """Kinds of what a workload's object has beside it, under its name."""
        self._labels = {MANAGED_BY: "daf", INSTANCE: settings.instance, SERVICE: form.service}
        self._watches: list[asyncio.Task[None]] = []
        self._pods: Mapping[str, Sequence[Object]] = {}
        """Of every workload, as they were last seen."""
        self._began: dict[tuple[str, str], str] = {}
        """The uid of each pod that was first seen to run, by workload and name."""
        self._ends_by: dict[str, float] = {}
        """When a pod that was seen to be ending should have ended, by its uid, on this process's monotonic clock."""
        self._disruptions: dict[str, str] = {}
        """What is known to have disrupted a workload: its pod may be gone when that matters."""

    async def check(self) -> None:
        """See `Backend.check`."""
        try:
            await self._api.list(self._form.kind, limit=1)
        except NotFound as error:
            raise self._missing(error) from error

    def watch(self, on_change: Callable[[str], None]) -> None:
        """See `Backend.watch`."""

        def tell(found: Object) -> None:
            on_change(label_of(found, WORKLOAD))

        self._watches = [
            asyncio.create_task(
                watch_objects(self._api, kind, selector(self._labels), tell), name=f"watch-{kind.plural}"
            )
            for kind in (self._form.kind, PODS)
        ]

    async def start(self, workload: Workload) -> None:
        """See `Backend.start`."""
        name, labels = object_name(workload.name), self._labels_of(workload)
        owner = await self._owner()
        metadata: Object = {"name": name, "labels": labels, "ownerReferences": owner}
        content = {key: base64.b64encode(value.encode()).decode() for key, value in secret_content(workload).items()}
        belongings: dict[Kind, Object] = {SECRETS: {"metadata": metadata, "data": content}}
        if NETWORK_POLICIES in self._belongings and needs_network(workload):
            belongings[NETWORK_POLICIES] = network_of(metadata, labels)
        for kind, belonging in belongings.items():
            try:
                with contextlib.suppress(AlreadyExists):
                    await self._api.create(kind, belonging)
            except (NotFound, FailedPrecondition) as error:
                await self._made_before(name, error)
        settings = self._settings.pods.of(workload.profile)
        pod = pod_template(
            workload,
            self._form.pod_resources(workload),
            settings,
            container=self._form.container,
            image=self._settings.runner_image,
            pull_policy=self._settings.runner_pull_policy,
            secret=name,
            labels=labels,
            command=self._command,
            environment=self._form.environment,
        )
        body: Object = {
            "apiVersion": self._form.kind.api,
            "kind": self._form.kind.name,
            "metadata": {**metadata, "labels": {**settings.labels, **labels}},
            "spec": self._form.specification(workload, pod),
        }
        made = await self._create(name, body)
        owned = {"metadata": {"ownerReferences": [_reference(self._form.kind, made)]}}
        for kind in belongings:
            with contextlib.suppress(NotFound):
                await self._api.patch(kind, name, owned)

    async def observe(self) -> Mapping[str, Observation]:
        """See `Backend.observe`."""
        labels = selector(self._labels)
        try:
            # Pods first: a pod that is seen without its object has lost it, not yet to get it.
            pods = (await self._api.list(PODS, labels))[0]
            objects = (await self._api.list(self._form.kind, labels))[0]
        except NotFound as error:
            raise self._missing(error) from error
        by_workload: defaultdict[str, list[Object]] = defaultdict(list)
        for pod in sorted(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], reasons.name_of(pod))):
            by_workload[label_of(pod, WORKLOAD)].append(pod)
        known = {label_of(found, WORKLOAD) for found in objects} | by_workload.keys()
        self._note(by_workload, known)
        self._logs.forget_all_but(known)
        seen = {
            label_of(found, WORKLOAD): self._observation(found, by_workload.get(label_of(found, WORKLOAD), []))
            for found in objects
        }
        for name, left in by_workload.items():
            if name not in seen and any(self._lives(pod) for pod in left):
                seen[name] = _runs(left, "its pods are ending")
        self._pods = by_workload
        return await self._with_events(seen, objects, by_workload)

    async def stop(self, name: str, grace_seconds: float) -> None:
        """See `Backend.stop`."""
        # Pods first: the time that the first who deletes one gives it is what it gets.
        pods, _ = await self._api.list(PODS, selector({**self._labels, WORKLOAD: name}))
        for pod in pods:
            if not reasons.is_ending(pod):
                await self._api.delete(PODS, reasons.name_of(pod), math.ceil(grace_seconds))
        if pods:
            await self._leave_network(object_name(name), pods)
        await self._delete(name, but=NETWORK_POLICIES if pods else None)

    async def logs(self, name: str, replica: int = 0) -> bytes:
        """See `Backend.logs`. Of a replica whose pod was replaced, the logs of all its pods."""
        if name not in self._pods:
            pods, _ = await self._api.list(PODS, selector({**self._labels, WORKLOAD: name}))
            self._pods = {**self._pods, name: sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))}
        wanted = [pod for pod in self._pods[name] if self._form.replica(pod) == replica]
        return await self._logs.read(name, wanted, self._is_given_up)

    async def remove(self, name: str) -> None:
        """See `Backend.remove`."""
        await self._delete(name)
        self._logs.forget(name)
        self._disruptions.pop(name, None)
        self._pods = {workload: pods for workload, pods in self._pods.items() if workload != name}

    async def close(self) -> None:
        """See `Backend.close`."""
        for task in self._watches:
            task.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await self._api.close()

    def _labels_of(self, workload: Workload) -> Mapping[str, str]:
        labels = {**self._labels, WORKLOAD: workload.name}
        attempt = workload.environment.get("DAF_ATTEMPT")
        return {**labels, ATTEMPT: attempt} if attempt else labels

    async def _owner(self) -> Sequence[Object]:
        """Looked up every time: were it made anew, what belongs to the one before would be deleted at once."""
        name = self._settings.kubernetes_owner
        if not name:
            return []
        try:
            found = await self._api.get(CONFIG_MAPS, name)
        except NotFound as error:
            where = self._settings.kubernetes_namespace
            message = f"there is no ConfigMap {name} in namespace {where}, to which workloads belong: install it"
            raise FailedPrecondition(message, reason="NO_OWNER") from error
        return [_reference(CONFIG_MAPS, found)]

    async def _create(self, name: str, body: Object) -> Object:
        """The object of a workload whose belongings are there."""
        try:
            return await self._api.create(self._form.kind, body)
        except AlreadyExists:
            return await self._own(name)
        except (NotFound, FailedPrecondition) as error:
            return await self._made_before(name, error)

    async def _made_before(self, name: str, error: NotFound | FailedPrecondition) -> Object:
        """The object of a workload, of which something was refused: a quota also refuses what was made before."""
        with contextlib.suppress(NotFound):
            return await self._own(name)
        await self._delete_belongings(name)  # without their workload, nobody would come back to them
        if isinstance(error, NotFound):
            raise self._missing(error) from error
        raise error

    async def _leave_network(self, name: str, pods: Iterable[Object]) -> None:
        """Lets a workload's network be deleted with the last of its pods, which need it to save what they have."""
        if NETWORK_POLICIES in self._belongings:
            owned = {"metadata": {"ownerReferences": [_reference(PODS, pod) for pod in pods]}}
            with contextlib.suppress(NotFound):  # one pod alone has none
                await self._api.patch(NETWORK_POLICIES, name, owned)

    async def _delete(self, name: str, but: Kind | None = None) -> None:
        await self._api.delete(self._form.kind, object_name(name))
        await self._delete_belongings(object_name(name), but)

    async def _delete_belongings(self, name: str, but: Kind | None = None) -> None:
        for kind in self._belongings:
            if kind != but:
                await self._api.delete(kind, name)

    async def _own(self, name: str) -> Object:
        found = await self._api.get(self._form.kind, name)
        if any(label_of(found, label) != value for label, value in self._labels.items()):
            what = f"{self._form.kind.name} {name} in namespace {self._settings.kubernetes_namespace}"
            message = f"{what} is not of this installation: give each a namespace of its own"
            raise FailedPrecondition(message, reason="NOT_OURS")
        return found

    def _missing(self, error: NotFound) -> FailedPrecondition:
        if "namespaces" in error.message:
            return FailedPrecondition(f"Kubernetes says: {error.message}: create it", reason="NO_NAMESPACE")
        return FailedPrecondition(self._form.when_missing, reason="NOT_INSTALLED")

    def _note(self, by_workload: Mapping[str, Iterable[Object]], known: Set[str]) -> None:
        """Remembers what may not be there to be seen when it matters."""
        now = time.monotonic()
        ending, began = {}, {}
        for name, pods in by_workload.items():
            for pod in pods:
                uid = pod["metadata"]["uid"]
                if reasons.is_ending(pod):
                    grace = pod["metadata"].get("deletionGracePeriodSeconds") or 0
                    ending[uid] = self._ends_by.get(uid, now + grace + SLACK_SECONDS)
                    self._disruptions[name] = f"{reasons.name_of(pod)} {reasons.why_ending(pod) or 'was deleted'}"
                if reasons.phase_of(pod) != "Pending":
                    key = (name, reasons.name_of(pod))
                    began[key] = self._began.get(key, uid)
        living = {key: uid for key, uid in self._began.items() if key[0] in known}
        self._ends_by, self._began = ending, {**living, **began}
        self._disruptions = {name: why for name, why in self._disruptions.items() if name in known}

    def _is_given_up(self, pod: Object) -> bool:
        """Whether a pod should have ended long ago: its node cannot be asked."""
        return time.monotonic() > self._ends_by.get(pod["metadata"]["uid"], math.inf)

    def _observation(self, found: Object, pods: Sequence[Object]) -> Observation:
        name = label_of(found, WORKLOAD)
        if ended := self._form.ending(found):
            # One that is about to fail still saves, and may say so.
            if ended.state is State.FAILED and any(self._lives(pod) for pod in pods):
                return _runs(pods, self._disruptions.get(name, "its pods are ending"))
            return self._explained(ended, found, pods) if ended.state is State.FAILED else ended
        lost = next((pod for pod in pods if self._is_lost(name, pod)), None)
        # Kubernetes replaces none that may still run on a node that it cannot ask.
        if lost and not (self._form.replaces_pods and any(self._lives(pod) for pod in pods)):
            why = self._disruptions.get(name, f"{reasons.name_of(lost)} was deleted")
            return Observation(State.FAILED, why, replica=self._form.replica(lost))
        ending = self._disruptions.get(name, "") if any(reasons.is_ending(pod) for pod in pods) else ""
        return _runs(pods, ending)

    def _is_lost(self, name: str, pod: Object) -> bool:
        """Whether a pod of a workload is given up, or has taken the place of one that ran."""
        uid = pod["metadata"]["uid"]
        return self._is_given_up(pod) or self._began.get((name, reasons.name_of(pod)), uid) != uid

    def _lives(self, pod: Object) -> bool:
        return reasons.phase_of(pod) in ("Pending", "Running") and not self._is_given_up(pod)

    def _explained(self, ended: Observation, found: Object, pods: Sequence[Object]) -> Observation:
        """How a failed workload ended, by the pod that failed first."""
        failed = [pod for pod in pods if reasons.phase_of(pod) == "Failed"]
        if first := min(failed, key=reasons.failure_time, default=None):
            why, replica = reasons.why_failed(first), self._form.replica(first)
            return Observation(State.FAILED, f"{reasons.name_of(first)}: {why}", replica=replica)
        why = self._disruptions.get(label_of(found, WORKLOAD), "")
        if gone := self._form.pods(found["spec"]) - len(pods):
            why = why or f"{gone} of its pods {'is' if gone == 1 else 'are'} gone, as when somebody deletes one"
        return Observation(State.FAILED, "; ".join(filter(None, [why, ended.message])))

    async def _with_events(
        self, seen: Mapping[str, Observation], objects: Iterable[Object], pods: Mapping[str, Sequence[Object]]
    ) -> Mapping[str, Observation]:
        """The same, with why pods of running workloads wait or are not even there."""
        waiting = [
            found
            for found in objects
            if seen[label_of(found, WORKLOAD)].state is State.RUNNING
            and not seen[label_of(found, WORKLOAD)].waiting
            and self._waits(found, pods.get(label_of(found, WORKLOAD), ()))
        ]
        if not waiting:
            return seen
        warnings = await self._warnings()
        told = {}
        for found in waiting:
            name = label_of(found, WORKLOAD)
            why = self._why_waiting(found, pods.get(name, ()), warnings)
            told[name] = replace(seen[name], waiting=why)
        return {**seen, **told}

    def _waits(self, found: Object, pods: Sequence[Object]) -> bool:
        return len(pods) < self._form.pods(found["spec"]) or any(reasons.phase_of(pod) == "Pending" for pod in pods)

    def _why_waiting(self, found: Object, pods: Sequence[Object], warnings: Mapping[str, Sequence[Object]]) -> str:
        wanted = self._form.pods(found["spec"])
        told = [
            f"{reasons.name_of(pod)}: {why}"
            for pod in pods
            if (why := reasons.why_waiting(pod, warnings.get(pod["metadata"]["uid"], ())))
        ]
        if len(pods) < wanted:
            own = warnings.get(found["metadata"]["uid"], ())
            if own:
                told.append(f"{own[-1].get('reason', '')}: {own[-1].get('message', '')}")
            elif found["spec"].get("suspend") or found["spec"].get("runPolicy", {}).get("suspend"):
                told.append("it is suspended: whoever admits workloads here has not admitted it yet")
            elif not told:
                told.append("its pods are being created")
        return "; ".join([*told[:SHOWN_PODS], *(["..."] if len(told) > SHOWN_PODS else [])])

    async def _warnings(self) -> Mapping[str, Sequence[Object]]:
        """Warnings by the uid of what they are about, the newest last."""
        events, _ = await self._api.list(EVENTS, fields="type=Warning")
        by_uid: defaultdict[str, list[Object]] = defaultdict(list)
        for event in sorted(events, key=_event_time):
            by_uid[event["involvedObject"].get("uid", "")].append(event)
        return by_uid


def _reference(kind: Kind, owner: Object) -> Object:
    metadata = owner["metadata"]
    return {"apiVersion": kind.api, "kind": kind.name, "name": metadata["name"], "uid": metadata["uid"]}


def _runs(pods: Iterable[Object], waiting: str) -> Observation:
    return Observation(State.RUNNING, waiting=waiting, running=sum(map(reasons.has_begun, pods)))


def _event_time(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
