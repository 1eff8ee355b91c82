"""The images under test: those that DAF_TEST_IMAGES names. `make test-images` builds them and says their names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent

SERVICES = ("scheduler", "training", "evaluation", "statistics", "deployment")
WITH_PYTHON = (*SERVICES, "runner", "standalone")
ALL = (*WITH_PYTHON, "gateway")

AS_IN_A_POD = ("--read-only", "--tmpfs=/tmp", "--tmpfs=/work:uid=10001,gid=10001", "--cap-drop=ALL", "--network=none")
"""What pods of the chart are allowed to, and no network."""


def image(name: str) -> str:
    """The image of a service or program; without one, or without a Docker engine, the test is skipped."""
    named = os.environ.get("DAF_TEST_IMAGES", "").split()
    found = [one for one in named if one.rpartition(":")[0].rpartition("/")[2] == f"daf-{name}"]
    if not found:
        pytest.skip(f"NO IMAGES: DAF_TEST_IMAGES names none of daf-{name}; `make test-images` does")
    if not shutil.which("docker") or docker("version", check=False).returncode:
        pytest.skip("NO DOCKER: no engine answers, so no image is started")
    return found[0]


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs docker; where it fails, the test does, with what it said, unless `check` is false."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    command = ["docker", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done


def inspect(name: str) -> Any:
    """What docker knows of an image."""
    return json.loads(docker("image", "inspect", name).stdout)[0]


def run(
    name: str, *arguments: str, options: Sequence[str] = (), check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Starts what an image starts, with arguments, and waits for its end."""
    return docker("run", "--rm", *AS_IN_A_POD, *options, image(name), *arguments, check=check)


def python(name: str, program: str) -> str:
    """What a Python program prints in an image."""
    options = ("--entrypoint=/opt/venv/bin/python",)
    return run(name, "-c", program, options=options).stdout.strip()
