"""Where in a log begins what was kept of it; with a default of the database's, so that the version before can still add
rows."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("logs", sa.Column("skipped", sa.BigInteger, nullable=False, server_default="0"))
