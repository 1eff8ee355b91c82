"""The Kubernetes API as DAF uses it: objects of one namespace, as JSON, and errors as `DafError`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME

from daf_common.errors import Aborted, AlreadyExists, DafError, FailedPrecondition, NotFound, Unavailable

CALL_SECONDS = 20.0
WATCH_SECONDS = 240
"""How long one watch lasts before the API server ends it."""
SILENCE_SECONDS = 300.0
"""After so long without a word, not even of its end, a watch is broken."""

type Object = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of objects that live in namespaces."""

    api: str
    """`v1`, or group and version."""
    name: str
    plural: str

    def path(self, namespace: str, name: str = "") -> str:
        """Where its objects, or one of them, are."""
        root = "/api" if self.api == "v1" else "/apis"
        return "/".join(filter(None, [f"{root}/{self.api}/namespaces/{namespace}/{self.plural}", name]))


PODS = Kind("v1", "Pod", "pods")
SECRETS = Kind("v1", "Secret", "secrets")
EVENTS = Kind("v1", "Event", "events")
CONFIG_MAPS = Kind("v1", "ConfigMap", "configmaps")


class Expired(Exception):
    """A watch cannot go on from where it was: list anew."""


class KubernetesApi:
    """One namespace of the cluster that this process runs in, or of the one that KUBECONFIG names.

    Every method raises Unavailable if the cluster cannot be reached, and FailedPrecondition if it refuses: what is not
    permitted, not valid or beyond a quota.
    """

    def __init__(self, namespace: str) -> None:
        """Connects when it is first used, on the event loop that uses it."""
        self.namespace = namespace
        self._client: ApiClient | None = None
        self._connecting = asyncio.Lock()

    async def list(self, kind: Kind, labels: str = "", fields: str = "", limit: int = 0) -> tuple[list[Object], str]:
        """All objects that selectors leave, and the version from which a watch goes on. As fresh as can be.

        Raises:
            NotFound: the cluster does not know the kind.
        """
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(limit or "")}
        answer = await self._call("GET", kind.path(self.namespace), query)
        return answer["items"], answer["metadata"]["resourceVersion"]

    async def get(self, kind: Kind, name: str) -> Object:
        """One object.

        Raises:
            NotFound: there is none of that name.
        """
        return await self._call("GET", kind.path(self.namespace, name))

    async def create(self, kind: Kind, body: Object) -> Object:
        """Creates an object.

        Raises:
            AlreadyExists: there is one of its name.
            NotFound: the cluster does not know the kind, or there is no such namespace.
        """
        return await self._call("POST", kind.path(self.namespace), body=body)

    async def patch(self, kind: Kind, name: str, body: Object) -> Object:
        """Merges changes into an object.

        Raises:
            NotFound: there is none of that name.
        """
        return await self._call("PATCH", kind.path(self.namespace, name), body=body)

    async def delete(self, kind: Kind, name: str, grace_seconds: int | None = None) -> None:
        """Deletes an object if it is there, and then, in the background, what belongs to it."""
        body: Object = {"propagationPolicy": "Background"}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        try:
            await self._call("DELETE", kind.path(self.namespace, name), body=body)
        except NotFound:
            pass

    async def log(self, pod: str, container: str, limit_bytes: int, last_lines: int = 0) -> bytes | None:
        """What a container of a pod has printed, from the beginning or from so many lines before the end; None if that
        cannot be had, now or any more."""
        query = {"container": container, "limitBytes": str(limit_bytes)}
        if last_lines:
            query["tailLines"] = str(last_lines)
        async with self._request("GET", f"{PODS.path(self.namespace, pod)}/log", query) as response:
            content = await response.read()
        if response.status in (400, 404):  # it has not started; it is gone, or its node cannot be asked
            return None
        if response.status >= 400:
            raise _error(response.status, content)
        return content

    async def watch(self, kind: Kind, labels: str, version: str) -> AsyncIterator[Object]:
        """Objects that were added, changed or deleted since a version, until the API server ends the watch.

        Raises:
            Expired: too much has happened since.
        """
        query = {"labelSelector": labels, "resourceVersion": version, "watch": "true"}
        query |= {"timeoutSeconds": str(WATCH_SECONDS), "allowWatchBookmarks": "true"}
        patience = aiohttp.ClientTimeout(total=None, sock_read=SILENCE_SECONDS)
        async with self._request("GET", kind.path(self.namespace), query, timeout=patience) as response:
            if response.status >= 400:
                raise _expired_or_error(response.status, await response.read())
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _expired_or_error(event["object"].get("code", 500), json.dumps(event["object"]).encode())
                yield event

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call]
            self._client = None

    async def _call(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Object | None = None
    ) -> Object:
        async with self._request(method, path, query, body) as response:
            content = await response.read()
        if response.status >= 400:
            raise _error(response.status, content)
        answer: Object = json.loads(content)
        return answer

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> _Request:
        return _Request(self, method, path, query or {}, body, timeout or aiohttp.ClientTimeout(CALL_SECONDS))

    async def _connected(self) -> ApiClient:
        async with self._connecting:
            if self._client is None:
                self._client = ApiClient(await _configuration())
        return self._client


