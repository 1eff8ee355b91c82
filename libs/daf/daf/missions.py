"""Missions as users name them: by name, by pattern, by set, or as a file of their own."""

from __future__ import annotations

import ast
import hashlib
import json
import pickle
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ruamel.yaml
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from daf.documents import nearest
from daf.home import home
from daf.references import MissionConfig
from daf_common.archives import ArchiveError, pack
from daf_common.errors import InvalidArgument
from daf_protos.training.v1.catalog_service_pb2 import MissionInfo

FILE_SUFFIXES = (".yaml", ".yml", ".json", ".py", ".pickle")
"""Endings of a file with a mission: those that CoGames reads, and what `pack_config` writes."""


SETS = ("all", "cogsguard_evals", "diagnostic_evals", "integrated_evals", "spanning_evals")
"""CoGames' sets of missions."""


def stands_for_several(mission: str) -> bool:
    """Whether this is a pattern (`cogsguard_*`) or a set (`diagnostic_evals`) and no mission's name."""
    return "*" in mission or mission in SETS


def check_set(name: str) -> str:
    """The name of a set. Raises InvalidArgument where there is no such set."""
    if name not in SETS:
        hint = nearest(name, SETS) or f" (known: {', '.join(SETS)})"
        raise InvalidArgument.field("--mission-set/-S", f"there is no mission set {name[:80]!r}{hint}")
    return name


def is_file(mission: str) -> bool:
    """Whether a mission is named by a file of the user's own."""
    return mission.lower().endswith(FILE_SUFFIXES)


@dataclass(frozen=True)
class OwnMission:
    """A mission of the user's own, packed.

    name: what tables call it, made of the file's name; archive: a zip with the file and nothing else.
    """

    name: str
    archive: bytes

    @classmethod
    def of(cls, path: Path, field: str) -> OwnMission:
        """Packs a file. Its syntax is looked at; what it holds, only a worker sees, for a `.py` has to be run.

        Raises:
            InvalidArgument: it is not there or not readable; names the field, and where it can, the line.
        """
        try:
            content = path.read_bytes()
            if problem := _syntax_problem(path, content):
                raise InvalidArgument.field(field, problem)
            return cls(_label(path.stem), pack([path]))
        except OSError as error:
            raise InvalidArgument.field(field, f"cannot read the mission {path}: {error.strerror}") from error
        except ArchiveError as error:
            raise InvalidArgument.field(field, str(error)) from error


def pack_config(config: object, name: str = "config") -> MissionConfig:
    """A `MettaGridConfig` made in Python, as a mission that documents can name.

    It is written to a file of the cache under `DAF_HOME`, pickled, for it does not survive JSON. Only workers open it.

    Args:
        config: the configuration.
        name: what tables call it.

    Raises:
        InvalidArgument: it is no such object, or cannot be pickled.
    """
    if not any(kind.__name__ == "MettaGridConfig" for kind in type(config).__mro__):
        raise InvalidArgument.field("env_cfg", f"is a {type(config).__name__} and no MettaGridConfig")
    try:
        content = pickle.dumps(config, protocol=5)
    except Exception as error:  # whatever the objects in it raise
        raise InvalidArgument.field("env_cfg", f"cannot be pickled: {error}") from error
    directory = home() / "cache" / "missions" / hashlib.sha256(content).hexdigest()[:16]
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{_label(name)}.pickle"
    with tempfile.NamedTemporaryFile(dir=directory, delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)
    return MissionConfig(mission=str(path))


def given_mission(mission: object, index: int) -> object:
    """A mission of a Python call as documents have it. Pairs of a name and a configuration are what CoGames' own
    functions take.

    Raises:
        InvalidArgument: it is none; names it by its index.
    """
    match mission:
        case str() | MissionConfig():
            return mission
        case Mapping():
            return dict(mission)
        case (str() as name, config):
            return pack_config(config, name)
    raise InvalidArgument.field(f"missions[{index}]", "is neither a name nor a mapping nor a pair of name and config")


def expand(config: MissionConfig, known: Sequence[MissionInfo], field: str) -> Iterator[MissionConfig]:
    """The missions that a pattern or a set stands for, each with the same changes.

    As CoGames has it, a pattern fits a name that contains it. Missions that never build are left out.

    Raises:
        InvalidArgument: nothing fits; names the field.
    """
    wanted = config.mission
    fits = re.compile(".*".join(map(re.escape, wanted.split("*"))))
    found = [
        mission.name
        for mission in known
        if not mission.problem and (wanted in mission.sets if wanted in SETS else fits.search(mission.name))
    ]
    if not found:
        hint = nearest(wanted.replace("*", ""), [mission.name for mission in known])
        raise InvalidArgument.field(field, f"no mission fits {wanted[:80]!r}{hint}: see `daf missions`")
    for name in found:
        yield config.model_copy(update={"mission": name}, deep=True)


def _label(stem: str) -> str:
    """A name that no mission of CoGames has, for those have a dot."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:100] or "mission"


def _syntax_problem(path: Path, content: bytes) -> str:
    """What is wrong with the syntax of a file, with the line; empty if nothing is."""
    try:
        match path.suffix.lower():
            case ".py":
                ast.parse(content, filename=path.name)
            case ".json":
                json.loads(content)
            case ".yaml" | ".yml":
                for _ in ruamel.yaml.YAML(typ="safe", pure=True).parse(content):
                    pass
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        return f"{path}{line}: {error.problem or error.context}"
    except json.JSONDecodeError as error:
        return f"{path}:{error.lineno}: {error.msg}"
    except SyntaxError as error:
        return f"{path}:{error.lineno}: {error.msg}"
    except (YAMLError, ValueError, RecursionError) as error:
        return f"{path}: cannot be read: {' '.join(str(error).split())[:200]}"
    return ""
