"""The composition root: all five services in one process, over real gRPC on one address: as a rule, a unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import daf_deployment.main
import daf_evaluation.main
import daf_scheduler.main
import daf_statistics.main
import daf_training.main
from daf_common.local_backend import WORKER_MAIN, LocalBackend
from daf_common.processes import LocalProcesses
from daf_common.service import Context, Service
from daf_common.settings import ServiceSettings
from daf_common.workloads import Backend
from daf_standalone.settings import Home


def embedded_settings(home: Home) -> ServiceSettings:
    """Settings of the embedded stack: every service is at the same address, the home's socket unless `DAF_LISTEN` names
    another. The environment may change the rest."""
    listen = ServiceSettings().listen or f"unix:{home.socket()}"
    address = from_here(listen)
    return ServiceSettings(
        home=home.directory,
        replica="standalone",  # the lock of the home says that it is alone, whatever the machine is called today
        listen=listen,
        scheduler_address=address,
        training_address=address,
        evaluation_address=address,
        statistics_address=address,
        deployment_address=address,
    )


def from_here(listen: str) -> str:
    """Where what listens at an address is reached from its own machine: nothing can be sent to a wildcard."""
    host, _, port = listen.rpartition(":")
    return f"127.0.0.1:{port}" if host in {"0.0.0.0", "[::]"} else listen


@dataclass(frozen=True)
class Backends:
    """What runs the workloads of each service that has some."""

    training: Backend
    evaluation: Backend


def local_backends(home: Home) -> Backends:
    """Processes of this machine, all forked from one zygote, which is warmed up from now on."""
    processes = LocalProcesses(home.workers, WORKER_MAIN)
    warming = asyncio.get_running_loop().create_task(processes.ready(), name="zygote")
    warming.add_done_callback(lambda task: task.cancelled() or task.exception())  # the first start raises it again
    return Backends(
        training=LocalBackend(processes, "train", home.cache),
        evaluation=LocalBackend(processes, "evaluate", home.cache),
    )


def build(context: Context, backends: Backends) -> Sequence[Service]:
    """The five services, in the order in which they start: those that are called before those that call."""
    return [
        daf_statistics.main.build(context),
        daf_deployment.main.build(context),
        daf_evaluation.main.build(context, backends.evaluation),
        daf_training.main.build(context, backends.training),
        daf_scheduler.main.build(context),
    ]
