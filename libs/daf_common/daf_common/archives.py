"""Archives of a user's files: packed the same way everywhere, and unpacked without trust. Standard library only."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_CHUNK = 1 << 20  # bytes
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
# Archives under this unpacked size may compress as well as they like.
_RATIO_APPLIES_FROM = 1 << 20  # bytes


class ArchiveError(ValueError):
    """An archive that cannot be made or must not be unpacked."""


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may unpack to. ratio: unpacked over packed size."""

    entries: int = 10_000
    bytes: int = 256 << 20
    ratio: int = 100


DEFAULT_LIMITS = ArchiveLimits()


def pack(paths: Iterable[Path], limits: ArchiveLimits = DEFAULT_LIMITS) -> bytes:
    """A zip of Python code, its bytes a function of the content alone: sorted, with fixed times, not compressed.

    A file and a package (a directory with `__init__.py`) keep their name at the top; of any other directory the
    content comes to the top, as if the directory were on the import path. Hidden files and byte code are left out.
    Raises ArchiveError.
    """
    members: dict[str, Path] = {}
    for path in paths:
        for name, file in _members(path):
            if members.setdefault(name, file) != file:
                raise ArchiveError(f"{name} comes from both {members[name]} and {file}")
    if not members:
        raise ArchiveError("there is nothing to pack")
    if len(members) > limits.entries:
        raise ArchiveError(f"{len(members)} files are more than the {limits.entries} that an archive may have")
    size = sum(file.stat().st_size for file in members.values())
    if size > limits.bytes:
        raise ArchiveError(f"the files have {size} bytes, more than the {limits.bytes} that an archive may have")

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.create_system = 3  # Unix, on every platform
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, members[name].read_bytes())
    return buffer.getvalue()


def unpack(archive: Path, directory: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> None:
    """Write an archive's files under a new directory. Raises ArchiveError, perhaps with some files written.

    Everything is checked against what the archive says of itself before the first byte is written, and counted again
    while writing, since it may lie. No links, no special files, no permissions are taken over.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            entries = source.infolist()
            _check_entries(entries, limits, packed=archive.stat().st_size)
            directory.mkdir(parents=True)
            written = 0
            for entry in entries:
                target = directory / entry.filename
                if entry.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                written = _write(source, entry, target, written, limits)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OverflowError) as error:
        raise ArchiveError(f"not a sound zip archive: {error}") from error


def check(archive: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> None:
    """Check an archive that something else will unpack against what it says of itself. Raises ArchiveError."""
    try:
        with zipfile.ZipFile(archive) as source:
            _check_entries(source.infolist(), limits, packed=archive.stat().st_size)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OverflowError) as error:
        raise ArchiveError(f"not a sound zip archive: {error}") from error


def digest_of(archive: Path, *, expected: str | None = None) -> str:
    """The SHA-256 (hex) of a file's bytes. Raises ArchiveError where it is not the expected one."""
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and found != expected:
        raise ArchiveError(f"the archive has the digest {found}, not {expected}")
    return found


def _members(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield path.name, path.resolve()
        return
    if not path.is_dir():
        raise ArchiveError(f"{path} is neither a file nor a directory")
    root = path.resolve()
    top = root.parent if (root / "__init__.py").is_file() else root
    for file in sorted(root.rglob("*")):
        inner = file.relative_to(root)
        if any(part.startswith(".") or part == "__pycache__" for part in inner.parts) or file.suffix == ".pyc":
            continue
        if file.is_symlink():
            raise ArchiveError(f"{file} is a symbolic link; an archive holds plain files only")
        if file.is_file():
            yield file.relative_to(top).as_posix(), file


def _check_entries(entries: list[zipfile.ZipInfo], limits: ArchiveLimits, packed: int) -> None:
    if not entries:
        raise ArchiveError("the archive is empty")
    if len(entries) > limits.entries:
        raise ArchiveError(f"{len(entries)} entries are more than the {limits.entries} allowed")
    size = sum(entry.file_size for entry in entries)
    if size > limits.bytes:
        raise ArchiveError(f"{size} bytes unpacked are more than the {limits.bytes} allowed")
    if size > max(_RATIO_APPLIES_FROM, limits.ratio * packed):
        raise ArchiveError(f"the archive unpacks to more than {limits.ratio} times its size")

    # Compared without case, since the files may land on a file system that does not see case.
    files: set[PurePosixPath] = set()
    for entry in entries:
        path = _check_entry(entry)
        if not entry.is_dir() and path in files:
            raise ArchiveError(f"the archive has {entry.filename!r} twice")
        if not entry.is_dir():
            files.add(path)
    for entry in entries:
        path = PurePosixPath(entry.filename.lower())
        clash = [parent for parent in path.parents if parent in files]
        if clash or (entry.is_dir() and path in files):
            raise ArchiveError(f"in the archive {entry.filename!r} lies under a file")


def _check_entry(entry: zipfile.ZipInfo) -> PurePosixPath:
    name = entry.orig_filename
    parts = name.removesuffix("/").split("/")
    if "\0" in name or "\\" in name or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        raise ArchiveError(f"the archive has an entry with the forbidden name {name[:200]!r}")
    if len(name.encode()) > 1024 or any(len(part.encode()) > 255 for part in parts):
        raise ArchiveError(f"the archive has an entry whose name is too long: {name[:80]!r}...")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError(f"{name!r} in the archive is neither a file nor a directory")
    if entry.flag_bits & 0x1:
        raise ArchiveError(f"{name!r} in the archive is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(f"{name!r} in the archive is compressed in a way that is not supported")
    return PurePosixPath(name.lower())


def _write(source: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, written: int, limits: ArchiveLimits) -> int:
    with source.open(entry) as reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK):
            written += len(chunk)
            if written > limits.bytes:
                raise ArchiveError(f"the archive unpacks to more than the {limits.bytes} bytes allowed")
            writer.write(chunk)
    return written
