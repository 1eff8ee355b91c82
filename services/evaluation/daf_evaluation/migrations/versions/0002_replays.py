"""Replays, and those to be deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "replays",
        sa.Column("evaluation", sa.String(40), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True, index=True),
    )
    op.create_table("garbage", sa.Column("sha256", sa.String(64), primary_key=True))
