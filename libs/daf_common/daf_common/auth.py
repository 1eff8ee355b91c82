"""Who calls: bearer tokens, one file a principal, in a directory such as a mounted Secret.

Roles and other kinds of tokens (OIDC) have their place in `Tokens.principal`, which names whoever a token stands for.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from daf_common.addresses import is_local
from daf_common.clock import Clock
from daf_common.errors import FailedPrecondition, InvalidArgument, Unauthenticated

if TYPE_CHECKING:
    from daf_common.server import Call
    from daf_common.settings import ServiceSettings

log = logging.getLogger(__name__)

PRINCIPAL: ContextVar[str] = ContextVar("daf_principal", default="")
"""Who made the call that is being served, or for whom a service made it; empty where nobody is asked."""

AUTHORIZATION_KEY = "authorization"
ON_BEHALF_OF_KEY = "daf-on-behalf-of"
"""For whom a service calls another. Nobody else is believed."""

EXEMPT = frozenset({"daf.training.v1.TrainingWorkerService", "daf.evaluation.v1.EvaluationWorkerService"})
"""Services whose every request carries the token of a workload, which they check themselves."""

READ_AGAIN_SECONDS = 1.0
"""How long a token that was added or taken away may go unnoticed."""

_PRINCIPAL = re.compile(r"[\w.@-]{1,100}", re.ASCII)
_TOKEN = re.compile(r"[!-~]+")


class Tokens:
    """The tokens that are good. Only their digests are kept in memory."""

    def __init__(self, directory: Path, clock: Clock, own: Callable[[], str] | None = None) -> None:
        """Reads the directory.

        Args:
            directory: a file for each principal.
            clock: says when to read again.
            own: the token that services send to each other, if they do.

        Raises:
            InvalidArgument: the directory cannot be used as it is.
        """
        self._directory, self._clock, self._own = directory, clock, own
        self._services = ""
        self._known, self._problems = self._read()
        self._read_at = clock.monotonic()
        if self._problems:
            raise InvalidArgument.field("DAF_TOKENS", "; ".join(self._problems))

    def principal(self, token: str) -> str:
        """Whose token this is; empty if nobody's."""
        self._refresh()
        digest = _digest(token)
        found = ""
        for principal, known in self._known.items():  # all of them, so that the time tells nothing
            if hmac.compare_digest(digest, known):
                found = principal
        return found

    def is_service(self, principal: str) -> bool:
        """Whether this is who the services are, and so whom one of them makes a call for may be believed."""
        if self._own is not None:
            # While the token is exchanged, this service's own may be known no longer, or not yet.
            self._services = self.principal(self._own()) or self._services
        return bool(principal) and principal == self._services

    def _refresh(self) -> None:
        """A mounted Secret changes under a running service: what is broken in it admits nobody, the rest is good."""
        now = self._clock.monotonic()
        if now - self._read_at < READ_AGAIN_SECONDS:
            return
        self._read_at = now
        before = self._problems
        self._known, self._problems = self._read()
        if self._problems and self._problems != before:
            log.error("DAF_TOKENS: %s", "; ".join(self._problems))

    def _read(self) -> tuple[dict[str, bytes], list[str]]:
        """The digests by principal, and what is wrong with the directory."""
        known: dict[str, bytes] = {}
        problems = []
        try:
            # Kubernetes keeps the versions of a Secret beside its files, in entries that begin with two dots.
            files = [path for path in sorted(self._directory.iterdir()) if path.name[0] != "." and not path.is_dir()]
        except OSError as error:
            return {}, [f"{self._directory} cannot be read ({error.strerror}): put a file for each principal there"]
        for path in files:
            problem = ""
            try:
                token = read_token(path)
            except InvalidArgument as error:
                problem = error.violations[0].message
            else:
                digest = _digest(token)
                if not _PRINCIPAL.fullmatch(path.name):
                    problem = f"{path.name!r} cannot name a principal: use letters, digits, - _ . and @"
                elif twin := next((name for name, other in known.items() if other == digest), ""):
                    problem = f"{twin} and {path.name} have the same token: make one for each"
            if problem:
                problems.append(problem)
            else:
                known[path.name] = digest
        if not files:
            problems.append(f"{self._directory} holds no token: put a file there for each principal, named after it")
        return known, problems


def read_token(path: Path) -> str:
    """The token that a file holds, without the white space around it.

    Raises:
        InvalidArgument: there is none.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidArgument.field("token_file", f"{path} cannot be read: {reason}") from None
    if not token:
        raise InvalidArgument.field("token_file", f"{path} is empty: write a token into it")
    return checked_token(token, str(path))


def checked_token(token: str, where: str) -> str:
    """A token that can be sent.

    Raises:
        InvalidArgument: it cannot; the message does not show it.
    """
    if not _TOKEN.fullmatch(token):
        raise InvalidArgument.field(
            "token", f"{where} holds no token: one is a line of ASCII characters without spaces"
        )
    return token


def create_tokens(settings: ServiceSettings, clock: Clock, own: Callable[[], str] | None = None) -> Tokens | None:
    """The tokens of a service by its settings; None if it asks for none. `own`: see `Tokens`.

    Raises:
        InvalidArgument: the tokens cannot be used.
        FailedPrecondition: others could reach the service without a token, and nothing says that they may.
    """
    if settings.tokens:
        if settings.allow_anonymous:
            raise InvalidArgument.field("DAF_ALLOW_ANONYMOUS", "is true although DAF_TOKENS is set: unset one of them")
        return Tokens(Path(settings.tokens), clock, own)
    if not is_local(settings.listen) and not settings.allow_anonymous:
        raise FailedPrecondition(
            f"whoever reaches {settings.listen} could do everything: set DAF_TOKENS to a directory with a token for "
            "each principal, or DAF_ALLOW_ANONYMOUS=true if that is meant",
            reason="TOKENS_MISSING",
        )
    return None


def authentication(tokens: Tokens | None) -> Callable[[Call], AbstractContextManager[None]]:
    """The step of a server that finds out who calls, and lets nobody else pass; without tokens, everybody."""

    @contextmanager
    def auth(call: Call) -> Iterator[None]:
        if tokens is None or call.method.split("/")[1] in EXEMPT:
            yield
            return
        principal = _principal(tokens, call.metadata.get(AUTHORIZATION_KEY, ""))
        asking = call.metadata.get(ON_BEHALF_OF_KEY, "")
        if _PRINCIPAL.fullmatch(asking) and tokens.is_service(principal):
            principal = asking
        before = PRINCIPAL.set(principal)
        try:
            yield
        finally:
            PRINCIPAL.reset(before)

    return auth


def on_behalf_of(principal: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call that a service makes for somebody; for nobody in particular if empty."""
    return ((ON_BEHALF_OF_KEY, principal),) if principal else ()


def _principal(tokens: Tokens, header: str) -> str:
    scheme, _, token = header.partition(" ")
    how = "give it with `daf context add NAME ADDRESS --token-file FILE`, or in DAF_ACCESS_TOKEN"
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated(f"this installation asks for a token, and none was sent: {how}", reason="TOKEN_MISSING")
    if not (principal := tokens.principal(token.strip())):
        raise Unauthenticated(
            f"this installation does not know the token that was sent, which may have been replaced: get one and {how}",
            reason="TOKEN_UNKNOWN",
        )
    return principal


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
