"""The tables of the statistics service, and the only SQL that reads and writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message
from sqlalchemy.dialects import postgresql, sqlite

from daf_common import names, requests
from daf_common.errors import AlreadyExists
from daf_common.store import Transaction
from daf_protos.statistics.v1.comparison_pb2 import Comparison
from daf_protos.statistics.v1.episode_pb2 import Episode
from daf_statistics import outcomes, telemetry
from daf_statistics.aggregation import Aggregation
from daf_statistics.episodes import Source
from daf_statistics.metrics import Point
from daf_statistics.outcomes import Outcome
from daf_statistics.samples import KnownStatistics, Measured, Samples, find_source, measured, read_samples

MIGRATIONS = Path(__file__).parent / "migrations"

TABLES = sa.MetaData()

METRICS = sa.Table(
    "metrics",
    TABLES,
    sa.Column("source", sa.String(200), primary_key=True),
    sa.Column("metric", sa.String(200), primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("agent_steps", sa.BigInteger, nullable=False),
    sa.Column("time_us", sa.BigInteger, nullable=False),
    sa.Column("value", sa.Double, nullable=True),
    sqlite_with_rowid=False,  # the rows are short and read in the order of their key
)
"""One row a value. `time_us`: microseconds since 1970; `value`: NULL where it was not finite."""

ATTEMPTS = sa.Table(
    "metric_attempts",
    TABLES,
    sa.Column("source", sa.String(200), primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
)
"""The newest attempt of a source that went back to an earlier step."""

EPISODES = sa.Table(
    "episodes",
    TABLES,
    sa.Column("evaluation", sa.String(200), primary_key=True),
    sa.Column("scenario", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("episode", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("message", sa.LargeBinary, nullable=False),
)
"""One row an episode, by its index in the scenario; `message` is the serialized `Episode`."""

OUTCOMES = sa.Table(
    "outcomes",
    TABLES,
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
    sqlite_with_rowid=False,  # as for the metrics
)
"""One row an episode, made of its message; see `daf_statistics.outcomes`. A table of its own, since messages are
long: rows that have one are slow to read even where it is left out."""

COMPARISONS = sa.Table(
    "comparisons",
    TABLES,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(40), nullable=False, unique=True),
    sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    sa.Column("message", sa.LargeBinary, nullable=False),
)
"""One row a comparison; `message` is the serialized `Comparison`. They never change."""


def _insert_of_columns(table: sa.Table) -> postgresql.Insert:
    """Takes a list a column: one statement of one text, however many rows there are."""
    types = [sa.Text() if isinstance(column.type, sa.String) else column.type for column in table.columns]
    names = table.columns.keys()  # text is not cast to its length, since that cuts what is too long without a word
    lists = [sa.bindparam(name, type_=sa.ARRAY(of)) for name, of in zip(names, types, strict=True)]
    rows = sa.func.unnest(*lists).table_valued(*names).render_derived()
    return postgresql.insert(table).from_select(names, sa.select(rows))


_INSERTS: dict[tuple[str, str], sa.Executable] = {
    (dialect, table.name): insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    for dialect, insert in (("sqlite", sqlite.insert), ("postgresql", _insert_of_columns))
    for table in (METRICS, EPISODES, OUTCOMES)
}

_STREAMED_ROWS = 500
FEW_EPISODES = 32
"""Of so many, samples are read in a millisecond or two."""

# Statements of every trial's path are built once: building one costs as much as running it.
_OUTCOME = [column for column in OUTCOMES.columns if column is not OUTCOMES.c.evaluation]
_STREAMED_OUTCOMES: sa.Select[Any] = (
    sa.select(*_OUTCOME)
    .where(OUTCOMES.c.evaluation == sa.bindparam("wanted"))
    .order_by(OUTCOMES.c.scenario, OUTCOMES.c.episode)
    .execution_options(yield_per=_STREAMED_ROWS)
)
_FIRST_EPISODES = (
    sa.select(EPISODES.c.episode).where(EPISODES.c.evaluation == sa.bindparam("wanted")).limit(FEW_EPISODES + 1)
)
_STREAMED_EPISODES: sa.Select[Any] = (
    sa.select(EPISODES.c.message, *_OUTCOME)
    .join_from(
        EPISODES,
        OUTCOMES,
        sa.and_(*(EPISODES.c[name] == OUTCOMES.c[name] for name in ("evaluation", "scenario", "episode"))),
        isouter=True,
    )
    .where(EPISODES.c.evaluation == sa.bindparam("wanted"))
    .order_by(EPISODES.c.scenario, EPISODES.c.episode)
    .execution_options(yield_per=_STREAMED_ROWS)
)
_COUNTS: sa.Select[Any] = sa.select(
    *(
        sa.select(sa.func.count()).where(table.c.evaluation == sa.bindparam("wanted")).scalar_subquery()
        for table in (EPISODES, OUTCOMES)
    )
)


_NEWEST_ATTEMPT = sa.select(ATTEMPTS.c.attempt).where(ATTEMPTS.c.source == sa.bindparam("wanted")).with_for_update()
_ADD_ATTEMPT = sa.insert(ATTEMPTS)
_SET_ATTEMPT = sa.update(ATTEMPTS).where(ATTEMPTS.c.source == sa.bindparam("of")).values(attempt=sa.bindparam("new"))


def add_metrics(
    tx: Transaction, source: str, rows: Sequence[dict[str, Any]], after_step: int | None = None, attempt: int = 0
) -> int:
    """Adds values of a source; returns how many were new. What is there stays, but for what is after `after_step`.

    `attempt`: see `RecordMetricsRequest`. A request may come late, even after those that followed it: where replicas
    forward them, one that was stopped goes on with what its caller has long sent to another.
    """
    if attempt:
        newest = tx.execute(_NEWEST_ATTEMPT, {"wanted": source}).scalar() or 0
        if attempt < newest:
            return 0
        if after_step is not None:
            if attempt > newest:
                _go_back(tx, source, attempt, newest)
            else:
                after_step = None
    if after_step is not None:
        tx.execute(sa.delete(METRICS).where(METRICS.c.source == source, METRICS.c.step > after_step))
    added = _add(tx, METRICS, rows) if rows else 0
    tx.after_commit(partial(telemetry.POINTS.inc, added))
    return added


def _go_back(tx: Transaction, source: str, attempt: int, newest: int) -> None:
    if newest:
        tx.execute(_SET_ATTEMPT, {"of": source, "new": attempt})
    else:
        tx.execute(_ADD_ATTEMPT, {"source": source, "attempt": attempt})


def series(
    tx: Transaction, source: str, metrics: Sequence[str], after_step: int | None
) -> Iterator[tuple[str, list[Point]]]:
    """The points of a source by metric name, each in the order of steps."""
    query = sa.select(
        METRICS.c.metric, METRICS.c.step, METRICS.c.agent_steps, METRICS.c.time_us, METRICS.c.value
    ).where(METRICS.c.source == source)
    if metrics:
        query = query.where(METRICS.c.metric.in_(list(metrics)))
    if after_step is not None:
        query = query.where(METRICS.c.step > after_step)
    name, points = "", list[Point]()
    for row in tx.execute(query.order_by(METRICS.c.metric, METRICS.c.step)):
        if row.metric != name and points:
            yield name, points
            points = []
        name = row.metric
        points.append(Point(row.step, row.agent_steps, row.time_us, row.value))
    if points:
        yield name, points


def metric_names(tx: Transaction, source: str) -> list[str]:
    """The names of a source's series, in alphabetical order."""
    names = sa.select(METRICS.c.metric).where(METRICS.c.source == source).distinct().order_by(METRICS.c.metric)
    return list(tx.execute(names).scalars())


