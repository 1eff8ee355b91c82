"""Why an installation cannot be reached: gRPC says little, so the way is gone once more, step by step."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from typing import Any

from daf.client import Client
from daf.endpoint import Endpoint
from daf_common.errors import PermissionDenied, Unauthenticated
from daf_protos.scheduler.v1.scheduler_service_pb2 import ListSweepsRequest

_SECONDS = 5.0
_EXPIRED, _NOT_YET_VALID = 10, 9
_OTHER_NAME = {62, 64}  # of a host, of an IP address; all as OpenSSL's X509_V_ERR_*


def why_unreachable(endpoint: Endpoint, said: str = "") -> str:
    """One sentence: what is wrong with the way to an installation, and what to do.

    Args:
        endpoint: what could not be reached.
        said: what gRPC said.
    """
    address = endpoint.address
    place = endpoint.host_and_port
    if place is None:
        return f"nothing answers at {address}"
    try:
        with socket.create_connection(place, timeout=_SECONDS) as connection:
            return _secure(endpoint, connection, said) if endpoint.tls else _plain(endpoint, connection)
    except socket.gaierror:
        return f"nothing answers at {address}: this machine knows no host {place[0]}; is the address right?"
    except OSError as error:
        return f"nothing answers at {address}: {error.strerror or error}; is the address right?"


def why_refused(endpoint: Endpoint) -> str:
    """Why an installation that answers refuses whoever calls; empty if it does not. Raises `DafError` if it does not
    answer."""
    with Client(endpoint) as client:
        try:
            client.scheduler.ListSweeps(ListSweepsRequest(page_size=1))
        except (Unauthenticated, PermissionDenied) as error:
            return error.message
    return ""


def _plain(endpoint: Endpoint, connection: socket.socket) -> str:
    try:
        _trusting().wrap_socket(connection, server_hostname=None).close()
    except OSError:
        return f"what answers at {endpoint.address} does not speak gRPC: is the port right?"
    host, port = endpoint.target.rpartition(":")[::2]
    return f"{endpoint.address} is encrypted: its address is https://{host}:{port}"


def _secure(endpoint: Endpoint, connection: socket.socket, said: str) -> str:
    address = endpoint.address
    name = endpoint.server_name or (endpoint.host_and_port or ("", 0))[0]
    try:
        context = ssl.create_default_context(cadata=endpoint.ca or None)
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(connection, server_hostname=name) as secured:
            protocol = secured.selected_alpn_protocol()
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of {address} {_rejected(endpoint, name, error)}"
    except (ssl.SSLError, ConnectionError) as error:
        target = endpoint.target
        if isinstance(error, ssl.SSLError) and error.reason not in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return f"no encrypted connection to {address} comes about ({error.reason or error}); is the port right?"
        return f"what answers at {address} is not encrypted: if that is meant, its address is http://{target}"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            f"gRPC does not know who signed the certificate of {address}, though this machine does: give it with --ca"
        )
    if protocol != "h2":
        return f"what answers at {address} does not speak gRPC: is the port right?"
    return (
        f"{address} answers, but no call came through ({said})"
        if said
        else f"{address} answers, but does not serve: its services may still be starting"
    )


def _rejected(endpoint: Endpoint, name: str, error: ssl.SSLCertVerificationError) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return "has expired: whoever runs it has to renew it (or the clock of this machine is wrong)"
    if code == _NOT_YET_VALID:
        return "is not valid yet: is the clock of this machine right?"
    if code in _OTHER_NAME:
        names = ", ".join(_names(endpoint)) or "another name"
        return f"is for {names}, not for {name}: use that address, or give the name with --server-name"
    trusted = "by what --ca (or DAF_CA_FILE) gave" if endpoint.ca else "by a public authority"
    return f"is not signed {trusted}: give the certificate of its authority with --ca FILE"


def _names(endpoint: Endpoint) -> list[str]:
    """The names in a certificate that is signed as it should be."""
    context = ssl.create_default_context(cadata=endpoint.ca or None)
    context.check_hostname = False
    try:
        with (
            socket.create_connection(endpoint.host_and_port or ("", 0), timeout=_SECONDS) as connection,
            context.wrap_socket(connection) as secured,
        ):
            certificate: Mapping[str, Any] = secured.getpeercert() or {}
    except OSError:
        return []
    return [name for _, name in certificate.get("subjectAltName", ())]


def _trusting() -> ssl.SSLContext:
    """For finding out whether there is TLS at all; nothing is sent."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
