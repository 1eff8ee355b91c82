"""The wheels that requirements come to: resolved for the runner by uv, packed into one archive, built once."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from uv import find_uv_bin

from daf.requirements import FIELD, Runner, check_against_runner
from daf_common.archives import ArchiveError, ArchiveLimits, pack
from daf_common.errors import FailedPrecondition, InvalidArgument, ResourceExhausted

MEDIA_TYPE = "application/zip"

LIMITS = ArchiveLimits(entries=200, bytes=1 << 30)
"""How many wheels there may be, and how large they may be together."""

_TIMEOUT_SECONDS = 60.0
_CHUNK_BYTES = 1 << 20
_GIVEN = "given"
"""Local version label of a package that the runner has: no index has such a version."""

_UNREACHABLE = ("error sending request", "network was disabled", "Failed to fetch", "dns error")


@dataclass(frozen=True)
class Wheel:
    """One wheel of a lock."""

    url: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Its name, which says package, version and platform."""
        return unquote(urlsplit(self.url).path).rpartition("/")[2]


def build_wheels(requirements: Sequence[Requirement], runner: Runner, cache: Path) -> bytes | None:
    """The archive of all wheels that the runner lacks, its bytes a function of the wheels alone; None if it has all.

    The same requirements for the same runner are resolved once: later calls read the archive from the cache.

    Args:
        requirements: what is needed.
        runner: what is there; its packages stay as they are.
        cache: where archives are kept.

    Raises:
        InvalidArgument: they contradict each other or the runner, or there is no wheel for it.
        FailedPrecondition: the package index cannot be reached.
        ResourceExhausted: the wheels are too many or too large.
    """
    check_against_runner(requirements, runner)
    if all(runner.has(requirement) for requirement in requirements):
        return None
    path = cache / f"{_key(requirements, runner)}.zip"
    if not path.is_file():
        archive = _pack(lock(requirements, runner))
        _write(path, archive)
    return path.read_bytes()


def lock(requirements: Sequence[Requirement], runner: Runner) -> list[Wheel]:
    """The wheels for requirements with all that these need in turn, without what the runner has. Raises as
    `build_wheels`."""
    with tempfile.TemporaryDirectory(prefix="daf-lock-") as directory:
        given = Path(directory) / "given"
        given.mkdir()
        for name, version in runner.packages.items():
            _write_empty_wheel(given, name, _given_version(version))
        (given / "constraints.txt").write_text(
            "".join(f"{name}=={_given_version(version)}\n" for name, version in runner.packages.items())
        )
        text = _compile(requirements, runner, Path(directory))
    packages = tomllib.loads(text).get("packages", [])
    return [_wheel(package) for package in packages if canonicalize_name(package["name"]) not in runner.packages]


def modules_of(archive: bytes) -> frozenset[str]:
    """The top-level modules that an archive of wheels brings."""
    found: set[str] = set()
    with zipfile.ZipFile(io.BytesIO(archive)) as wheels:
        for wheel in wheels.namelist():
            with wheels.open(wheel) as file, zipfile.ZipFile(file) as content:
                found.update(_top_modules(content.namelist()))
    return frozenset(found)


