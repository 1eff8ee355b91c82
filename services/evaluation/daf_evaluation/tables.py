"""The tables of the evaluation service."""

from __future__ import annotations

import sqlalchemy as sa

from daf_common.store import revision_column

METADATA = sa.MetaData()
EVALUATIONS = sa.Table(
    "evaluations",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(40), nullable=False, unique=True),
    sa.Column("spec", sa.LargeBinary, nullable=False),
    sa.Column("agents", sa.JSON, nullable=False),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("workers", sa.Integer, nullable=False),
    sa.Column("token", sa.String(80), nullable=False),
    sa.Column("creator", sa.String(120), nullable=False),
    sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("failure", sa.JSON(none_as_null=True)),
    sa.Column("done", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("replicas", sa.Integer, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("start_time", sa.DateTime(timezone=True)),
    sa.Column("end_time", sa.DateTime(timezone=True)),
    sa.Column("cleaned", sa.Boolean, nullable=False, index=True),
    sa.Column("waiting_for", sa.Text, nullable=False, server_default=""),
    revision_column(),
    info={"key": "id"},
)

SHARDS = sa.Table(
    "shards",
    METADATA,
    sa.Column("evaluation", sa.String(40), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("scenario", sa.Integer, nullable=False),
    sa.Column("first", sa.Integer, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("holder", sa.String(80), nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("recorded", sa.Integer, nullable=False),
)

LOGS = sa.Table(
    "logs",
    METADATA,
    sa.Column("evaluation", sa.String(40), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("replica", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.Column("skipped", sa.BigInteger, nullable=False, server_default="0"),
)
"""What workers printed, once their workload was removed."""

REPLAYS = sa.Table(
    "replays",
    METADATA,
    sa.Column("evaluation", sa.String(40), primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True, index=True),
)
"""Which replays evaluations keep. Equal content is one artifact, so several may keep the same."""

GARBAGE = sa.Table("garbage", METADATA, sa.Column("sha256", sa.String(64), primary_key=True))
"""Replays of evaluations that were deleted. Those that no other keeps are deleted from the artifact store."""

HISTORY = sa.Table(
    "transitions",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(40), nullable=False, index=True),
    sa.Column("from_state", sa.String(20), nullable=False),
    sa.Column("to_state", sa.String(20), nullable=False),
    sa.Column("reason", sa.String(60), nullable=False),
    sa.Column("time", sa.DateTime(timezone=True), nullable=False),
)
"""Every change of state, for the record."""
