"""What every service tells Prometheus. A service's own numbers are in its package's `telemetry` module.

Units are in the names, as Prometheus asks. No label holds what a caller can choose, nor ids of anything: each has a
small set of values, so that the number of series does not grow with use. `docs/metrics.md` is made from these
definitions.
"""

from __future__ import annotations

import platform
from importlib.metadata import version

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the series of every counter and histogram

LABELS = {
    "access": "`read` or `write`",
    "cause": "`transient` or `defect`",
    "direction": "`read` or `written`",
    "grpc_code": "a status code of gRPC, such as `NOT_FOUND`",
    "grpc_method": "a method of `grpc_service`; `unknown` for all that are not served",
    "grpc_service": "a service of DAF's protos, such as `daf.training.v1.TrainingService`",
    "grpc_type": "`unary`, `client_stream`, `server_stream`, `bidi_stream`, or `unknown` as for methods",
    "kind": "`sweep`, `trial`, `trainingJob` or `evaluation`",
    "lease": "the service whose replicas have one leader, or `shard`",
    "python": "the version of Python",
    "reason": "why an attempt ended, such as `WORKER_LOST`; `OTHER` for what is not known here",
    "reconciler": "`sweeps`, `trials`, `training-jobs` or `evaluations`",
    "state": "a state of `kind`, such as `RUNNING`",
    "store": "the service whose database it is",
    "version": "the version of DAF",
}
"""What the labels say, for people."""

UNKNOWN = "unknown"
"""The method of all calls to methods that are not served."""

WAITING_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)
"""Buckets for what may take from a moment to a day."""

_RPC_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60)
_METHOD = ("grpc_type", "grpc_service", "grpc_method")

# The names of calls are those that gRPC's Prometheus libraries of other languages have agreed on, so that existing
# dashboards and alerts can be used.
SERVED_STARTED = Counter("grpc_server_started_total", "Calls that this process began to serve.", _METHOD)
SERVED = Counter("grpc_server_handled_total", "Calls that this process has served.", (*_METHOD, "grpc_code"))
SERVED_SECONDS = Histogram(
    "grpc_server_handling_seconds",
    "Time to serve a call; of streams, from their beginning to their end.",
    _METHOD,
    buckets=_RPC_SECONDS,
)
SERVED_IN_FLIGHT = Gauge("grpc_server_in_flight", "Calls that are being served.", _METHOD)
MADE_STARTED = Counter("grpc_client_started_total", "Calls that this process began to make to other services.", _METHOD)
MADE = Counter("grpc_client_handled_total", "Calls that this process has made to others.", (*_METHOD, "grpc_code"))
MADE_SECONDS = Histogram(
    "grpc_client_handling_seconds",
    "Time until a call to another service was answered, with its retries; of streams, until their end.",
    _METHOD,
    buckets=_RPC_SECONDS,
)
MADE_IN_FLIGHT = Gauge("grpc_client_in_flight", "Calls to other services that are not answered yet.", _METHOD)

TRANSACTION_SECONDS = Histogram(
    "daf_store_transaction_seconds",
    "Time of a database transaction that ended well, with its wait for a connection.",
    ("store", "access"),
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10),
)
TRANSACTION_RETRIES = Counter(
    "daf_store_transaction_retries_total",
    "Transactions that were begun again after a conflict or a lost connection.",
    ("store",),
)
TRANSACTION_FAILURES = Counter(
    "daf_store_transaction_failures_total",
    "Transactions that were given up since the database did not answer.",
    ("store",),
)

RECONCILE_SECONDS = Histogram(
    "daf_reconcile_seconds",
    "Time to look at one batch of rows, and to write or act.",
    ("reconciler",),
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60),
)
RECONCILED_ROWS = Counter("daf_reconcile_rows_total", "Rows that were looked at.", ("reconciler",))
RECONCILE_FAILURES = Counter(
    "daf_reconcile_failures_total",
    "What failed and is tried again: `transient` for peers and databases that do not answer, `defect` for the rest.",
    ("reconciler", "cause"),
)
RECONCILE_QUEUE = Gauge("daf_reconcile_queue_length", "Rows that are due to be looked at.", ("reconciler",))
RECONCILE_LAG = Gauge(
    "daf_reconcile_lag_seconds",
    "For how long the row that has waited longest has been due, or being looked at.",
    ("reconciler",),
)

LEADER = Gauge("daf_leader", "1 where this replica leads, else 0; their sum is 1.", ("lease",))
LEADER_CHANGES = Counter("daf_leader_changes_total", "Times that this replica began to lead.", ("lease",))
LEASES_EXPIRED = Counter(
    "daf_lease_expiries_total",
    "Leases that this replica took from holders that had fallen silent; `shard` are those of evaluations' workers.",
    ("lease",),
)

WATCHES = Gauge("daf_watches", "Streams of changes that are open.", ("kind",))

STATE_CHANGES = Counter("daf_state_changes_total", "Resources that have reached a state.", ("kind", "state"))
RESOURCES = Gauge(
    "daf_resources",
    "Resources by state, from the database. Every replica tells the same: aggregate by max, not by sum.",
    ("kind", "state"),
)
RESOURCES_AGE = Gauge(
    "daf_resources_refreshed_timestamp_seconds",
    "When this replica has last read `daf_resources`, in seconds since 1970.",
    ("kind",),
)

ARTIFACT_BYTES = Counter(
    "daf_artifact_bytes_total",
    "Content of artifacts that went through this service; workers read and write theirs by URL.",
    ("direction",),
)

BUILD = Gauge("daf_build_info", "1, with the version that runs.", ("version", "python"))
BUILD.labels(version("daf-common"), platform.python_version()).set(1)
