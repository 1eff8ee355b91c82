"""Puts packages into /opt/venv of an image: one call, one layer.

The same packages give the same bytes, whenever they are installed: nothing compares bytecode with the age of its
source (nothing is edited in an image), nothing is kept that tells the time of an installation, and all that a call
writes bears one date. Nothing is written anew as it was before, either: some engines would count that to the layer,
others not.
"""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path

VENV = Path("/opt/venv")
PACKAGES = VENV / "lib/python3.12/site-packages"
STDLIB = Path("/usr/local/lib/python3.12")
NEVER_IMPORTED = {"site-packages", "test", "tests", "idlelib", "lib2to3", "tkinter", "turtledemo", "pydoc_data"}
DATE = 315532800  # 1980-01-01, as in wheels


def main(verb: str, *arguments: str) -> None:
    """One of the verbs below, with what it is about."""
    began = time.time()
    if verb == "system":  # PACKAGE...: Debian's packages
        install_system_packages(*arguments)
    elif verb == "base":  # an environment without packages
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(VENV)], check=True)
        for script in VENV.glob("bin/[aA]ctivate*"):  # for people at a shell
            script.unlink()
        compile_missing(STDLIB)
    elif verb in ("locked", "trimmed"):  # REQUIREMENTS: a file
        if not Path(arguments[0]).read_text().strip():
            return
        install("--require-hashes", "--requirement", arguments[0])
        if verb == "trimmed":
            from trim import trim  # only images of services have it: a change of it changes no other

            trim(PACKAGES, began - 1)
        compile_missing(VENV)
    elif verb == "own":  # FOLDER [MODULE]: our wheels and their bill of materials; what a service starts
        wheels = [wheel.name.split("-") for wheel in sorted(Path(arguments[0]).glob("*.whl"))]
        # By name and not by file: of files it is noted where they lay.
        install("--no-index", "--find-links", arguments[0], *(f"{w[0]}=={w[1]}" for w in wheels))
        for note in PACKAGES.glob("daf*.dist-info/uv_cache.json"):
            forget(note)
        if arguments[1:]:
            add_program(arguments[1])
        compile_missing(VENV)
        import sbom  # changes of it leave the layers before this one alone

        sbom.write(Path(arguments[0], "sbom.json"), PACKAGES)
    date(began)


def install_system_packages(*names: str) -> None:
    """Without what logs, caches and lists hold: it is of no use in an image, and never twice the same."""
    there = set(unneeded())
    subprocess.run(["apt-get", "update", "-q"], check=True)
    subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *names], check=True)
    for path in unneeded():
        if path in there:  # of the layer below: that one is deleted is noted with the time
            path.write_bytes(b"")
        else:
            path.unlink()


def unneeded() -> list[Path]:
    """Logs, caches and lists."""
    files = [path for folder in ("/var/lib/apt/lists", "/var/cache", "/var/log") for path in Path(folder).rglob("*")]
    return [path for path in (*files, *Path("/var/lib/dpkg").glob("*-old")) if path.is_file()]


def install(*what: str) -> None:
    """Nothing but what is named: the lock has resolved it. What uv needs meanwhile lies where the packages will."""
    command = ["uv", "pip", "install", "--quiet", "--no-deps", "--link-mode=hardlink", "--python", str(VENV)]
    with tempfile.TemporaryDirectory(dir=VENV) as scratch:
        environment = os.environ | {"UV_CACHE_DIR": f"{scratch}/cache", "TMPDIR": scratch}
        subprocess.run([*command, *what], check=True, env=environment)
    (VENV / ".lock").unlink(missing_ok=True)


def forget(note: Path) -> None:
    """Deletes uv's note of when a wheel was built."""
    record = note.with_name("RECORD")
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(line for line in lines if f"/{note.name}," not in line))
    note.unlink()


def add_program(module: str) -> None:
    """What an image starts, under one name in all images of services: an ENTRYPOINT cannot have a variable in it."""
    program = VENV / "bin/daf-service"
    program.write_text(f"#!{VENV}/bin/python\nfrom {module} import main\n\nmain()\n")
    program.chmod(0o755)


def compile_missing(root: Path) -> None:
    """Compiles what has no bytecode yet; in order, since bytecode depends on what was compiled before it."""
    for directory, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - NEVER_IMPORTED) if root == STDLIB else sorted(folders)
        for name in sorted(files):
            source = os.path.join(directory, name)
            if name.endswith(".py") and not os.path.exists(cache_from_source(source)):
                try:
                    py_compile.compile(
                        source, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
                    )
                except (py_compile.PyCompileError, ValueError):  # templates are no modules, whatever their names
                    print(f"not compiled: {source}", file=sys.stderr)


def date(began: float) -> None:
    """Gives one date to what was written since then."""
    for path in written_since(began - 1, "/", os.stat("/").st_dev):
        os.utime(path, (DATE, DATE), follow_symlinks=False)


def written_since(moment: float, directory: str, device: int) -> Iterator[str]:
    """The young files of one file system; a directory comes after what is in it."""
    with os.scandir(directory) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False) and status.st_dev == device and entry.path != "/proc":
                yield from written_since(moment, entry.path, device)
            if status.st_mtime >= moment and status.st_dev == device:
                yield entry.path
    if directory == "/":
        yield directory


if __name__ == "__main__":
    main(*sys.argv[1:])
