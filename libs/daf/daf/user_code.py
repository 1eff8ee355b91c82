"""A user's own code: packed into an archive, and looked into without running it."""

from __future__ import annotations

import ast
import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from daf.documents import Scalar
from daf_common.archives import ArchiveError, pack
from daf_common.errors import InvalidArgument

MEDIA_TYPE = "application/zip"

_GIVEN_BY_COGAMES = frozenset({"self", "policy_env_info", "device"})


@dataclass(frozen=True)
class UserCode:
    """An archive of Python modules, its bytes a function of their content alone."""

    archive: bytes

    @classmethod
    def of(cls, paths: Iterable[Path]) -> UserCode:
        """Packs files and folders.

        Raises:
            InvalidArgument: one is not there or cannot be packed.
        """
        try:
            return cls(pack(paths))
        except (ArchiveError, OSError) as error:
            raise InvalidArgument.field("code", str(error)) from error

    def has(self, class_path: str) -> bool:
        """Whether the module of a class is in the archive."""
        return self._module(class_path) is not None

    def constructor_arguments(self, class_path: str) -> tuple[str, ...] | None:
        """The arguments that a class's constructor names; None where its source does not tell, as where it inherits
        its constructor.

        Raises:
            InvalidArgument: the module is not Python.
        """
        constructor = self._constructor(class_path)
        if constructor is None:
            return None
        named = [*constructor.posonlyargs, *constructor.args, *constructor.kwonlyargs]
        return tuple(argument.arg for argument in named if argument.arg not in _GIVEN_BY_COGAMES)

    def constructor_defaults(self, class_path: str) -> dict[str, Scalar]:
        """The defaults of these arguments that are written out as a number, a text, true or false."""
        constructor = self._constructor(class_path)
        if constructor is None:
            return {}
        positional = [*constructor.posonlyargs, *constructor.args]
        given = [
            *zip(reversed(positional), reversed(constructor.defaults), strict=False),
            *zip(constructor.kwonlyargs, constructor.kw_defaults, strict=True),
        ]
        return {
            argument.arg: default.value
            for argument, default in given
            if isinstance(default, ast.Constant) and isinstance(default.value, bool | int | float | str)
        }

    def _constructor(self, class_path: str) -> ast.arguments | None:
        module = self._module(class_path)
        if module is None:
            return None
        name = class_path.rpartition(".")[2]
        classes = [node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name]
        constructors = [
            node
            for definition in classes
            for node in definition.body
            if isinstance(node, ast.FunctionDef) and node.name == "__init__"
        ]
        return constructors[-1].args if constructors else None

    def _module(self, class_path: str) -> ast.Module | None:
        path = class_path.rpartition(".")[0].replace(".", "/")
        with zipfile.ZipFile(io.BytesIO(self.archive)) as archive:
            for name in (f"{path}.py", f"{path}/__init__.py"):
                if name in archive.namelist():
                    try:
                        return ast.parse(archive.read(name), filename=name)
                    except (SyntaxError, ValueError) as error:
                        raise InvalidArgument.field("code", f"{name} is not Python: {error}") from error
        return None
