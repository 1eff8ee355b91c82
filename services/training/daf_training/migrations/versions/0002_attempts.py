"""Attempts, restarts, admission by resources, best checkpoints."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

CPU_SMALL = '{"name": "cpu-small", "workers": 1, "environments": 16, "cpus": 1, "memory_gib": 2, "gpus": 0}'


def upgrade() -> None:
    # The defaults are for the rows that there are, and for services of the version before.
    for column in (
        sa.Column("compute", sa.JSON, nullable=False, server_default=CPU_SMALL),
        sa.Column("restarts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("queue_number", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("waiting_for", sa.Text, nullable=False, server_default=""),
        sa.Column("gpus", sa.JSON, nullable=False, server_default="[]"),
        sa.Column("other_reports", sa.JSON, nullable=False, server_default="{}"),
        sa.Column("best_checkpoint", sa.LargeBinary, nullable=True),
    ):
        op.add_column("jobs", column)
    op.create_index("ix_jobs_queue_number", "jobs", ["queue_number"])
    op.create_index("ix_jobs_state_queue_number", "jobs", ["state", "queue_number"])
    op.execute("UPDATE jobs SET queue_number = number, restarts = attempt - 1 WHERE attempt > 0")
    op.execute("UPDATE jobs SET queue_number = number WHERE attempt = 0")
    op.create_table(
        "attempts",
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
    # Of the attempts before this version only the last is known.
    op.execute(
        "INSERT INTO attempts (job, number, workers, resumed_from, resumed_sha256, agent_steps, failure_reason, "
        "failure_message, failure_subject, start_time, end_time) "
        "SELECT id, attempt, 1, '', '', 0, failure_reason, failure_message, failure_subject, "
        "COALESCE(start_time, create_time), end_time FROM jobs WHERE attempt > 0 AND state <> 'PENDING'"
    )
