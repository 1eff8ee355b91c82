"""How an installation is reached: its address, and what proves who calls whom."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from daf_common.addresses import is_local
from daf_common.auth import checked_token
from daf_common.credentials import Tls
from daf_common.errors import InvalidArgument

_ADDRESS = re.compile(r"(?:(?P<scheme>https?)://)?(?P<host>[\w.-]+|\[[0-9a-fA-F:.]+\])(?::(?P<port>\d{1,5}))?/?")
_PORTS = {"https": 443, "http": 80}
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Endpoint:
    """An installation and the way there.

    Raises:
        InvalidArgument: a field cannot be, or would not have the effect that it promises.
    """

    address: str
    """`unix:PATH`; `https://HOST:PORT` or, for short, `HOST:PORT`, which are encrypted; `http://HOST:PORT`, which is
    not."""
    token: str = field(default="", repr=False)
    """The bearer token that calls are made with; empty where none is asked for."""
    ca: str = field(default="", repr=False)
    """Certificates, as PEM, of the authorities that sign the installation's; empty: public ones."""
    server_name: str = ""
    """The name that its certificate is for, where the address has another one; empty: that of the address."""

    def __post_init__(self) -> None:
        target = self.target  # an address that cannot be is refused first
        if self.token:
            checked_token(self.token, "what was given")
        if self.token and self.tls is None and not is_local(target):
            raise InvalidArgument.field("token", f"could be read by anyone on the way to {self.address}: use https://")
        for name, value in (("ca", self.ca), ("server_name", self.server_name)):
            if value and self.tls is None:
                raise InvalidArgument.field(
                    name, f"has no effect on {self.address}, which is not encrypted: leave it out"
                )

    @property
    def target(self) -> str:
        """The address as gRPC reads it."""
        scheme, host, port = self._parts()
        return host if scheme == "unix" else f"{host}:{port}"

    @property
    def tls(self) -> Tls | None:
        """How the installation proves itself; None where it does not."""
        return Tls(self.ca, self.server_name) if self._parts()[0] == "https" else None

    @property
    def host_and_port(self) -> tuple[str, int] | None:
        """Where to connect to; None for a unix socket."""
        scheme, host, port = self._parts()
        return None if scheme == "unix" else (host.strip("[]"), port)

    def _parts(self) -> tuple[str, str, int]:
        if self.address.startswith("unix:") and len(self.address) > len("unix:"):
            return "unix", self.address, 0
        match = _ADDRESS.fullmatch(self.address)
        scheme = match["scheme"] if match else None
        if match is None or (scheme is None and match["port"] is None):
            raise InvalidArgument.field(
                "address", f"{self.address!r} is none of https://HOST:PORT, HOST:PORT, http://HOST:PORT and unix:PATH"
            )
        port = int(match["port"] or _PORTS[scheme or "https"])
        if not 0 < port < 65536:
            raise InvalidArgument.field("address", f"{self.address!r} has no port from 1 to 65535")
        return scheme or "https", match["host"], port


def read_certificates(path: Path) -> str:
    """The certificates of a PEM file; a private key beside them is left out.

    Raises:
        InvalidArgument: there are none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) else "it is no text; certificates in DER have to become PEM"
        )
        raise InvalidArgument.field("ca", f"{path} cannot be read: {reason}") from None
    if not (found := _CERTIFICATE.findall(text)):
        raise InvalidArgument.field("ca", f"{path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")
    return "\n".join(found) + "\n"
