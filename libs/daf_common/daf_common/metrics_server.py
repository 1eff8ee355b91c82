"""The port for Prometheus and for probes, apart from that of the calls."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

_EVERYWHERE = {"0.0.0.0", "::", ""}

_SLOWEST_SECONDS = 10.0
"""After so long without a word from it, a client is cut off."""


class _DualStackServer(ThreadingHTTPServer):
    """Listens to IPv6 and IPv4."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class MetricsServer:
    """Serves /metrics for Prometheus and /healthz for probes, in threads of its own.

    Nothing that is served here waits for the event loop or for a database, so it answers when those are stuck.
    """

    def __init__(self, port: int, healthy: Callable[[], bool], host: str = "127.0.0.1") -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = _SLOWEST_SECONDS

            def do_GET(self) -> None:
                match self.path.partition("?")[0]:
                    case "/metrics":
                        self._answer(200, generate_latest(), CONTENT_TYPE_LATEST)
                    case "/healthz":
                        ok = healthy()
                        self._answer(200 if ok else 503, b"ok\n" if ok else b"not serving\n", "text/plain")
                    case _:
                        self._answer(404, b"/metrics or /healthz\n", "text/plain")

            def _answer(self, status: int, body: bytes, media_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                logging.getLogger(__name__).debug(format, *args)

        if host in _EVERYWHERE and socket.has_dualstack_ipv6():  # as gRPC understands it
            self._server: ThreadingHTTPServer = _DualStackServer(("::", port), Handler)
        else:
            self._server = ThreadingHTTPServer((host, port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), name="metrics", daemon=True)

    def start(self) -> None:
        """Begins to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()
