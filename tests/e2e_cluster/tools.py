"""The programs that an operator uses, helm and kubectl; and SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run(*command: str, stdin: str = "", check: bool = True, seconds: float = 600) -> str:
    """Runs a program; returns what it printed.

    Raises:
        AssertionError: it failed; shows what it said.
    """
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0 or not check, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def kubectl(namespace: str, *arguments: str, stdin: str = "", check: bool = True) -> str:
    """Runs kubectl in a namespace."""
    return run("kubectl", "--namespace", namespace, *arguments, stdin=stdin, check=check)


def items(namespace: str, kind: str, selector: str = "") -> list[dict[str, Any]]:
    """Objects of a namespace."""
    chosen = ("--selector", selector) if selector else ()
    return list(json.loads(kubectl(namespace, "get", kind, *chosen, "--output", "json"))["items"])


def running_pods(namespace: str, service: str) -> list[str]:
    """The names of a service's workers that run."""
    pods = items(namespace, "pods", f"daf/service={service}")
    return sorted(pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running")


def wait_until(what: Callable[[], bool], described: str, seconds: float = 180) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"after {seconds:g} s it is still not so: {described}"
        time.sleep(0.5)


def freeze(pod: str) -> bool:
    """Stops a pod's processes without ending them, as when their machine stands still. False: they run elsewhere."""
    processes = _processes_of(pod)
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    return bool(processes)


def thaw(pod: str) -> None:
    """Lets them go on."""
    for process in _processes_of(pod):
        os.kill(process, signal.SIGCONT)


def kill(namespace: str, pod: str) -> None:
    """Ends a pod's processes by SIGKILL where this machine runs them; elsewhere the pod is deleted by force."""
    processes = _processes_of(pod)
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if not processes:
        kubectl(namespace, "delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")


def _processes_of(pod: str) -> list[int]:
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                variables = (directory / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"HOSTNAME={pod}".encode() in variables:
                found.append(int(directory.name))
    return found
