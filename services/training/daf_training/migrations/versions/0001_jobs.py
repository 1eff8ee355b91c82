"""Jobs, checkpoints and logs."""

import sqlalchemy as sa
from alembic import op

from daf_common.store import create_common_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_common_tables(op.create_table, op.execute)
    op.create_table(
        "jobs",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("creator", sa.String(200), nullable=False),
        sa.Column("max_restarts", sa.Integer, nullable=False),
        sa.Column("max_checkpoints", sa.Integer, nullable=False),
        sa.Column("state", sa.String(20), nullable=False, index=True),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("token", sa.String(80), nullable=False),
        sa.Column("reports", sa.BigInteger, nullable=False),
        sa.Column("log_bytes", sa.BigInteger, nullable=False),
        sa.Column("failure_reason", sa.String(80), nullable=True),
        sa.Column("failure_message", sa.Text, nullable=False),
        sa.Column("failure_subject", sa.String(200), nullable=False),
        sa.Column("progress", sa.LargeBinary, nullable=False),
        sa.Column("checkpoint", sa.LargeBinary, nullable=False),
        sa.Column("effective_trainer", sa.JSON, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revision", sa.BigInteger, nullable=False, index=True, server_default="0"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("job", sa.String(40), primary_key=True),
        sa.Column("update_number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("reward", sa.Double, nullable=True),
        sa.Column("message", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "checkpoint_artifacts",
        sa.Column("job", sa.String(40), primary_key=True),
        sa.Column("update_number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("sha256", sa.String(64), primary_key=True, index=True),
    )
    op.create_table("garbage", sa.Column("sha256", sa.String(64), primary_key=True))
    op.create_table(
        "log_pieces",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job", sa.String(40), nullable=False, index=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("worker", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "transitions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(120), nullable=False, index=True),
        sa.Column("from_state", sa.String(20), nullable=False),
        sa.Column("to_state", sa.String(20), nullable=False),
        sa.Column("reason", sa.String(80), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
    )
