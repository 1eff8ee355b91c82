"""Who asked for a sweep."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # The default is for sweeps that an older version of the service creates meanwhile.
    op.add_column("sweeps", sa.Column("creator", sa.String(120), nullable=False, server_default=""))
