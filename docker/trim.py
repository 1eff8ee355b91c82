"""Leaves out of the images of services what no service reads."""

from __future__ import annotations

import compileall
import py_compile
import shutil
import subprocess
from pathlib import Path

GENERATED = ("kubernetes",)
"""Packages of generated code, most of it comments: without them and docstrings, bytecode is a quarter of the size."""

UNREAD = ("tests", "sqlalchemy/testing", "alembic/testing", "*.pyi", "*.pxd", "*.h", "*.a")
"""Tests and what helps to write them; what compilers and type checkers read."""


def trim(packages: Path, began: float) -> None:
    """Trims what was installed since then: layers are not changed by later ones."""
    for pattern in UNREAD:
        for path in sorted(packages.rglob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in GENERATED:
        if (packages / name / "__init__.py").exists():
            compile_away(packages / name)
    strip = shutil.which("strip")
    if strip is None:
        raise SystemExit("strip is not on the path")
    for library in sorted(packages.rglob("*.so")):
        # Libraries that a wheel brings along (*.libs) are patched; strip may break those.
        if library.stat().st_mtime >= began and not library.parent.name.endswith(".libs"):
            environment = {"LD_LIBRARY_PATH": str(Path(strip).parent)}
            subprocess.run([strip, "--strip-unneeded", str(library)], check=True, env=environment)


def compile_away(package: Path) -> None:
    """Replaces the sources of a package by bytecode."""
    if not compileall.compile_dir(
        package,
        quiet=1,
        legacy=True,
        optimize=2,
        maxlevels=99,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    ):
        raise SystemExit(f"{package} does not compile")
    for source in package.rglob("*.py"):
        source.unlink()
