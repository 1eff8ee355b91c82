"""Workloads on Kubernetes: each is one object of a kind that makes pods, with what it has beside it."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from daf_common.errors import AlreadyExists, FailedPrecondition, NotFound
from daf_common.kube import reasons
from daf_common.kube.api import CONFIG_MAPS, PODS, KubernetesApi, Object, label_of, reference, selector
from daf_common.kube.belongings import Belongings
from daf_common.kube.form import Form
from daf_common.kube.history import PodHistory
from daf_common.kube.logs import PodLogs
from daf_common.kube.pods import pod_template
from daf_common.kube.settings import BackendSettings
from daf_common.kube.waiting import read_warnings, waits, why_workload_waits
from daf_common.kube.watching import watch_objects
from daf_common.workloads import Observation, State, Workload

WORKLOAD = "daf/workload"
MANAGED_BY = "app.kubernetes.io/managed-by"
INSTANCE = "app.kubernetes.io/instance"
SERVICE = "daf/service"
ATTEMPT = "daf/attempt"


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
        self._belongings = Belongings(self._api, settings.kubernetes_network_policies)
        self._history = PodHistory()
        self._labels = {MANAGED_BY: "daf", INSTANCE: settings.instance, SERVICE: form.service}
        self._watches: list[asyncio.Task[None]] = []
        self._pods: Mapping[str, Sequence[Object]] = {}
        """Of every workload, as they were last seen."""

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
        metadata: Object = {"name": name, "labels": labels, "ownerReferences": await self._owner()}
        try:
            await self._belongings.make(workload, metadata)
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
        await self._belongings.own(workload, name, reference(self._form.kind, made))

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
        self._history.note(by_workload, known)
        self._logs.forget_all_but(known)
        seen = {
            label_of(found, WORKLOAD): self._observation(found, by_workload.get(label_of(found, WORKLOAD), []))
            for found in objects
        }
        for name, left in by_workload.items():
            if name not in seen and any(map(self._history.lives, left)):
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
            await self._belongings.leave_network(object_name(name), pods)
        await self._delete(name, with_network=not pods)

    async def logs(self, name: str, replica: int = 0) -> bytes:
        """See `Backend.logs`. Of a replica whose pod was replaced, the logs of all its pods."""
        if name not in self._pods:
            pods, _ = await self._api.list(PODS, selector({**self._labels, WORKLOAD: name}))
            self._pods = {**self._pods, name: sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))}
        wanted = [pod for pod in self._pods[name] if self._form.replica(pod) == replica]
        return await self._logs.read(name, wanted, self._history.is_given_up)

    async def remove(self, name: str) -> None:
        """See `Backend.remove`."""
        await self._delete(name)
        self._logs.forget(name)
        self._history.forget(name)
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
        return [reference(CONFIG_MAPS, found)]

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
        await self._belongings.delete(name)  # without their workload, nobody would come back to them
        if isinstance(error, NotFound):
            raise self._missing(error) from error
        raise error

    async def _delete(self, name: str, with_network: bool = True) -> None:
        await self._api.delete(self._form.kind, object_name(name))
        await self._belongings.delete(object_name(name), with_network)

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

    def _observation(self, found: Object, pods: Sequence[Object]) -> Observation:
        name = label_of(found, WORKLOAD)
        if ended := self._form.ending(found):
            # One that is about to fail still saves, and may say so.
            if ended.state is State.FAILED and any(map(self._history.lives, pods)):
                return _runs(pods, self._history.disruption(name) or "its pods are ending")
            return self._explained(ended, found, pods) if ended.state is State.FAILED else ended
        lost = next((pod for pod in pods if self._history.is_lost(name, pod)), None)
        # Kubernetes replaces none that may still run on a node that it cannot ask.
        if lost and not (self._form.replaces_pods and any(map(self._history.lives, pods))):
            why = self._history.disruption(name) or f"{reasons.name_of(lost)} was deleted"
            return Observation(State.FAILED, why, replica=self._form.replica(lost))
        ending = self._history.disruption(name) if any(reasons.is_ending(pod) for pod in pods) else ""
        return _runs(pods, ending)

    def _explained(self, ended: Observation, found: Object, pods: Sequence[Object]) -> Observation:
        """How a failed workload ended, by the pod that failed first."""
        failed = [pod for pod in pods if reasons.phase_of(pod) == "Failed"]
        if first := min(failed, key=reasons.failure_time, default=None):
            why, replica = reasons.why_failed(first), self._form.replica(first)
            return Observation(State.FAILED, f"{reasons.name_of(first)}: {why}", replica=replica)
        why = self._history.disruption(label_of(found, WORKLOAD))
        if gone := self._form.pods(found["spec"]) - len(pods):
            why = why or f"{gone} of its pods {'is' if gone == 1 else 'are'} gone, as when somebody deletes one"
        return Observation(State.FAILED, "; ".join(filter(None, [why, ended.message])))

    async def _with_events(
        self, seen: Mapping[str, Observation], objects: Iterable[Object], pods: Mapping[str, Sequence[Object]]
    ) -> Mapping[str, Observation]:
        """The same, with why pods of running workloads wait or are not even there."""
        by_name = {label_of(found, WORKLOAD): found for found in objects}
        waiting = {name: found for name, found in by_name.items() if self._waits(seen[name], found, pods.get(name, ()))}
        if not waiting:
            return seen
        warnings = await read_warnings(self._api)
        told = {}
        for name, found in waiting.items():
            why = why_workload_waits(found, pods.get(name, ()), self._form.pods(found["spec"]), warnings)
            told[name] = replace(seen[name], waiting=why)
        return {**seen, **told}

    def _waits(self, seen: Observation, found: Object, pods: Sequence[Object]) -> bool:
        return seen.state is State.RUNNING and not seen.waiting and waits(pods, self._form.pods(found["spec"]))


def _runs(pods: Iterable[Object], waiting: str) -> Observation:
    return Observation(State.RUNNING, waiting=waiting, running=sum(map(reasons.has_begun, pods)))
