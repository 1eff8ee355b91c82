"""The tables of the scheduler service."""

from __future__ import annotations

import sqlalchemy as sa

from daf_common.store import revision_column

METADATA = sa.MetaData()

SWEEPS = sa.Table(
    "sweeps",
    METADATA,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("spec", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.String(20), nullable=False, index=True),
    sa.Column("planned", sa.Integer, nullable=False),
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("max_failed", sa.Integer),
    sa.Column("maximize", sa.Boolean, nullable=False),
    sa.Column("learns", sa.Boolean, nullable=False),
    sa.Column("has_held_out", sa.Boolean, nullable=False),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("searched", sa.Boolean, nullable=False),
    sa.Column("pending", sa.Integer, nullable=False),
    sa.Column("running", sa.Integer, nullable=False),
    sa.Column("succeeded", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("cancelled", sa.Integer, nullable=False),
    sa.Column("best_number", sa.Integer),
    sa.Column("best_objective", sa.Double),
    sa.Column("reason", sa.String(80), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("held_out", sa.LargeBinary, nullable=False),
    sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    sa.Column("end_time", sa.DateTime(timezone=True)),
    sa.Column("creator", sa.String(120), nullable=False, server_default=""),
    revision_column(),
    sa.Index("ix_sweeps_newest", "create_time", "id"),
)

TRIALS = sa.Table(
    "trials",
    METADATA,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("sweep", sa.String(40), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("parameters", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("rung", sa.Integer, nullable=False),
    sa.Column("checkpoint", sa.LargeBinary, nullable=False),
    sa.Column("score", sa.LargeBinary, nullable=False),
    sa.Column("objective", sa.Double),
    sa.Column("reason", sa.String(80), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    sa.Column("start_time", sa.DateTime(timezone=True)),
    sa.Column("end_time", sa.DateTime(timezone=True)),
    revision_column(),
    sa.Index("ix_trials_number", "sweep", "number", unique=True),
    sa.Index("ix_trials_changes", "sweep", "revision"),
    sa.Index("ix_trials_state", "state", "sweep", "number"),
)

TRANSITIONS = sa.Table(
    "transitions",
    METADATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(120), nullable=False, index=True),
    sa.Column("from_state", sa.String(20), nullable=False),
    sa.Column("to_state", sa.String(20), nullable=False),
    sa.Column("reason", sa.String(80), nullable=False),
    sa.Column("time", sa.DateTime(timezone=True), nullable=False),
)
"""Every change of state there was, by resource name."""
