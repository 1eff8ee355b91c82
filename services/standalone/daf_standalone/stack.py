"""The composition root: all five services in one process, over real gRPC on one unix socket."""

from __future__ import annotations

from collections.abc import Sequence

import daf_deployment.main
import daf_evaluation.main
import daf_scheduler.main
import daf_statistics.main
import daf_training.main
from daf_common.local_backend import LocalBackend
from daf_common.service import Context, Service
from daf_common.settings import ServiceSettings
from daf_common.workloads import Backend
from daf_standalone.settings import Home


def embedded_settings(home: Home) -> ServiceSettings:
    """Settings of the embedded stack: every service is at the same address. The environment may change the rest."""
    address = f"unix:{home.socket()}"
    return ServiceSettings(
        home=home.directory,
        listen=address,
        scheduler_address=address,
        training_address=address,
        evaluation_address=address,
        statistics_address=address,
        deployment_address=address,
    )


def build(context: Context, home: Home, backend: Backend | None = None) -> Sequence[Service]:
    """The five services, in the order in which they start: those that are called before those that call.

    Args:
        context: shared by all.
        home: where local workers live.
        backend: what runs workloads; local processes if not given.
    """
    backend = backend or LocalBackend(home.workers, cache=home.cache)
    return [
        daf_statistics.main.build(context),
        daf_deployment.main.build(context),
        daf_evaluation.main.build(context, backend),
        daf_training.main.build(context, backend),
        daf_scheduler.main.build(context),
    ]
