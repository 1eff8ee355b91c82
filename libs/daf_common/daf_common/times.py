"""Times between the database, Python and messages: always UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload

from google.protobuf.timestamp_pb2 import Timestamp


def utc(stored: datetime) -> datetime:
    """A time as a database answered it: SQLite forgets the zone, PostgreSQL answers in its own."""
    return stored.replace(tzinfo=UTC) if stored.tzinfo is None else stored.astimezone(UTC)


@overload
def to_timestamp(time: datetime) -> Timestamp: ...


@overload
def to_timestamp(time: None) -> None: ...


def to_timestamp(time: datetime | None) -> Timestamp | None:
    """A time as a message; None, which leaves a field unset, stays None."""
    if time is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
