"""A user's own mission: a file that cogames reads, or a pickled config. Only workers open one: both can run code."""

from __future__ import annotations

import pickle
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from daf_cogames.code import unpack_code
from daf_cogames.missions import MissionError
from daf_cogames.own_missions import PICKLE_SUFFIX, SUFFIXES
from daf_common.archives import ArchiveError

if TYPE_CHECKING:
    from mettagrid import MettaGridConfig

SHOWN_PROBLEMS = 5


def unpack_mission(archive: Path, sha256: str, cache: Path) -> Path:
    """The one file of an archive, unpacked under `cache/<sha256>`. Raises MissionError."""
    try:
        # Not deeper: Python leaves a directory with byte code beside a `.py` that was imported.
        files = [path for path in unpack_code(archive, sha256, cache).iterdir() if path.is_file()]
    except ArchiveError as error:
        raise MissionError("file", f"the archive of the mission cannot be used: {error}") from error
    if len(files) != 1 or files[0].suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise MissionError("file", f"the archive of a mission holds exactly one file, with one of the endings {known}")
    return files[0]


def read_mission(path: Path) -> MettaGridConfig:
    """The environment that a file describes. Raises MissionError, whatever the file or its code does.

    The message names the file, without its directory, and where it can, the line.
    """
    from cogames.cli.mission import get_mission
    from mettagrid import MettaGridConfig

    try:
        if path.suffix == PICKLE_SUFFIX:
            config = pickle.loads(path.read_bytes())
        else:
            _, config, _ = get_mission(str(path))
    except (Exception, SystemExit) as error:
        raise MissionError("file", _explained(path, error)) from error
    finally:
        sys.modules.pop("game_config", None)  # under this name cogames imports a `.py`, and leaves it after an error
    if not isinstance(config, MettaGridConfig):
        raise MissionError("file", f"{path.name}: holds a {type(config).__name__} and not a MettaGridConfig")
    return config


def _explained(path: Path, error: BaseException) -> str:
    """What is wrong with a file, for the person who wrote it."""
    if mark := getattr(error, "problem_mark", None):  # of YAML's errors
        return f"{path.name}:{mark.line + 1}: {getattr(error, 'problem', '')}"
    if isinstance(error, ValidationError):
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        shown = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in problems[:SHOWN_PROBLEMS]]
        more = [f"and {len(problems) - len(shown)} more"] if len(problems) > len(shown) else []
        return f"{path.name}: {'; '.join([*shown, *more])}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines = [error.lineno]
    where = f"{path.name}:{lines[-1]}" if lines else path.name
    said = " ".join("".join(traceback.format_exception_only(error)).split())
    return f"{where}: {said.replace(str(path), path.name)[:500]}"
