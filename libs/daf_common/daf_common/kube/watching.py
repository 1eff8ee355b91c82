"""Hears of changes of objects: lists and watches, and lists anew when a watch cannot go on, and now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from daf_common.errors import DafError
from daf_common.kube.api import Expired, Kind, KubernetesApi, Object

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0


async def watch_objects(api: KubernetesApi, kind: Kind, labels: str, on_change: Callable[[Object], None]) -> None:
    """Calls a function with every object that there is, and whenever one changes or goes; runs until cancelled.

    Whoever listens looks at everything now and then: what happens between a list and its watch, or while the API
    server cannot be reached, is told late or never.
    """
    while True:
        try:
            objects, version = await api.list(kind, labels)
            for found in objects:
                on_change(found)
            async for event in api.watch(kind, labels, version):
                if event["type"] != "BOOKMARK":
                    on_change(event["object"])
        except Expired:
            log.info("the watch of %s begins anew: too much has happened", kind.plural)
        except DafError as error:
            log.info("the watch of %s begins anew: %s", kind.plural, error)
        except Exception:
            log.exception("the watch of %s failed and begins anew", kind.plural)
        # However it ended: what is between here and there may end every watch at once.
        await asyncio.sleep(RETRY_SECONDS)
