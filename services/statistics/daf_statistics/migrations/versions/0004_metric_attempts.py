"""Which attempt of a source of metrics went back last."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "metric_attempts",
        sa.Column("source", sa.String(200), primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
    )
