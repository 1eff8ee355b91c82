"""Idempotent requests: what was carried out under a request id, remembered in the same transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa
from google.protobuf.message import Message

from daf_common.clock import Clock
from daf_common.errors import AlreadyExists, InvalidArgument
from daf_common.periodic import Periodic
from daf_common.store import REQUESTS, Store, Transaction

REMEMBERED = timedelta(days=1)
MAX_LENGTH = 120
FORGET_SECONDS = 3600.0
"""How often old requests are dropped."""
RETRY_SECONDS = 60.0
"""How soon that is tried again when it has failed."""

_FIND = sa.select(REQUESTS.c.digest, REQUESTS.c.resource).where(
    REQUESTS.c.method == sa.bindparam("wanted_method"), REQUESTS.c.request_id == sa.bindparam("wanted_id")
)
_INSERT = sa.insert(REQUESTS)


def once(
    tx: Transaction, method: str, request_id: str, request: Message, now: datetime, create: Callable[[], str]
) -> str:
    """Creates a resource unless this request has created it before.

    Args:
        tx: the transaction, which also holds whatever `create` writes.
        method: the RPC; request ids of different methods do not clash.
        request_id: what the caller sent; empty means that the caller does not care.
        request: the whole request: the same id with another body is refused.
        now: the time of the call.
        create: writes the resource and returns its name.

    Returns:
        The name of the resource, new or not.

    Raises:
        AlreadyExists: the id was used for another request.
        InvalidArgument: the id is too long.
    """
    if not request_id:
        return create()
    if len(request_id) > MAX_LENGTH or "\x00" in request_id:
        raise InvalidArgument.field("request_id", f"use at most {MAX_LENGTH} printable characters")
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
    find = {"wanted_method": method, "wanted_id": request_id}
    known = tx.execute(_FIND, find).first()
    if known is None:
        try:
            resource = create()
        except AlreadyExists:
            known = tx.execute(_FIND, find).first()
            if known is None:  # else the same request came twice at once, and the other was carried out meanwhile
                raise
        else:
            row = {
                "method": method,
                "request_id": request_id,
                "digest": digest,
                "resource": resource,
                "create_time": now,
            }
            tx.execute(_INSERT, row)
            return resource
    if known.digest != digest:
        raise AlreadyExists(
            f"request_id {request_id!r} was used for another request, which created {known.resource}: choose a new one",
            reason="REQUEST_ID_REUSED",
            metadata={"resource": known.resource},
        )
    return str(known.resource)


def forget(tx: Transaction, now: datetime) -> None:
    """Drops what need not be remembered any longer."""
    tx.execute(sa.delete(REQUESTS).where(REQUESTS.c.create_time < now - REMEMBERED))


def forgetter(store: Store, clock: Clock, retry_seconds: float = RETRY_SECONDS) -> Periodic:
    """Drops old requests now and then, for as long as a service works."""

    async def step() -> None:
        await store.run(forget, clock.now())

    return Periodic(f"{store.schema}-requests", step, FORGET_SECONDS, retry_seconds=retry_seconds)
