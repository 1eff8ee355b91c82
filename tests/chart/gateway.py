"""The gateway as the chart configures it, with a real nginx on this machine and a name server that tests can change."""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chart.rendering import Rendered
from tests.ports import free_port

DOMAIN = "team.svc.cluster.local"


class Names:
    """A name server; it knows the addresses that it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self.asked: set[str] = set()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Answers no more."""
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                query, client = self._socket.recvfrom(512)
            except OSError:
                return
            labels, position = [], 12
            while length := query[position]:
                labels.append(query[position + 1 : position + 1 + length].decode())
                position += 1 + length
            name, (kind,) = ".".join(labels), struct.unpack("!H", query[position + 1 : position + 3])
            self.asked.add(name)
            address = self.addresses.get(name) if kind == 1 else None
            answers = (
                b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04" + socket.inet_aton(address) if address else b""
            )
            code = 0 if name in self.addresses else 3
            head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, 1 if answers else 0, 0, 0)
            self._socket.sendto(head + query[12 : position + 5] + answers, client)


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs."""

    port: int
    health_port: int
    directory: Path
    names: Names
    log: Path

    @property
    def ca(self) -> str:
        """The certificate of the authority that signed the gateway's."""
        return (self.directory / "tls" / "ca.crt").read_text()

    def write_certificate(self, rendered: Rendered) -> None:
        """Puts the certificate of a release where the gateway reads it."""
        data = rendered.one("Secret", "daf-gateway-tls")["data"]
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (self.directory / "tls" / name).write_bytes(base64.b64decode(data[name]))


@contextmanager
def running_gateway(rendered: Rendered, directory: Path, service_port: int) -> Iterator[Gateway]:
    """Runs nginx with the configuration of a release, but for ports and directories."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("NO NGINX: the gateway is not tested; put nginx (1.22 or newer) on the PATH")
    for name in ("run", "tls", "tmp"):
        (directory / name).mkdir(parents=True)
    gateway = Gateway(free_port(), free_port(), directory, Names(), directory / "errors.log")
    if rendered.of("Secret").get("daf-gateway-tls"):
        gateway.write_certificate(rendered)
    resolver = f"resolver 127.0.0.1:{gateway.names.port} valid=1s;\nmap $host $domain {{ default {DOMAIN}; }}\n"
    (directory / "run" / "resolver.conf").write_text(resolver)
    text = rendered.one("ConfigMap", "daf-gateway")["data"]["nginx.conf"]
    places = {
        "listen 8443": f"listen 127.0.0.1:{gateway.port}",
        "listen 8080": f"listen 127.0.0.1:{gateway.port}",
        "listen 8081": f"listen 127.0.0.1:{gateway.health_port}",
        "$domain:50051": f"$domain:{service_port}",
        "/run/daf/": f"{directory}/run/",
        "/etc/daf/tls": f"{directory}/tls",
        " /tmp/": f" {directory}/tmp/",
        "/dev/stderr": str(gateway.log),
        "/dev/stdout": str(directory / "calls.log"),
    }
    text = rendered.one("ConfigMap", "daf-gateway")["data"]["nginx.conf"]
    text = re.sub("|".join(map(re.escape, places)), lambda match: places[match[0]], text)
    user = "user root;\n" if os.geteuid() == 0 else ""  # else its workers were of another user, as in no pod
    (directory / "nginx.conf").write_text(user + text)
    command = [nginx, "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", str(gateway.log)]
    process = subprocess.Popen(command)
    try:
        _await_listening(gateway.health_port, process)
        yield gateway
    finally:
        process.terminate()
        process.wait(30)
        gateway.names.close()


def _await_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    while True:
        assert process.poll() is None, "nginx refused its configuration"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=30).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