def add_episodes(
    tx: Transaction, rows: Sequence[dict[str, Any]], outcome_rows: Sequence[dict[str, Any]]
) -> tuple[int, list[tuple[int, int]]]:
    """Adds episodes of one evaluation with their outcomes. What is there stays.

    Returns:
        How many were new, and the scenario and index of those that were there with another digest.
    """
    recorded = _add(tx, EPISODES, rows)
    tx.after_commit(partial(telemetry.EPISODES.inc, recorded))
    _add(tx, OUTCOMES, outcome_rows)
    if recorded == len(rows):
        return recorded, []
    wanted = {(row["scenario"], row["episode"]): row["digest"] for row in rows}
    stored = sa.select(EPISODES.c.scenario, EPISODES.c.episode, EPISODES.c.digest).where(
        EPISODES.c.evaluation == rows[0]["evaluation"],
        EPISODES.c.scenario.in_({scenario for scenario, _ in wanted}),
        EPISODES.c.episode.in_({episode for _, episode in wanted}),
    )
    return recorded, [
        (row.scenario, row.episode)
        for row in tx.execute(stored)
        if wanted.get((row.scenario, row.episode), row.digest) != row.digest  # the query finds more than these pairs
    ]


def page_of_episodes(tx: Transaction, evaluation: str, after: tuple[int, int] | None, limit: int) -> Iterator[bytes]:
    """The messages of an evaluation's episodes by scenario and index, from after the given ones."""
    query = sa.select(EPISODES.c.message).where(EPISODES.c.evaluation == evaluation)
    if after:
        query = query.where(sa.tuple_(EPISODES.c.scenario, EPISODES.c.episode) > sa.tuple_(*after))
    query = query.order_by(EPISODES.c.scenario, EPISODES.c.episode).limit(limit)
    yield from tx.execute(query.execution_options(yield_per=_STREAMED_ROWS)).scalars()


