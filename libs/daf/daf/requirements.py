"""What a user's own code needs beside what the runner has: requirements as pip writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from daf_common.errors import InvalidArgument, Violation
from daf_protos.training.v1.catalog_service_pb2 import GetRunnerResponse

FIELD = "requirements"

DEFAULT_PLATFORM = "manylinux_2_28_x86_64"

_GLIBC = re.compile(r"^manylinux_\d+_\d+_")
_COMMENT = re.compile(r"(^|\s)#.*$")


@dataclass(frozen=True)
class Runner:
    """The Python environment of workers."""

    python_version: str
    """For example `3.12`."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions by normalized name."""
    modules: frozenset[str] = frozenset()
    """Top-level modules that code may import beside the standard library; empty if not known."""
    platform: str = DEFAULT_PLATFORM
    """Platform tag of the wheels that it takes."""

    @classmethod
    def of(cls, message: GetRunnerResponse) -> Runner:
        """What the service says of it."""
        return cls(
            message.python_version,
            dict(message.packages),
            frozenset(message.modules),
            message.platform or DEFAULT_PLATFORM,
        )

    @property
    def machine(self) -> str:
        """Architecture, for example `x86_64`."""
        return _GLIBC.sub("", self.platform)

    def has(self, requirement: Requirement) -> bool:
        """Whether nothing is to be brought along for a requirement."""
        return not self.applies(requirement) or canonicalize_name(requirement.name) in self.packages

    def applies(self, requirement: Requirement) -> bool:
        """Whether a requirement's marker, such as `python_version < "3.13"`, is true there."""
        return requirement.marker is None or requirement.marker.evaluate(
            {
                "os_name": "posix",
                "platform_machine": self.machine,
                "platform_system": "Linux",
                "python_version": self.python_version,
                "sys_platform": "linux",
            }
        )


def read_requirements(given: str | Sequence[str], directory: Path) -> tuple[Requirement, ...]:
    """The requirements that a document or a command names.

    Args:
        given: the requirements, or the path of a file with one a line, as `requirements.txt` has them.
        directory: where the path is relative to.

    Raises:
        InvalidArgument: the file cannot be read, or a line is no requirement of a package by its name.
    """
    if not isinstance(given, str):
        return _parsed((f"[{index}]", text) for index, text in enumerate(given))
    path = directory / Path(given).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise InvalidArgument.field(FIELD, f"{given}: {reason}") from error
    joined = text.replace("\\\n", "")
    return _parsed((f", {given}, line {number}", line) for number, line in enumerate(joined.splitlines(), 1))


def check_against_runner(requirements: Iterable[Requirement], runner: Runner) -> None:
    """Refuses what the runner's own packages rule out.

    Raises:
        InvalidArgument: the runner has another version of a package, or has it without the extras.
    """
    wrong = []
    for requirement in requirements:
        found = runner.packages.get(canonicalize_name(requirement.name))
        if found is None or not runner.applies(requirement):
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            message = f"{requirement}: the runner has {requirement.name} {found}, and its packages cannot be replaced"
            wrong.append(Violation(FIELD, message))
        elif requirement.extras:
            extras = ", ".join(sorted(requirement.extras))
            message = (
                f"{requirement}: the runner has {requirement.name}; name the packages of its extra {extras} instead"
            )
            wrong.append(Violation(FIELD, message))
    if wrong:
        raise InvalidArgument.of(wrong)


def _parsed(lines: Iterable[tuple[str, str]]) -> tuple[Requirement, ...]:
    found, wrong = [], []
    for where, line in lines:
        text = _COMMENT.sub("", line).strip()
        if not text:
            continue
        try:
            found.append(_requirement(text))
        except ValueError as error:
            wrong.append(Violation(f"{FIELD}{where}", str(error)))
    if wrong:
        raise InvalidArgument.of(wrong)
    return tuple(found)


def _requirement(text: str) -> Requirement:
    if text.startswith("-"):
        raise ValueError(
            f"{text[:80]!r} is an option: name packages only; indexes are set where uv finds them (UV_INDEX, uv.toml)"
        )
    if " --hash" in text:
        raise ValueError("leave the hashes out: what is found is frozen as an artifact with its digest")
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(f"{text[:80]!r} is no requirement like `package>=1.2`: {str(error).splitlines()[0]}") from None
    if requirement.url:
        raise ValueError(
            f"{text[:80]!r} names a place: name the package and its version; a wheel of your own is found through "
            "UV_FIND_LINKS, and plain modules travel with `code:`"
        )
    return requirement
