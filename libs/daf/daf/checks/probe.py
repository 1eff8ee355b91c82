"""Questions to the Python environment that runs workers on this machine.

They are answered by a process of its own (`daf_cogames.probe`): this package imports neither torch nor CoGames.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

NO_RUNNER = "not looked at: no runner is installed here, so experiments run on another installation"

_SECONDS = 180.0


class ProbeError(RuntimeError):
    """There was no answer; the message says why."""


def has_runner() -> bool:
    """Whether workers can run here."""
    return all(importlib.util.find_spec(package) is not None for package in ("daf_cogames", "cogames", "torch"))


def ask(subject: str, question: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The answer to one question.

    Args:
        subject: what it is about, as `daf_cogames.probe` names it.
        question: what the subject needs to know.

    Raises:
        ProbeError: no answer was found.
    """
    command = [sys.executable, "-P", "-m", "daf_cogames.probe"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps({subject: question or {}}),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProbeError(f"there was no answer within {_SECONDS:.0f} s") from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout)[subject]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        raise ProbeError(last[:500]) from None
    if problem := answer.get("problem"):
        raise ProbeError(problem)
    return answer
