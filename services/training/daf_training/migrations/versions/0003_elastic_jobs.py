"""Jobs that make do with fewer workers."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # The defaults are for the rows that there are, and for services of the version before: all workers.
    for name in ("min_workers", "workers", "workers_attempt"):
        op.add_column("jobs", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
