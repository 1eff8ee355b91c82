"""A user's own code: an archive of modules, unpacked once by its digest and put on the import path.

The packages that it needs beside those of the runner come after it on the path; see `daf_cogames.wheels`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from daf_common.archives import digest_of, unpack


def unpack_code(archive: Path, sha256: str, cache: Path) -> Path:
    """The directory `cache/<sha256>` with the archive's content, unpacked if it is not there yet.

    Whole or absent, also when several processes unpack at once or one is killed. Raises
    daf_common.archives.ArchiveError, also where the archive's bytes do not have this digest.
    """
    return made_once(cache / sha256, archive, lambda content: unpack(archive, content))


def made_once(directory: Path, archive: Path, make: Callable[[Path], None]) -> Path:
    """A directory made of an archive if it is not there yet; its name is the archive's digest.

    Whole or absent, also when several processes make it at once or one is killed. Raises
    daf_common.archives.ArchiveError where the archive's bytes do not have this digest, and what making it raises.
    """
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    digest_of(archive, expected=directory.name)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="unpacking-") as scratch:
        content = Path(scratch) / "content"
        make(content)
        try:
            os.rename(content, directory)
        except OSError:
            if not directory.is_dir():  # else another process was faster, with the same bytes
                raise
    return directory


@contextlib.contextmanager
def on_path(*directories: Path) -> Iterator[None]:
    """Make the modules in these directories importable; afterwards forget them, so that other code can follow.

    The directories come last on the path: a user's module never takes the place of an installed one. Raises ImportError
    where two directories have a module of the same name, since one process can import only one of them.
    """
    unique = list(dict.fromkeys(directory.resolve() for directory in directories))
    _check_distinct(unique)
    with last_on_path(unique):
        yield


@contextlib.contextmanager
def last_on_path(directories: Sequence[Path]) -> Iterator[None]:
    """Append directories, which are resolved, to the import path; afterwards forget what was imported from them."""
    entries = [str(directory) for directory in directories]
    sys.path.extend(entries)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for entry in entries:
            sys.path.remove(entry)
        for name, module in list(sys.modules.items()):
            if _comes_from(getattr(module, "__file__", None), directories):
                del sys.modules[name]


def shadowed_module(class_path: str, directory: Path) -> str | None:
    """What is imported instead of the user's own top module of this class path, or None where it is the user's.

    None also where the directory has no such module: the class is then meant to come from an installed package.
    """
    name = class_path.partition(".")[0]
    if name not in module_names(directory):
        return None
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module that was put into sys.modules without a spec
        spec = None
    origin = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or []), None)
    if _comes_from(origin, [directory.resolve()]):
        return None
    return f"an installed module ({origin})" if origin else "a built-in module"


def module_names(directory: Path) -> set[str]:
    """The top-level modules and packages of a directory."""
    return {
        entry.stem if entry.is_file() else entry.name
        for entry in directory.iterdir()
        if entry.suffix == ".py" or (entry.is_dir() and entry.name.isidentifier() and entry.name != "__pycache__")
    }


def _check_distinct(directories: list[Path]) -> None:
    owners: dict[str, Path] = {}
    for directory in directories:
        for name in module_names(directory):
            if name in owners:
                raise ImportError(f"two code archives both have a module {name!r}; rename one of them")
            owners[name] = directory


def _comes_from(file: str | None, directories: Sequence[Path]) -> bool:
    return file is not None and any(Path(file).resolve().is_relative_to(directory) for directory in directories)
