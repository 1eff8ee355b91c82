"""Generates the Python package `daf_protos` from `proto/`; with --check, only compares.

The proto package is `daf.*`, but the import name `daf` belongs to the SDK. So the sources are compiled from a staging
directory in which the path `daf/` is called `daf_protos/`: the compiler then writes the right imports by itself and
its output is not edited.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "proto" / "daf"
PACKAGE = ROOT / "libs" / "daf_protos" / "daf_protos"
KEPT = {"py.typed", "__init__.py"}


def stage(target: Path) -> list[Path]:
    """Copies the sources to `target`/daf_protos with their imports renamed."""
    staged = []
    for source in sorted(SOURCE.rglob("*.proto")):
        copy = target / "daf_protos" / source.relative_to(SOURCE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(source.read_text().replace('import "daf/', 'import "daf_protos/'))
        staged.append(copy)
    return staged


def compile_to(output: Path) -> None:
    """Writes messages, stubs and their type information under `output`."""
    with tempfile.TemporaryDirectory() as directory:
        staging = Path(directory)
        sources = stage(staging)
        well_known = files("grpc_tools") / "_proto"
        binaries = Path(sys.executable).parent
        status = protoc.main(
            [
                "protoc",
                f"-I{staging}",
                f"-I{well_known}",
                f"--plugin=protoc-gen-mypy={binaries / 'protoc-gen-mypy'}",
                f"--plugin=protoc-gen-mypy_grpc={binaries / 'protoc-gen-mypy_grpc'}",
                f"--python_out={output}",
                f"--grpc_python_out={output}",
                f"--mypy_out=quiet:{output}",
                f"--mypy_grpc_out=quiet:{output}",
                *map(str, sources),
            ]
        )
    if status:
        raise SystemExit(status)
    for grpc_file in output.rglob("*_pb2_grpc.py*"):  # files without a service get empty stubs
        source = SOURCE / grpc_file.relative_to(output / "daf_protos")
        if "service " not in source.with_name(source.name.split("_pb2")[0] + ".proto").read_text():
            grpc_file.unlink()


def main() -> None:
    """Generates or compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the checked-in code is not current")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory)
        compile_to(output)
        fresh = {path.relative_to(output / "daf_protos"): path for path in output.rglob("*.py*")}
        old = {
            path.relative_to(PACKAGE): path
            for path in PACKAGE.rglob("*.py*")
            if path.name not in KEPT and "__pycache__" not in path.parts
        }
        if check:
            stale = sorted(
                str(name)
                for name in fresh.keys() | old.keys()
                if name not in fresh or name not in old or not filecmp.cmp(fresh[name], old[name], shallow=False)
            )
            if stale:
                raise SystemExit("not current, run `make proto`: " + ", ".join(stale))
            return
        for path in old.values():
            path.unlink()
        for name, path in fresh.items():
            target = PACKAGE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


if __name__ == "__main__":
    main()
