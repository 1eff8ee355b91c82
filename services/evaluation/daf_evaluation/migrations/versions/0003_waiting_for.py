"""What an evaluation waits for; with a default of the database's, so that the version before can still add rows."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("evaluations", sa.Column("waiting_for", sa.Text, nullable=False, server_default=""))
