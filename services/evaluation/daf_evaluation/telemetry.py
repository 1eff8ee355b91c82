"""What the evaluation service tells Prometheus, beside what every service does."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from prometheus_client import Counter, Histogram

from daf_common.metrics import LEASES_EXPIRED, STATE_CHANGES, WAITING_SECONDS
from daf_common.state_counts import Kind, StateCounts
from daf_common.store import Store, Transaction
from daf_evaluation.evaluations import State
from daf_evaluation.tables import EVALUATIONS

QUEUE_SECONDS = Histogram(
    "daf_evaluation_queue_wait_seconds",
    "From the creation of an evaluation to its first shard's being leased to a worker.",
    buckets=WAITING_SECONDS,
)
EPISODES = Counter("daf_evaluation_episodes_total", "Episodes that workers have played and that are recorded.")

KIND = "evaluation"


def evaluation_counts(store: Store) -> StateCounts:
    """Evaluations by state."""
    return StateCounts(store, [Kind(KIND, EVALUATIONS.c.state, [state.value for state in State])])


def count_change(tx: Transaction, state: State) -> None:
    """Has a change to a state counted."""
    tx.after_commit(STATE_CHANGES.labels(KIND, state.value).inc)


def count_beginning(tx: Transaction, create_time: datetime, now: datetime) -> None:
    """Has the first lease of an evaluation counted."""
    # Another replica may have dated the creation; durations are never negative.
    tx.after_commit(partial(QUEUE_SECONDS.observe, max(0.0, (now - create_time).total_seconds())))


def count_episodes(tx: Transaction, episodes: int) -> None:
    """Has recorded episodes counted."""
    tx.after_commit(partial(EPISODES.inc, episodes))


def count_expiry(tx: Transaction) -> None:
    """Has a shard counted that is taken from a silent worker."""
    tx.after_commit(LEASES_EXPIRED.labels("shard").inc)
