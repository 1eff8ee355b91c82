"""What the services of one stack tell Prometheus, seen over HTTP and by a real Prometheus; computing is a stand-in."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from daf_common.channel import connect, raising, streaming
from daf_common.errors import NotFound
from daf_common.metrics import LABELS, RESOURCES
from daf_protos.evaluation.v1 import evaluation_service_pb2 as evaluation_pb
from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from daf_protos.scheduler.v1 import scheduler_service_pb2 as pb
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_standalone.settings import Home
from daf_training.telemetry import REASONS
from tests.chaos.stack_process import Stack, persist
from tests.ports import free_port
from tests.prometheus import require_prometheus, running_prometheus
from tests.requests import finished_sweep, sweep_request
from tests.standin_stack import standin_host

ROOT = Path(__file__).parents[2]
OWN = ("daf_", "grpc_")
SERVICES = ("scheduler", "training", "evaluation", "statistics", "deployment")

type Series = tuple[str, tuple[tuple[str, str], ...]]


class Served:
    """A stack that serves."""

    def __init__(self, metrics_port: int, channel: grpc.aio.Channel) -> None:
        self.channel, self.sweeps = channel, SchedulerServiceStub(channel)
        self._metrics = f"http://127.0.0.1:{metrics_port}/metrics"

    async def text(self) -> str:
        async with httpx.AsyncClient(timeout=30) as http:
            return (await http.get(self._metrics)).text

    async def series(self) -> Mapping[Series, float]:
        """DAF's own series with their values."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(await self.text())
            for sample in family.samples
            if sample.name.startswith(OWN)
        }

    async def until(self, holds: Callable[[Mapping[Series, float]], bool]) -> Mapping[Series, float]:
        """The series, once something holds of them: what is counted aside, or while they are read, comes later."""
        async with asyncio.timeout(30):
            while not holds(series := await self.series()):
                await asyncio.sleep(0.05)
        return series

    async def run_sweep(self, sweep_id: str, trials: int) -> None:
        created = await raising(self.sweeps.CreateSweep(sweep_request(sweep_id, trials, parallel=4)))
        await finished_sweep(self.sweeps, created.sweep.name)


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """In this process, whose metrics are those of other tests, too."""
    monkeypatch.setattr("daf_common.state_counts.INTERVAL_SECONDS", 0.2)
    monkeypatch.setattr("daf_common.state_counts.LARGEST_SHARE", 1.0)  # it rests no longer where counting was slow
    RESOURCES.clear()  # what another test's stack has counted
    monkeypatch.setenv("DAF_HOME", str(tmp_path / "home"))
    home = Home(tmp_path / "home")
    host = standin_host(home)
    await host.start()
    async with connect(f"unix:{home.socket()}") as channel:
        yield Served(host.metrics.port, channel)
    await host.stop()


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Served]:
    """In a process of its own."""
    port = free_port()
    stack = Stack(tmp_path / "home", DAF_METRICS_PORT=str(port))
    stack.start()
    try:
        await persist(stack, lambda channel: SchedulerServiceStub(channel).ListSweeps(pb.ListSweepsRequest()))
        async with connect(f"unix:{stack.home.socket()}") as channel:
            yield Served(port, channel)
    finally:
        stack.stop()


def total(series: Mapping[Series, float], name: str, **labels: str) -> float:
    """The sum of the series of a name that have these labels."""
    return sum(value for (own, own_labels), value in series.items() if own == name and labels.items() <= {*own_labels})


