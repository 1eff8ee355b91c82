"""Outcomes of episodes beside their messages; those of the episodes that are there are made."""

import sqlalchemy as sa
from alembic import op

from daf_protos.statistics.v1.episode_pb2 import Episode
from daf_statistics.outcomes import outcome, row

revision = "0003"
down_revision = "0002"

_ROWS = 500


def upgrade() -> None:
    outcomes = op.create_table(
        "outcomes",
        sa.Column("evaluation", sa.String(200), primary_key=True),
        sa.Column("scenario", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("episode", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("mission", sa.Text, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("max_steps", sa.Integer, nullable=False),
        sa.Column("seats", sa.LargeBinary, nullable=False),
        sa.Column("rewards", sa.LargeBinary, nullable=False),
        sa.Column("forfeits", sa.LargeBinary, nullable=False),
        sa.Column("copy_key", sa.LargeBinary, nullable=False),
        sa.Column("approximate", sa.Boolean, nullable=False),
        sa.Column("latencies", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    connection = op.get_bind()
    last = ("", 0, 0)
    while found := connection.execute(
        _AFTER, dict(zip(("evaluation", "scenario", "episode"), last, strict=True))
    ).all():
        rows = [row(one.evaluation, outcome(Episode.FromString(one.message))) for one in found]
        connection.execute(sa.insert(outcomes), rows)
        last = found[-1].evaluation, found[-1].scenario, found[-1].episode


_AFTER = sa.text(
    "SELECT evaluation, scenario, episode, message FROM episodes "
    "WHERE (evaluation, scenario, episode) > (:evaluation, :scenario, :episode) "
    f"ORDER BY evaluation, scenario, episode LIMIT {_ROWS}"
)
