"""Policy packages and their versions."""

import sqlalchemy as sa
from alembic import op

from daf_common.store import create_common_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_common_tables(op.create_table, op.execute)
    op.create_table(
        "packages",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("creator", sa.String(200), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False, index=True, server_default="0"),
    )
    op.create_table(
        "versions",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("package", sa.String(40), sa.ForeignKey("packages.id"), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("package", "version"),
    )