async def test_what_a_sweep_does_is_counted(served: Served) -> None:
    before = await served.series()
    await served.run_sweep("counted", 5)
    evaluations = EvaluationServiceStub(served.channel)
    listed = await raising(evaluations.ListEvaluations(evaluation_pb.ListEvaluationsRequest()))
    episodes = sum(evaluation.total_episodes for evaluation in listed.evaluations)

    def is_seen(series: Mapping[Series, float]) -> bool:
        """Whether the resources of after the sweep have been counted, and all of them read."""
        states = (("trial", "SUCCEEDED"), ("trial", "PENDING"), ("sweep", "SUCCEEDED"))
        counted = [total(series, "daf_resources", kind=kind, state=state) for kind, state in states]
        return counted == [5, 0, 1] and total(series, "daf_leader", lease="scheduler") == 1

    after = await served.until(is_seen)

    def more(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    assert more("daf_training_queue_wait_seconds_count") == 5
    assert more("daf_training_start_seconds_count") == 5
    assert more("daf_training_time_to_first_step_seconds_count") == 5
    assert more("daf_training_agent_steps_total") == 5 * 1000
    assert more("daf_training_attempts_ended_total", reason="") == 5
    assert more("daf_training_checkpoints_total") == 5
    assert more("daf_training_checkpoint_bytes_total") > 0
    assert more("daf_evaluation_queue_wait_seconds_count") == len(listed.evaluations) == 6
    assert more("daf_evaluation_episodes_total") == more("daf_statistics_episodes_total") == episodes > 0
    assert more("daf_state_changes_total", kind="trial", state="SUCCEEDED") == 5
    assert more("daf_state_changes_total", kind="trainingJob", state="SUCCEEDED") == 5
    assert more("daf_state_changes_total", kind="evaluation", state="RUNNING") == 6
    create = {"grpc_service": "daf.training.v1.TrainingService", "grpc_method": "CreateTrainingJob"}
    for side in ("server", "client"):
        assert more(f"grpc_{side}_handled_total", **create, grpc_code="OK", grpc_type="unary") == 5
        assert more(f"grpc_{side}_handling_seconds_count", **create) == 5
    assert more("daf_store_transaction_seconds_count", store="training", access="write") > 5
    assert more("daf_reconcile_rows_total", reconciler="trials") > 5


async def test_streams_are_counted_while_they_are_open(served: Served) -> None:
    watch = {"grpc_service": "daf.scheduler.v1.SchedulerService", "grpc_method": "WatchSweeps"}
    cancelled = {**watch, "grpc_type": "server_stream", "grpc_code": "CANCELLED"}
    before = await served.series()
    call = served.sweeps.WatchSweeps(pb.WatchSweepsRequest())
    await anext(aiter(streaming(call)))
    during = await served.series()
    call.cancel()

    assert total(during, "daf_watches", kind="sweep") == 1
    assert total(during, "grpc_server_in_flight", **watch) == 1

    def is_over(series: Mapping[Series, float]) -> bool:
        open_now = total(series, "daf_watches", kind="sweep") + total(series, "grpc_server_in_flight", **watch)
        return not open_now and ended(series) > ended(before)

    def ended(series: Mapping[Series, float]) -> float:
        return total(series, "grpc_server_handled_total", **cancelled)

    after = await served.until(is_over)
    assert ended(after) - ended(before) == 1


async def test_series_do_not_grow_with_use_and_hold_nothing_that_callers_choose(process: Served) -> None:
    await process.run_sweep("chosen-name", 3)
    first = await process.series()

    await process.run_sweep("chosen-other", 12)
    for number in range(50):
        with pytest.raises(NotFound):
            await raising(process.sweeps.GetSweep(pb.GetSweepRequest(name=f"sweeps/chosen-{number}")))
        await call_unknown_method(process.channel, f"/daf.training.v1.TrainingService/Chosen{number}")
        await call_unknown_method(process.channel, f"/chosen.v{number}.Chosen/Chosen")
    second = await process.series()

    unknown = {"grpc_service": "unknown", "grpc_method": "unknown", "grpc_code": "UNIMPLEMENTED"}
    assert total(second, "grpc_server_handled_total", **unknown) == 100
    # Methods that were not called before add theirs; whatever is tried again adds the reason.
    grown = {(name, labels) for name, labels in second.keys() - first.keys() if not name.startswith("grpc_")}
    assert all("cause" in dict(labels) for _, labels in grown), grown
    assert len(second) < 1500
    for _, labels in second:
        for label, value in labels:
            assert "chosen" not in value.lower()
            assert is_bounded(label, value), (label, value)


async def call_unknown_method(channel: grpc.aio.Channel, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await channel.unary_unary(method)(b"")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def is_bounded(label: str, value: str) -> bool:
    """Whether a label's value is one of a set that is known beforehand."""
    match label:
        case "le":
            return value == "+Inf" or float(value) >= 0
        case "grpc_service":
            return value == "unknown" or value.partition(".v1.")[0] in {f"daf.{service}" for service in SERVICES}
        case "grpc_method":
            return value == "unknown" or bool(re.fullmatch(r"([A-Z][a-z]+)+", value))
        case "grpc_code":
            return value in grpc.StatusCode.__members__
        case "state":
            return bool(re.fullmatch(r"[A-Z]+", value))
        case "reason":
            return value in {"", "OTHER", *REASONS}
        case "version" | "python":
            return bool(re.fullmatch(r"[\d.]+\w*", value))
        case "store" | "lease" if value in SERVICES:
            return True
        case _:
            return f"`{value}`" in LABELS[label]


async def test_names_and_help_keep_the_rules_of_prometheus(served: Served) -> None:
    require_prometheus()
    await served.run_sweep("linted", 2)
    checked = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=await served.text(), capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_documentation_names_every_metric() -> None:
    command = [sys.executable, ROOT / "scripts" / "generate_metrics.py", "--check"]
    subprocess.run(command, check=True, timeout=240)


def documented_queries() -> list[str]:
    """The PromQL of docs/metrics.md."""
    page = (ROOT / "docs" / "metrics.md").read_text().partition("| question | PromQL |")[2].partition("\n\n")[0]
    return [query.replace("\\|", "|") for query in re.findall(r"^\| .* \| `(.*)` \|$", page, re.MULTILINE)]


async def test_a_prometheus_that_scrapes_a_stack_answers_what_the_documentation_asks(tmp_path: Path) -> None:
    require_prometheus()
    port = free_port()
    stack = Stack(tmp_path / "home", DAF_METRICS_PORT=str(port))
    stack.start()
    job = {"job_name": "daf", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    try:
        with running_prometheus(tmp_path / "prometheus", [job]) as prometheus:
            # Rates need two points: the counters have to be there before they rise.
            await asyncio.to_thread(prometheus.until, "count_over_time(daf_training_agent_steps_total[1m])", 2)
            sweep = sweep_request("scraped", 4, parallel=2)
            name = (await persist(stack, lambda channel: SchedulerServiceStub(channel).CreateSweep(sweep))).sweep.name
            async with connect(f"unix:{stack.home.socket()}") as channel:
                await finished_sweep(SchedulerServiceStub(channel), name)

            until = partial(asyncio.to_thread, prometheus.until)
            assert await until("sum(daf_training_agent_steps_total)", 4000) == 4000
            queries = documented_queries()
            assert len(queries) >= 10
            rate, leaders = "sum(rate(daf_training_agent_steps_total[1m]))", "sum by (lease) (daf_leader)"
            assert {rate, leaders} <= set(queries)
            assert await until(rate, 0.001) > 0
            for query in queries:
                if "grpc_code" in query or "daf_lease_expiries" in query:  # nothing failed, nobody fell silent here
                    prometheus.query(query)
                else:
                    assert await until(f"count({query})", 1) >= 1
            assert await until(f"min({leaders})", 1) == 1
            assert await until(f"max({leaders})", 1) == 1
            # Counted now and then, and the less often the longer it takes.
            succeeded = 'max by (state) (daf_resources{kind="trial",state="SUCCEEDED"})'
            assert await until(succeeded, 4, 180) == 4
    finally:
        stack.stop()
