"""Identifiers of resources, and where new ones come from."""

from __future__ import annotations

import re
import secrets
from typing import Protocol

MAX_LENGTH = 40
"""Kubernetes adds suffixes to names of at most 63 characters."""

_PATTERN = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)
_ALPHABET = "bcdfghjkmnpqrstvwxz23456789"  # no vowels and no look-alikes: ids are read aloud and never spell words


class Ids(Protocol):
    """Makes ids and secrets; tests inject a predictable one."""

    def new(self, prefix: str) -> str:
        """A new id that starts with the prefix."""
        ...

    def secret(self) -> str:
        """A new secret token."""
        ...


class RandomIds:
    """Ids from the operating system's randomness."""

    def new(self, prefix: str) -> str:
        """See `Ids.new`."""
        return f"{prefix}-{''.join(secrets.choice(_ALPHABET) for _ in range(8))}"

    def secret(self) -> str:
        """See `Ids.secret`."""
        return secrets.token_urlsafe(24)


class CountedIds:
    """Ids in a fixed order."""

    def __init__(self) -> None:
        self._count = 0

    def new(self, prefix: str) -> str:
        """See `Ids.new`."""
        self._count += 1
        return f"{prefix}-{self._count}"

    def secret(self) -> str:
        """See `Ids.secret`."""
        return self.new("secret")


def is_valid(text: str) -> bool:
    """Whether a text is a DNS-1123 label that starts with a letter and leaves room for suffixes."""
    return len(text) <= MAX_LENGTH and _PATTERN.fullmatch(text) is not None
