"""Which modules a user's code imports before anything else: found by reading it, without running it."""

from __future__ import annotations

import ast
import io
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from daf_common.errors import InvalidArgument


@dataclass(frozen=True)
class MissingModule:
    """An import that finds nothing."""

    module: str
    """The top-level module."""
    file: str
    """Where it is imported, within the archive."""
    line: int


def missing_modules(archive: bytes, class_path: str, available: Iterable[str]) -> list[MissingModule]:
    """Modules that importing a class needs and nobody has, the first import of each.

    Only imports that always run count: at the top of a module, and not within `try`, `if` or a function. The modules
    are those of the archive that the class's own module imports, directly or not.

    Args:
        archive: the user's code, packed.
        class_path: the class.
        available: top-level modules that are there beside the standard library and the archive's own.

    Raises:
        InvalidArgument: a module is not Python.
    """
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        files = {name: source.read(name) for name in source.namelist() if name.endswith(".py")}
    own = {name.partition("/")[0].removesuffix(".py") for name in files}
    known = {*sys.stdlib_module_names, *available, *own}
    missing: dict[str, MissingModule] = {}
    seen: set[str] = set()
    waiting = _files_of(class_path.rpartition(".")[0], files)
    while waiting:
        file = waiting.pop(0)
        if file in seen:
            continue
        seen.add(file)
        for module, line in _imports(files[file], file):
            top = module.partition(".")[0]
            if top in own:
                waiting += _files_of(module, files)
            elif top not in known:
                missing.setdefault(top, MissingModule(top, file, line))
    return list(missing.values())


def _imports(content: bytes, file: str) -> Iterator[tuple[str, int]]:
    """Modules that a file imports whenever it is imported, with the lines."""
    try:
        body = ast.parse(content, filename=file).body
    except (SyntaxError, ValueError) as error:
        raise InvalidArgument.field("code", f"{file} is not Python: {error}") from error
    package = file.removesuffix(".py").split("/")[:-1]
    for node in body:
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            if module:
                yield module, node.lineno
            for name in node.names:  # each may be a module of its own
                if node.level:
                    yield ".".join([*above, *([node.module] if node.module else []), name.name]), node.lineno
                elif module:
                    yield f"{module}.{name.name}", node.lineno


def _files_of(module: str, files: Iterable[str]) -> list[str]:
    """The files that importing a module runs: its packages' and its own."""
    parts = module.split(".")
    prefixes = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return [file for prefix in prefixes for file in (f"{prefix}/__init__.py", f"{prefix}.py") if file in files]
