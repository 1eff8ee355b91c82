"""Writes docs/metrics.md, the table of all metrics, from their definitions; `--check` tells whether it is current."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

import daf_common.metrics
import daf_evaluation.telemetry
import daf_statistics.telemetry
import daf_training.telemetry

TARGET = Path(__file__).parent.parent / "docs" / "metrics.md"

SECTIONS: Sequence[tuple[str, ModuleType]] = (
    ("Every service", daf_common.metrics),
    ("Training", daf_training.telemetry),
    ("Evaluation", daf_evaluation.telemetry),
    ("Statistics", daf_statistics.telemetry),
)

INTRODUCTION = """\
# Metrics

<!-- Made by `make metrics` from the definitions in the code. -->

Every service process serves its metrics for Prometheus at `/metrics` on a port of its own (`DAF_METRICS_PORT`, in the chart
9090, named `metrics`; `DAF_METRICS_HOST` is the address, 127.0.0.1 unless set), and beside them `/healthz`. It answers there
also while it is busy or its database is away. On a laptop the log of the stack says the port, and one process has the
metrics of all five services.

Names end in their unit; those that end in `_total` only rise. No label holds an id or a text that a user chooses, so the
number of series does not grow with use. On a cluster Prometheus adds which pod a series is of. Most are summed up over
pods; `daf_resources`, which every replica reads from the same database, is to be aggregated by `max`:

| question | PromQL |
|---|---|
| trials by state | `max by (state) (daf_resources{kind="trial"})` |
| environment steps per second | `sum(rate(daf_training_agent_steps_total[1m]))` |
| episodes per second | `sum(rate(daf_evaluation_episodes_total[1m]))` |
| the wait of training jobs, 90th percentile | `histogram_quantile(0.9, sum by (le) (rate(daf_training_queue_wait_seconds_bucket[1h])))` |
| from a job to its first step, median | `histogram_quantile(0.5, sum by (le) (rate(daf_training_time_to_first_step_seconds_bucket[1h])))` |
| calls that fail by our doing | `sum by (grpc_service, grpc_method) (rate(grpc_server_handled_total{grpc_code=~"INTERNAL\\|UNKNOWN\\|DATA_LOSS"}[5m]))` |
| slowest calls, 99th percentile | `histogram_quantile(0.99, sum by (le, grpc_method) (rate(grpc_server_handling_seconds_bucket{grpc_type="unary"}[5m])))` |
| does the loop of a service keep up | `max by (reconciler) (daf_reconcile_lag_seconds)` |
| workers that fall silent | `sum(rate(daf_lease_expiries_total{lease="shard"}[1h]))` |
| is there one leader | `sum by (lease) (daf_leader)` |

Those of calls have the names and labels of gRPC's Prometheus libraries, so existing dashboards and alerts fit. Beside all these
are the usual `process_*` and `python_*`.
"""


def definitions(module: ModuleType) -> Iterator[MetricWrapperBase]:
    """The metrics that a module defines, in their order."""
    return (value for value in vars(module).values() if isinstance(value, MetricWrapperBase))


def _row(metric: MetricWrapperBase) -> str:
    name = f"{metric._name}_total" if isinstance(metric, Counter) else metric._name
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    return f"| `{name}` | {metric._type} | {labels} | {metric._documentation} |"


def render() -> str:
    """The page."""
    parts = [INTRODUCTION]
    seen: set[int] = set()
    for title, module in SECTIONS:
        own = [metric for metric in definitions(module) if id(metric) not in seen]  # services import common ones
        seen.update(map(id, own))
        parts.append(f"\n## {title}\n\n| name | type | labels | meaning |\n|---|---|---|---|\n")
        parts.extend(f"{_row(metric)}\n" for metric in own)
    parts.append("\n## Labels\n\n| label | values |\n|---|---|\n")
    parts.extend(f"| `{label}` | {values} |\n" for label, values in sorted(daf_common.metrics.LABELS.items()))
    return "".join(parts)


def main() -> None:
    """Writes or compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the checked-in page is not current")
    if not parser.parse_args().check:
        TARGET.write_text(render())
    elif not TARGET.exists() or TARGET.read_text() != render():
        raise SystemExit(f"{TARGET.name} is not current: run `make metrics`")


if __name__ == "__main__":
    main()
