"""The tables of the training service."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from daf_common.store import revision_column

MIGRATIONS = Path(__file__).parent / "migrations"

TABLES = sa.MetaData()

JOBS = sa.Table(
    "jobs",
    TABLES,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.String(40), nullable=False, unique=True),
    sa.Column("spec", sa.LargeBinary, nullable=False),
    sa.Column("creator", sa.String(200), nullable=False),
    sa.Column("compute", sa.JSON, nullable=False),
    sa.Column("min_workers", sa.Integer, nullable=False),
    sa.Column("max_restarts", sa.Integer, nullable=False),
    sa.Column("max_checkpoints", sa.Integer, nullable=False),
    sa.Column("restarts", sa.Integer, nullable=False),
    sa.Column("queue_number", sa.BigInteger, nullable=False, index=True),
    sa.Column("waiting_for", sa.Text, nullable=False),
    sa.Column("state", sa.String(20), nullable=False, index=True),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("token", sa.String(80), nullable=False),
    sa.Column("workers", sa.Integer, nullable=False),
    sa.Column("workers_attempt", sa.Integer, nullable=False),
    sa.Column("gpus", sa.JSON, nullable=False),
    sa.Column("reports", sa.BigInteger, nullable=False),
    sa.Column("other_reports", sa.JSON, nullable=False),
    sa.Column("log_bytes", sa.BigInteger, nullable=False),
    sa.Column("failure_reason", sa.String(80), nullable=True),
    sa.Column("failure_message", sa.Text, nullable=False),
    sa.Column("failure_subject", sa.String(200), nullable=False),
    sa.Column("progress", sa.LargeBinary, nullable=False),
    sa.Column("checkpoint", sa.LargeBinary, nullable=False),
    sa.Column("best_checkpoint", sa.LargeBinary, nullable=True),
    sa.Column("effective_trainer", sa.JSON, nullable=False),
    sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    sa.Column("start_time", sa.DateTime(timezone=True), nullable=True),
    sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
    revision_column(),
    sa.Index("ix_jobs_state_queue_number", "state", "queue_number"),
    info={"key": "id"},
)
"""One row a job. `number` is the order of creation; `spec`, `progress` and the checkpoints are serialized messages;
`reports` are those of rank 0, `other_reports` those of the others; `workers` is said of attempt `workers_attempt` or,
where that is negative, of the one after it."""

ATTEMPTS = sa.Table(
    "attempts",
    TABLES,
    sa.Column("job", sa.String(40), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("workers", sa.Integer, nullable=False),
    sa.Column("resumed_from", sa.String(200), nullable=False),
    sa.Column("resumed_sha256", sa.String(64), nullable=False),
    sa.Column("agent_steps", sa.BigInteger, nullable=False),
    sa.Column("failure_reason", sa.String(80), nullable=True),
    sa.Column("failure_message", sa.Text, nullable=False),
    sa.Column("failure_subject", sa.String(200), nullable=False),
    sa.Column("start_time", sa.DateTime(timezone=True), nullable=False),
    sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
)
"""One row an attempt, written at its start and at its end."""

STARTING_WEIGHTS = -1
"""In the place of an update: the weights that a job started from, which stay while the job is there."""

CHECKPOINTS = sa.Table(
    "checkpoints",
    TABLES,
    sa.Column("job", sa.String(40), primary_key=True),
    sa.Column("update_number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("reward", sa.Double, nullable=True, key="score"),
    sa.Column("message", sa.LargeBinary, nullable=False),
)
"""One row a checkpoint; `score` is the value of the metric by which its job's best is found."""

CHECKPOINT_ARTIFACTS = sa.Table(
    "checkpoint_artifacts",
    TABLES,
    sa.Column("job", sa.String(40), primary_key=True),
    sa.Column("update_number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("sha256", sa.String(64), primary_key=True, index=True),
)
"""Which artifacts checkpoints name. Equal content is one artifact, so several may name the same."""

GARBAGE = sa.Table("garbage", TABLES, sa.Column("sha256", sa.String(64), primary_key=True))
"""Artifacts of checkpoints that were deleted. Those that no checkpoint names are deleted from the store."""

LOG_PIECES = sa.Table(
    "log_pieces",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("job", sa.String(40), nullable=False, index=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("worker", sa.Integer, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)

TRANSITIONS = sa.Table(
    "transitions",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(120), nullable=False, index=True),
    sa.Column("from_state", sa.String(20), nullable=False),
    sa.Column("to_state", sa.String(20), nullable=False),
    sa.Column("reason", sa.String(80), nullable=False),
    sa.Column("time", sa.DateTime(timezone=True), nullable=False),
)
"""Every change of a job's state; only ever added to."""