class _Request:
    """An answer that has begun, as a context: what goes wrong with the connection raises Unavailable."""

    def __init__(
        self,
        api: KubernetesApi,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        timeout: aiohttp.ClientTimeout,
    ) -> None:
        self._api, self._method, self._path, self._body, self._timeout = api, method, path, body, timeout
        self._query = [(name, value) for name, value in query.items() if value]
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            client = await self._api._connected()
            content_type = "application/merge-patch+json" if self._method == "PATCH" else "application/json"
            arguments = await client.param_serialize(
                self._method,
                self._path,
                query_params=self._query,
                header_params={"Content-Type": content_type, "Accept": "application/json, */*"},
                body=self._body,
                auth_settings=["BearerToken"],
            )
            response = await client.call_api(*arguments, _request_timeout=self._timeout)
        except (aiohttp.ClientError, ConfigException, OSError, TimeoutError) as error:
            raise _unreachable(error) from error
        self._response = response.response
        return self._response

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._response is not None:
            self._response.close() if error else self._response.release()
        if isinstance(error, (aiohttp.ClientError, OSError, TimeoutError)):
            raise _unreachable(error) from error


async def _configuration() -> Configuration:
    configuration = Configuration()
    configuration.retries = None  # whoever calls tries again
    if not os.environ.get("KUBECONFIG") and Path(SERVICE_TOKEN_FILENAME).exists():  # noqa: ASYNC240 - no disk behind it
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


def _unreachable(error: BaseException) -> Unavailable:
    return Unavailable(f"the Kubernetes API cannot be reached: {error or type(error).__name__}")


def _expired_or_error(status: int, content: bytes) -> Exception:
    return Expired() if status == 410 else _error(status, content)


def _error(status: int, content: bytes) -> DafError:
    try:
        answer = json.loads(content)
        message, reason = str(answer["message"]), str(answer.get("reason", ""))
    except (ValueError, TypeError, KeyError):
        message, reason = content.decode(errors="replace")[:500].strip() or f"status {status}", ""
    match status:
        case 404:
            return NotFound(message)
        case 409 if reason == "AlreadyExists":
            return AlreadyExists(message)
        case 409:
            return Aborted(message)
        case 400 | 403 | 405 | 422:
            return FailedPrecondition(f"Kubernetes refuses: {message}")
        case _:  # 401, too: credentials are renewed
            return Unavailable(f"the Kubernetes API answers {status}: {message}")


def selector(labels: Mapping[str, str]) -> str:
    """A selector of objects that have all these labels."""
    return ",".join(f"{name}={value}" for name, value in labels.items())


def label_of(found: Object, name: str) -> str:
    """A label of an object; empty if it has none of that name."""
    value: str = found["metadata"].get("labels", {}).get(name, "")
    return value


def reference(kind: Kind, owner: Object) -> Object:
    """What names an object among another's owners."""
    metadata = owner["metadata"]
    return {"apiVersion": kind.api, "kind": kind.name, "name": metadata["name"], "uid": metadata["uid"]}


def conditions(found: Object) -> Sequence[Object]:
    """The conditions in an object's status that are true."""
    return [condition for condition in found.get("status", {}).get("conditions") or () if condition["status"] == "True"]
