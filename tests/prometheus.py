"""A real Prometheus for tests: Debian's package, started here with what it is to scrape."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_port

MISSING = "NO PROMETHEUS: nothing is scraped; scripts/install-test-tools.sh installs it"


def require_prometheus() -> None:
    """Skips the test where there is none."""
    if not shutil.which("prometheus") or not shutil.which("promtool"):
        pytest.skip(MISSING)


class Prometheus:
    """A server that answers."""

    def __init__(self, address: str) -> None:
        self._http = httpx.Client(base_url=address, timeout=30)

    def is_ready(self) -> bool:
        """Whether it serves."""
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The labels and values of an instant query, which has to be a valid one."""
        answer = self._http.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        return [(found["metric"], float(found["value"][1])) for found in answer["data"]["result"]]

    def value(self, expression: str) -> float | None:
        """The value of a query with at most one answer; None without one."""
        found = self.query(expression)
        assert len(found) <= 1, (expression, found)
        return found[0][1] if found else None

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes."""
        return list(self._http.get("/api/v1/targets?state=active").json()["data"]["activeTargets"])

    def until(self, expression: str, at_least: float, seconds: float = 120.0) -> float:
        """Waits until a query has a value that is at least so large."""
        end = time.monotonic() + seconds
        while (seen := self.value(expression)) is None or seen < at_least:
            assert time.monotonic() < end, f"{expression} is {seen}, not at least {at_least}; targets: {self.targets()}"
            time.sleep(0.2)
        return seen

    def close(self) -> None:
        """Ends the connections to it."""
        self._http.close()


@contextmanager
def running_prometheus(
    directory: Path, scrape_configs: Sequence[dict[str, Any]], interval: str = "1s"
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes so often, and waits as long for an answer. JSON is YAML, so its configuration is
    written as that."""
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "prometheus.json"
    configuration.write_text(
        json.dumps({"global": {"scrape_interval": interval}, "scrape_configs": list(scrape_configs)})
    )
    subprocess.run(["promtool", "check", "config", configuration], check=True)
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={configuration}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "prometheus.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        try:
            end = time.monotonic() + 60
            while not prometheus.is_ready():
                assert process.poll() is None, (directory / "prometheus.log").read_text()
                assert time.monotonic() < end, "Prometheus does not become ready"
                time.sleep(0.1)
            yield prometheus
        finally:
            prometheus.close()
            process.terminate()
            process.wait(30)
