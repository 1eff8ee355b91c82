"""What the runner's Python environment has: the packages that `daf-cogames[runner]` needs, wherever it is installed."""

from __future__ import annotations

from importlib.metadata import distribution, packages_distributions, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

RUNNER = ("daf-cogames", "runner")
"""The distribution and the extra whose dependencies are the environment."""

OWN_PREFIX = "daf-"
"""Of the product's own packages, which no registry has."""

OWN_MODULES = ("daf_cogames", "daf_common", "daf_protos")


def runner_packages() -> dict[str, str]:
    """The versions of all packages that the runner needs on this platform, directly or not, by normalized name.

    A function of the lock alone: what else is installed beside them is left out, and so is a build such as `+cpu`.
    """
    wanted: dict[str, set[str]] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(RUNNER[0], frozenset(RUNNER[1:]))]
    while waiting:
        name, extras = waiting.pop()
        if name in wanted and extras <= wanted[name]:
            continue
        wanted.setdefault(name, set()).update(extras)
        waiting += _requirements(name, wanted[name])
    return {name: version(name).partition("+")[0] for name in sorted(wanted) if not name.startswith(OWN_PREFIX)}


def runner_modules() -> list[str]:
    """The top-level modules of those packages and of the product's own: what a user's code may import beside the
    standard library."""
    packages = runner_packages()
    found = {
        module
        for module, owners in packages_distributions().items()
        if module.isidentifier() and any(canonicalize_name(owner) in packages for owner in owners)
    }
    return sorted({*found, *OWN_MODULES})


def _requirements(name: str, extras: set[str]) -> list[tuple[str, frozenset[str]]]:
    """What a distribution needs with these extras, each with the extras of its own."""
    needed = (Requirement(text) for text in distribution(name).requires or [])
    return [
        (canonicalize_name(requirement.name), frozenset(requirement.extras))
        for requirement in needed
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in {"", *extras})
    ]