def _compile(requirements: Sequence[Requirement], runner: Runner, directory: Path) -> str:
    """What uv resolves, as `pylock.toml`.

    The runner's packages are there as empty wheels without needs of their own, under versions that only they have, and
    are pinned to these: so they are never looked for, nor is what they need.
    """
    links = [str(directory / "given"), *filter(None, [os.environ.get("UV_FIND_LINKS")])]
    command = [
        find_uv_bin(), "pip", "compile", "-", "--quiet", "--no-header", "--no-annotate",
        "--format", "pylock.toml", "--only-binary", ":all:", "--python", sys.executable,
        "--python-version", runner.python_version,
        "--python-platform", f"{runner.machine}-{runner.platform.removesuffix('_' + runner.machine)}",
        "--constraint", str(directory / "given" / "constraints.txt"),
    ]  # fmt: skip
    done = subprocess.run(
        command,
        input="".join(f"{requirement}\n" for requirement in requirements),
        env={**os.environ, "UV_FIND_LINKS": ",".join(links), "NO_COLOR": "1"},
        cwd=directory,  # not where a project of the user's own would be found
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise _refusal(done.stderr, runner)
    return done.stdout


def _refusal(message: str, runner: Runner) -> InvalidArgument | FailedPrecondition:
    """What uv says, without how it was asked."""
    text = re.sub(rf"==([\w.!]+?)(?:\+|\.){_GIVEN}\b", r"==\1 (which the runner has)", message.strip())
    if any(sign in text for sign in _UNREACHABLE):
        last = text.splitlines()[-1].strip().removeprefix("cause: ")
        return FailedPrecondition(f"{FIELD}: the package index cannot be reached, so nothing was started: {last}")
    causes = [line.strip().removeprefix("cause: ") for line in text.splitlines()[1:] if not line.startswith("hint:")]
    reason = " ".join(filter(None, causes)) or text
    hint = ""
    if "no usable wheels" in text or "no wheels" in text:
        hint = (
            f". Only wheels for Python {runner.python_version} on {runner.platform} are taken, nothing is built from "
            "source: choose another version, or build the wheel and let UV_FIND_LINKS name its directory"
        )
    return InvalidArgument.field(FIELD, reason.rstrip(".") + hint)


def _wheel(package: dict[str, Any]) -> Wheel:
    wheel = package["wheels"][0]  # uv locks for one platform: the wheel that it would install
    url = wheel.get("url") or Path(wheel["path"]).absolute().as_uri()
    return Wheel(url, wheel["hashes"]["sha256"])


def _pack(wheels: Sequence[Wheel]) -> bytes:
    if len(wheels) > LIMITS.entries:
        raise ResourceExhausted(f"{FIELD}: come to {len(wheels)} wheels, more than {LIMITS.entries}")
    with tempfile.TemporaryDirectory(prefix="daf-wheels-") as directory:
        free = LIMITS.bytes
        for wheel in wheels:
            free -= _download(wheel, Path(directory) / wheel.file_name, free)
        try:
            return pack([Path(directory)], LIMITS)
        except ArchiveError as error:
            raise InvalidArgument.field(FIELD, str(error)) from error


def _download(wheel: Wheel, target: Path, at_most: int) -> int:
    """Fetches a wheel; returns its size in bytes."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        for chunk in _read(wheel.url):
            size += len(chunk)
            if size > at_most:
                raise ResourceExhausted(f"{FIELD}: the wheels have more than {LIMITS.bytes >> 20} MiB together")
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != wheel.sha256:
        raise FailedPrecondition(f"{FIELD}: {wheel.file_name} came with another digest than the index says")
    return size


def _read(url: str) -> Iterator[bytes]:
    parts = urlsplit(url)
    if parts.scheme == "file":
        with Path(unquote(parts.path)).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
        return
    try:
        with httpx.stream("GET", url, timeout=_TIMEOUT_SECONDS, follow_redirects=True) as response:
            response.raise_for_status()
            yield from response.iter_bytes(_CHUNK_BYTES)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise FailedPrecondition(f"{FIELD}: {parts.hostname} answered {status} for a wheel; try again") from None
    except httpx.HTTPError as error:
        raise FailedPrecondition(
            f"{FIELD}: {parts.hostname} cannot be reached, so nothing was started: {type(error).__name__}"
        ) from None


def _key(requirements: Iterable[Requirement], runner: Runner) -> str:
    """The same for the same requirements, in whatever order, for the same runner."""
    wanted = sorted(str(requirement) for requirement in requirements)
    parts = [wanted, runner.python_version, runner.platform, sorted(runner.packages.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _given_version(version: str) -> str:
    return f"{version}{'.' if '+' in version else '+'}{_GIVEN}"


def _write_empty_wheel(directory: Path, name: str, version: str) -> None:
    name = name.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def _top_modules(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        first, *rest = name.split("/")
        if first.endswith(".data") and rest[:1] and rest[0] in ("purelib", "platlib"):
            first, rest = rest[1], rest[2:]
        top = first if rest else first.partition(".")[0]
        if top.isidentifier() and (rest or first.endswith((".py", ".so"))):
            yield top


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)
