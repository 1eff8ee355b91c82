"""A user's own missions, as far as they can be judged without opening their files, which only workers do."""

from __future__ import annotations

import re
from collections.abc import Sequence

PICKLE_SUFFIX = ".pickle"
SUFFIXES = (".yaml", ".yml", ".json", ".py", PICKLE_SUFFIX)
"""Endings of the files that may hold a mission: those that cogames reads, and a config made in Python."""

MAX_NAME = 200
_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_SAYS_ITSELF = "a mission of your own says this itself: change its file"


def path_problem(name: str) -> str:
    """Why a name is none that cogames may see: it would open a path, and run a `.py`. Empty if it is no such name."""
    if any(sign in name for sign in "/\\*") or name.strip().lower().endswith(SUFFIXES):
        return f"{name[:80]!r} is no name but a path or a pattern: name one mission, and send its file along"
    return ""


def own_mission_problems(
    name: str,
    variants: Sequence[str] = (),
    cogs: int | None = None,
    max_steps: int | None = None,
    difficulty: str | None = None,
) -> list[tuple[str, str]]:
    """Everything that is wrong with what is asked of a user's own mission: the field of `Mission`, and a message.

    cogames applies nothing but another length to a file; what it would ignore is refused.
    """
    problems = []
    if message := path_problem(name):
        problems.append(("name", message))
    elif len(name) > MAX_NAME or not _NAME.fullmatch(name):
        message = f"{name[:80]!r} cannot name a mission: use at most {MAX_NAME} letters, digits, '.', '_' and '-'"
        problems.append(("name", message))
    given = {"variants[0]": variants, "cogs": cogs is not None, "difficulty": difficulty is not None}
    problems += [(field, _SAYS_ITSELF) for field, value in given.items() if value]
    if max_steps is not None and max_steps < 1:
        problems.append(("max_steps", f"max_steps must be at least 1, not {max_steps}"))
    return problems
