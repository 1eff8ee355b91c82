"""Opaque keyset page tokens."""

from __future__ import annotations

import base64
import binascii
import hashlib

from daf_common.errors import InvalidArgument

DEFAULT_SIZE, MAX_SIZE = 50, 1000


def page_size(requested: int) -> int:
    """How many rows a page has.

    Raises:
        InvalidArgument: the request is negative.
    """
    if requested < 0:
        raise InvalidArgument.field("page_size", f"{requested} is negative: use 0 for the default of {DEFAULT_SIZE}")
    return min(requested or DEFAULT_SIZE, MAX_SIZE)


def encode(scope: str, *keys: str | int) -> str:
    """A token that goes on after the row with these keys. The scope is the method with its filters."""
    text = "\x1f".join([_digest(scope), *(("i" if isinstance(k, int) else "s") + str(k) for k in keys)])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(scope: str, token: str, field: str = "page_token") -> tuple[str | int, ...]:
    """The keys in a token; none for an empty token.

    Raises:
        InvalidArgument: it is no token, or one of another request.
    """
    if not token:
        return ()
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode() if len(token) < 1000 else ""
        digest, *keys = text.split("\x1f")
        if digest != _digest(scope):
            raise ValueError(scope)
        return tuple(int(key[1:]) if key[0] == "i" else key[1:] for key in keys)
    except (ValueError, IndexError, binascii.Error) as error:
        raise InvalidArgument.field(
            field,
            "is not a token that this request returned: start without one, and change no other field between pages",
        ) from error


def _digest(scope: str) -> str:
    return hashlib.sha256(scope.encode()).hexdigest()[:12]
