"""Metric series and episodes."""

import sqlalchemy as sa
from alembic import op

from daf_common.store import create_common_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_common_tables(op.create_table, op.execute)
    op.create_table(
        "metrics",
        sa.Column("source", sa.String(200), primary_key=True),
        sa.Column("metric", sa.String(200), primary_key=True),
        sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("agent_steps", sa.BigInteger, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.Column("value", sa.Double, nullable=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "episodes",
        sa.Column("evaluation", sa.String(200), primary_key=True),
        sa.Column("scenario", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("episode", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
    )