def few_samples(
    tx: Transaction,
    evaluation: str,
    metric: str,
    known: KnownStatistics,
    aggregation: Aggregation = Aggregation.MEAN,
) -> Samples | None:
    """As `samples`; None if there are more episodes than FEW_EPISODES."""
    many = len(tx.execute(_FIRST_EPISODES, {"wanted": evaluation}).all()) > FEW_EPISODES
    return None if many else samples(tx, evaluation, metric, known, aggregation)


def samples(
    tx: Transaction,
    evaluation: str,
    metric: str,
    known: KnownStatistics,
    aggregation: Aggregation = Aggregation.MEAN,
) -> Samples:
    """The samples of a metric in an evaluation, however many episodes it has.

    Raises:
        UnknownMetricError: the name is not known and no episode has it.
    """
    return samples_of_several(tx, [evaluation], metric, known, aggregation)[evaluation]


def samples_of_several(
    tx: Transaction,
    evaluations: Sequence[str],
    metric: str,
    known: KnownStatistics,
    aggregation: Aggregation = Aggregation.MEAN,
) -> dict[str, Samples]:
    """The samples of a metric, which means the same in all of some evaluations, by evaluation.

    Raises:
        UnknownMetricError: the name is not known and no episode of any has it.
    """
    source = find_source(_messages(tx, evaluations), metric, known)
    return {
        evaluation: read_samples(evaluation, _measured(tx, evaluation, metric, source), aggregation)
        for evaluation in evaluations
    }


def measured_episodes(tx: Transaction, evaluation: str, metric: str, known: KnownStatistics) -> Iterable[Measured]:
    """What a metric came to in every episode of an evaluation, by scenario and index.

    Raises:
        UnknownMetricError: the name is not known and no episode has it.
    """
    return _measured(tx, evaluation, metric, find_source(_messages(tx, [evaluation]), metric, known))


def _measured(tx: Transaction, evaluation: str, metric: str, source: Source) -> Iterable[Measured]:
    if source is Source.REWARD:
        counts: sa.Result[Any] = tx.execute(_COUNTS, {"wanted": evaluation})
        if len(set(counts.one())) == 1:
            rows = tx.execute(_STREAMED_OUTCOMES, {"wanted": evaluation})
            return ((outcome, outcome.rewards) for outcome in starmap(outcomes.from_row, rows))
    return measured(_episodes(tx, evaluation), metric, source)


