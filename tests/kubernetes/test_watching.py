"""Changes are heard of whatever becomes of a watch: it comes too late for the API server, its connection breaks."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import psutil
import pytest

from daf_common.kube.api import CONFIG_MAPS, Expired, Kind, KubernetesApi, Object, selector
from daf_common.kube.reasons import name_of
from daf_common.kube.watching import watch_objects
from daf_training.pytorchjob_backend import PYTORCH_JOBS
from tests.cluster import Cluster

pytestmark = pytest.mark.kubernetes

LABELS = {"daf.test/watched": "yes"}
ANCIENT = "1"
"""A version older than all that an API server keeps."""


class Late(KubernetesApi):
    """Comes to its first watch so late that what has happened since it listed is forgotten."""

    lists = 0

    async def list(self, kind: Kind, labels: str = "", fields: str = "", limit: int = 0) -> tuple[list[Object], str]:
        found, version = await super().list(kind, labels, fields, limit)
        self.lists += 1
        return found, ANCIENT if self.lists == 1 else version


@asynccontextmanager
async def watching(api: KubernetesApi) -> AsyncIterator[asyncio.Queue[str]]:
    """The names of what a watch tells of."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(
        watch_objects(api, CONFIG_MAPS, selector(LABELS), lambda found: heard.put_nowait(name_of(found)))
    )
    try:
        async with asyncio.timeout(30):
            yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await api.close()


def change(cluster: Cluster, namespace: str, name: str) -> None:
    """Makes something that is watched."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": LABELS}}
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(body))


async def cut(api: KubernetesApi) -> None:
    """Kills all connections of this process to the API server."""
    port = urlsplit((await api._connected()).configuration.host).port or 443
    found = [seen for seen in psutil.Process().net_connections("tcp") if seen.raddr and seen.raddr.port == port]
    assert found
    for connection in found:
        with socket.socket(fileno=os.dup(connection.fd)) as other:
            other.shutdown(socket.SHUT_RDWR)


async def test_a_watch_from_before_all_that_is_kept_is_told_apart(jobs_namespace: str) -> None:
    api = KubernetesApi(jobs_namespace)
    for kind in (CONFIG_MAPS, PYTORCH_JOBS):
        with pytest.raises(Expired):
            async for _ in api.watch(kind, "", ANCIENT):
                pass
    await api.close()


async def test_who_comes_too_late_to_a_watch_hears_of_what_happens_all_the_same(
    cluster: Cluster, jobs_namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    change(cluster, jobs_namespace, "first")
    api = Late(jobs_namespace)
    async with watching(api) as heard:
        assert [await heard.get() for _ in range(2)] == ["first", "first"]  # listed, and listed anew
        change(cluster, jobs_namespace, "later")
        assert await heard.get() == "later"
    assert api.lists == 2
    assert "the watch of configmaps begins anew: too much has happened" in caplog.messages


async def test_a_watch_whose_connection_breaks_misses_nothing(
    cluster: Cluster, jobs_namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    api = KubernetesApi(jobs_namespace)
    change(cluster, jobs_namespace, "listed")
    async with watching(api) as heard:
        assert await heard.get() == "listed"
        change(cluster, jobs_namespace, "watched")
        assert await heard.get() == "watched"
        await cut(api)
        change(cluster, jobs_namespace, "meanwhile")
        assert {await heard.get() for _ in range(3)} == {"listed", "watched", "meanwhile"}  # listed anew
        change(cluster, jobs_namespace, "later")
        assert await heard.get() == "later"
    assert "the watch of configmaps begins anew: the Kubernetes API cannot be reached" in caplog.text
