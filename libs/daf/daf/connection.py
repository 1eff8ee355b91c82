"""The way to the services of the context in use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from daf.client import Client
from daf.contexts import current_endpoint
from daf.embedded import EmbeddedStack
from daf.home import home

log = logging.getLogger("daf")


def connect(notice: Callable[[str], None] = log.info) -> Client:
    """A client for the context in use; with none, for the embedded stack, which is started if it does not run.

    Args:
        notice: told when the stack is started.

    Raises:
        DafError: there is no such context, what it says cannot be, or the stack does not start.
    """
    return Client(current_endpoint() or EmbeddedStack(home()).ensure(notice))


def given_or_connected(client: Client | None) -> AbstractContextManager[Client]:
    """The client that a caller gave, which stays the caller's, or a new one that is closed at the end."""
    return connect() if client is None else nullcontext(client)
