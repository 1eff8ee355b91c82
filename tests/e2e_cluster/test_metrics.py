"""A real Prometheus scrapes an installation by the selectors of the chart's monitors, and answers what people ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e_cluster.installation import SERVICES, Installation
from tests.e2e_cluster.monitors import api_proxy, rendered_monitor, scrape_config
from tests.e2e_cluster.runs import MISSION, TRAINING
from tests.prometheus import Prometheus, require_prometheus, running_prometheus

pytestmark = [pytest.mark.e2e_cluster, pytest.mark.timeout(900)]

EPISODES = 4
AGENT_STEPS = 512


def test_prometheus_finds_every_service_and_sees_an_evaluation(installed: Installation, tmp_path: Path) -> None:
    require_prometheus()
    daf = installed.client("metrics")
    with api_proxy() as proxy:
        jobs = [scrape_config(rendered_monitor(installed, kind), proxy) for kind in ("ServiceMonitor", "PodMonitor")]
        with running_prometheus(tmp_path, jobs, interval="3s") as prometheus:
            pods = sorted((service, pod) for service in SERVICES for pod in installed.pods(service))
            for kind in ("ServiceMonitor", "PodMonitor"):
                prometheus.until(f'sum(up{{job="{kind}"}})', len(pods))
                found = prometheus.query(f'up{{job="{kind}"}}')
                assert sorted((labels["component"], labels["pod"]) for labels, _ in found) == pods

            episodes = f"sum({of('daf_evaluation_episodes_total')})"
            succeeded = f"max({of('daf_resources', kind='evaluation', state='SUCCEEDED')})"
            stepped = f"sum({of('daf_training_agent_steps_total')})"
            started = f"sum({of('daf_training_start_seconds_count')})"
            before = {query: prometheus.until(query, 0) for query in (episodes, succeeded, stepped, started)}
            daf("evaluate", "-p", "random", "-m", MISSION, "--cogs", "4", "--steps", "20", "--episodes", str(EPISODES))
            assert prometheus.until(episodes, before[episodes] + EPISODES) == before[episodes] + EPISODES
            assert prometheus.until(succeeded, before[succeeded] + 1) == before[succeeded] + 1
            daf("train", *TRAINING, "--steps", str(AGENT_STEPS))
            assert prometheus.until(stepped, before[stepped] + AGENT_STEPS) >= before[stepped] + AGENT_STEPS
            assert prometheus.until(started, before[started] + 1) == before[started] + 1
            _check_numbers(prometheus)


def of(metric: str, **labels: str) -> str:
    """A selector of a metric of every pod once."""
    return (
        metric
        + "{"
        + ",".join(f'{name}="{value}"' for name, value in {"job": "ServiceMonitor", **labels}.items())
        + "}"
    )


def _check_numbers(prometheus: Prometheus) -> None:
    # Replicas agree on what is in their database, and one of them leads.
    shown = prometheus.query(of("daf_resources", kind="sweep", state="RUNNING"))
    assert len(shown) == len(prometheus.query(of("up", component="scheduler"))) > 1
    assert len({value for _, value in shown}) == 1
    assert prometheus.value(f"sum({of('daf_leader', lease='scheduler')})") == 1
    assert prometheus.value(f"sum({of('daf_evaluation_queue_wait_seconds_count')}) >= 1")
    # What one service made, another served.
    recorded = {"grpc_method": "RecordEpisodes", "grpc_code": "OK"}
    made = prometheus.value(f"sum({of('grpc_client_handled_total', component='evaluation', **recorded)})")
    served = prometheus.value(f"sum({of('grpc_server_handled_total', component='statistics', **recorded)})")
    assert made == served
    assert made
    assert prometheus.value(f"sum({of('daf_store_transaction_seconds_count', store='statistics')}) > 0")
    assert prometheus.value(f"max({of('daf_reconcile_lag_seconds')})") is not None
    assert prometheus.value(f"count(count by (version) ({of('daf_build_info')}))") == 1
    series = prometheus.query('count by (pod) ({__name__=~"daf_.*|grpc_.*",job="ServiceMonitor"})')
    assert all(0 < number < 1500 for _, number in series), series