def _episodes(tx: Transaction, evaluation: str) -> Iterator[tuple[Outcome, Episode]]:
    """All episodes of an evaluation, by scenario and index; read bit by bit, since there may be many.

    Where an outcome is lacking, because the release before recorded the episode after the upgrade, it is made.
    """
    rows: Iterable[Any] = tx.execute(_STREAMED_EPISODES, {"wanted": evaluation})
    for row in rows:
        episode = Episode.FromString(row[0])
        yield outcomes.outcome(episode) if row[1] is None else outcomes.from_row(*row[1:]), episode


def _messages(tx: Transaction, evaluations: Sequence[str]) -> Iterator[Episode]:
    return (episode for evaluation in evaluations for _, episode in _episodes(tx, evaluation))


def add_comparison(
    tx: Transaction, method: str, request_id: str, request: Message, comparison: Comparison, now: datetime
) -> Comparison:
    """Keeps a comparison, which has its name, unless the request has made one before; returns the one that is kept.

    Raises:
        AlreadyExists: its name is taken, or the request id by another request.
    """

    def create() -> str:
        (id,) = names.COMPARISON.parse(comparison.name)
        if tx.execute(sa.select(COMPARISONS.c.id).where(COMPARISONS.c.id == id)).first():
            raise AlreadyExists(f"{comparison.name} exists already: choose another id")
        row = {"id": id, "create_time": now, "message": comparison.SerializeToString()}
        tx.execute(sa.insert(COMPARISONS), row)
        return comparison.name

    kept = requests.once(tx, method, request_id, request, now, create)
    return find_comparison(tx, kept) or comparison  # it may have been deleted since


def find_comparison(tx: Transaction, name: str) -> Comparison | None:
    """The comparison of this name."""
    (id,) = names.COMPARISON.parse(name)
    message = tx.execute(sa.select(COMPARISONS.c.message).where(COMPARISONS.c.id == id)).scalar()
    return None if message is None else Comparison.FromString(message)


def page_of_comparisons(tx: Transaction, before: int | None, limit: int) -> Iterator[tuple[int, bytes]]:
    """Number and message of comparisons, newest first, from below a number."""
    query = sa.select(COMPARISONS.c.number, COMPARISONS.c.message)
    if before is not None:
        query = query.where(COMPARISONS.c.number < before)
    query = query.order_by(COMPARISONS.c.number.desc()).limit(limit)
    for row in tx.execute(query.execution_options(yield_per=_STREAMED_ROWS)):
        yield row.number, row.message


def delete_comparison(tx: Transaction, name: str) -> bool:
    """Deletes a comparison; returns whether there was one."""
    (id,) = names.COMPARISON.parse(name)
    return tx.execute(sa.delete(COMPARISONS).where(COMPARISONS.c.id == id)).rowcount > 0


def delete_numbers(tx: Transaction, name: str) -> None:
    """Deletes all that is recorded of a source of metrics or of an evaluation."""
    tx.take_your_time()
    tx.execute(sa.delete(METRICS).where(METRICS.c.source == name))
    tx.execute(sa.delete(ATTEMPTS).where(ATTEMPTS.c.source == name))
    tx.execute(sa.delete(EPISODES).where(EPISODES.c.evaluation == name))
    tx.execute(sa.delete(OUTCOMES).where(OUTCOMES.c.evaluation == name))


def _add(tx: Transaction, table: sa.Table, rows: Sequence[dict[str, Any]]) -> int:
    dialect = tx.connection.dialect.name
    columns = {name: [row[name] for row in rows] for name in table.columns.keys()}  # noqa: SIM118 (a collection of columns, no dict)
    return tx.execute(_INSERTS[dialect, table.name], columns if dialect == "postgresql" else rows).rowcount
