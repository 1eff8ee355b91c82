"""Packages and their versions."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from daf.checks.result import EnvironmentCheckResult

CLIENT = ("daf", "daf-common", "daf-protos", "grpcio")
RUNNER = ("daf-standalone", "cogames", "mettagrid", "pufferlib-core", "torch")
_ROOTS = (Requirement("daf"), Requirement("daf-standalone"), Requirement("daf-cogames[runner]"))


def daf_check_dependencies() -> EnvironmentCheckResult:
    """Looks for the packages, their versions, and whether these are the ones that they were made for: those of the
    client must be here, those of the services and runners may be elsewhere."""
    result = EnvironmentCheckResult()
    python = importlib.metadata.metadata("daf")["Requires-Python"] or ""
    version = platform.python_version()
    if SpecifierSet(python).contains(version):
        result.add_check("python", True, info=version)
    else:
        result.add_error("python", f"{version} is not supported: use {python}")
    wrong = dict(_unmet_requirements())
    for package in (*CLIENT, *RUNNER):
        found = _version(package)
        if found is not None and package not in wrong:
            result.add_check(package, True, info=found)
        elif package in wrong:
            result.add_error(package, wrong.pop(package))
        elif package in CLIENT:
            result.add_error(package, "is not installed")
        else:
            result.add_warning(package, "is not installed: experiments run on another installation only")
    for package, problem in wrong.items():
        result.add_error(package, problem)
    return result


def _unmet_requirements() -> Iterator[tuple[str, str]]:
    """Packages in another version than one that needs them can use, or missing though something here needs them.
    Whatever the client, the services and the runner need is looked at, directly or through others."""
    waiting = [root for root in _ROOTS if _version(root.name) is not None]
    seen = {str(root) for root in waiting}
    while waiting:
        owner = waiting.pop()
        for needed in _needs(owner):
            name, found = canonicalize_name(needed.name), _version(needed.name)
            if found is None:
                # A runner that is not there at all is elsewhere, which is in order.
                if _version("cogames") is not None or owner.name not in ("daf-cogames", "daf-standalone"):
                    yield name, f"is not installed, and {owner.name} needs {needed.name}{needed.specifier}"
            elif not needed.specifier.contains(found, prereleases=True):
                yield name, f"{found} is not what {owner.name} needs: {needed.name}{needed.specifier}"
            elif str(needed) not in seen:
                seen.add(str(needed))
                waiting.append(needed)


def _needs(owner: Requirement) -> Iterator[Requirement]:
    for text in importlib.metadata.requires(owner.name) or []:
        try:
            needed = Requirement(text)
        except InvalidRequirement:
            continue
        extras = owner.extras or {""}
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            yield needed


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
