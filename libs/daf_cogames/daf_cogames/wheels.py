"""The packages that a user's code needs and the runner lacks: an archive of wheels, installed once by its digest."""

from __future__ import annotations

import contextlib
import logging
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

import installer
from installer.destinations import SchemeDictionaryDestination
from installer.exceptions import InstallerError
from installer.sources import WheelFile
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from daf_cogames.code import last_on_path, made_once
from daf_common.archives import ArchiveError, ArchiveLimits, check, unpack

logger = logging.getLogger(__name__)

WHEELS_LIMITS = ArchiveLimits(entries=200, bytes=1 << 30)
"""What an archive of wheels may hold."""

WHEEL_LIMITS = ArchiveLimits(entries=50_000, bytes=4 << 30)
"""What one wheel may hold."""

# Where pip puts what is no module when it installs into a directory.
_BESIDE_MODULES = {"scripts": "bin", "headers": "include", "data": ""}


def install_wheels(archive: Path, sha256: str, cache: Path) -> Path:
    """The directory `cache/<sha256>` with the packages of an archive of wheels, installed if it is not there yet.

    Whole or absent, also when several processes install at once or one is killed. Nothing of a wheel is run. Raises
    daf_common.archives.ArchiveError, also where the archive's bytes do not have this digest.
    """

    def install(content: Path) -> None:
        wheels = content.with_name("wheels")
        unpack(archive, wheels, WHEELS_LIMITS)
        content.mkdir()
        for wheel in sorted(wheels.iterdir()):
            _install(wheel, content)

    return made_once(cache / sha256, archive, install)


@contextlib.contextmanager
def requirements_on_path(*directories: Path) -> Iterator[None]:
    """Make the packages in these directories importable; afterwards forget them.

    They come last on the path: neither the runner's packages nor the user's own modules are replaced. Raises
    ImportError where two directories have different versions of a package.
    """
    unique = list(dict.fromkeys(directory.resolve() for directory in directories))
    chosen: dict[str, str] = {}
    for name, found in _packages(unique):
        if chosen.setdefault(name, found) != found:
            raise ImportError(
                f"policies need {name} {chosen[name]} and {found}: one process can import only one of them"
            )
    for name, wanted in chosen.items():
        with contextlib.suppress(PackageNotFoundError):
            if (used := version(name)) != wanted:
                logger.warning("this machine's own %s %s is used, not the required %s", name, used, wanted)
    with last_on_path(unique):
        yield


def _install(wheel: Path, directory: Path) -> None:
    try:
        parse_wheel_filename(wheel.name)
        check(wheel, WHEEL_LIMITS)
        scheme = {place: str(directory / inner) for place, inner in _BESIDE_MODULES.items()}
        destination = SchemeDictionaryDestination(
            {"purelib": str(directory), "platlib": str(directory), **scheme},
            interpreter=sys.executable,
            script_kind="posix",
            overwrite_existing=True,  # two packages may share a file, such as a namespace's __init__.py
        )
        with WheelFile.open(wheel) as source:
            installer.install(source, destination, additional_metadata={})
    except (InstallerError, InvalidWheelFilename, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ArchiveError(f"{wheel.name} is not a sound wheel: {error}") from error


def _packages(directories: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for directory in directories:
        for package in distributions(path=[str(directory)]):
            yield canonicalize_name(package.metadata["Name"]), package.version
