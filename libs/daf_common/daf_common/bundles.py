"""CoGames submission bundles: a zip of a policy's code and weights with `policy_spec.json` at its top.

A bundle comes from other people. It is checked here, before cogames sees it, for what cogames itself lets pass: paths
in the spec that lead out of the bundle, files that cogames takes for its own marks, and archives that unpack to more
than they seem to hold.
"""

from __future__ import annotations

import json
import keyword
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from daf_common.archives import ArchiveError, ArchiveLimits, unpack

SPEC_NAME = "policy_spec.json"
LIMITS = ArchiveLimits(entries=10_000, bytes=1 << 30, ratio=100)
"""What a bundle may unpack to: it also holds weights, which code archives do not."""

_MAX_SPEC_BYTES = 1 << 20
_MAX_CLASS_PATH = 300
_MARKS = (".extraction", ".setup-")
"""With these, cogames marks in the unpacked bundle that it is complete and that its setup script has run."""


class BundleError(ValueError):
    """Why a file is no bundle that can be used."""


@dataclass(frozen=True)
class BundleSpec:
    """What a bundle says of itself; its paths are files or directories of the bundle, relative to its top."""

    class_path: str
    """Dotted path of the policy's class."""
    init_kwargs: Mapping[str, object]
    """Arguments of its constructor, JSON values by name."""
    data_path: str | None
    """Its weights."""
    setup_script: str | None
    """Python code to run once before the policy is loaded."""


def check_bundle(archive: Path, scratch: Path) -> BundleSpec:
    """Checks a bundle whole. Blocks for as long as it takes to unpack it.

    Args:
        archive: the bundle.
        scratch: a directory with room for the unpacked bundle, which does not stay there.

    Raises:
        BundleError: it cannot be used.
    """
    with TemporaryDirectory(prefix="bundle-", dir=scratch) as directory:
        return unpack_bundle(archive, Path(directory) / "unpacked")


def unpack_bundle(archive: Path, directory: Path) -> BundleSpec:
    """Unpacks a bundle into a new directory and checks it whole.

    Raises:
        BundleError: it cannot be used; some of it may have been written.
    """
    try:
        unpack(archive, directory, LIMITS)
    except ArchiveError as error:
        raise BundleError(str(error)) from error
    return read_bundle(directory)


def read_bundle(root: Path) -> BundleSpec:
    """What an unpacked bundle says of itself.

    Raises:
        BundleError: it cannot be used.
    """
    for path in root.iterdir():
        if path.name.lower().startswith(_MARKS):
            raise BundleError(f"the name {path.name[:80]!r} is reserved: leave it out")
    return _check_spec(_read_spec(root / SPEC_NAME), root)


def _read_spec(path: Path) -> Mapping[str, object]:
    if not path.is_file():
        raise BundleError(f"there is no {SPEC_NAME} at its top")
    if path.stat().st_size > _MAX_SPEC_BYTES:
        raise BundleError(f"{SPEC_NAME} is larger than {_MAX_SPEC_BYTES} bytes")
    try:
        spec = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{SPEC_NAME} is not JSON: {str(error)[:200]}") from error
    if not isinstance(spec, dict):
        raise BundleError(f"{SPEC_NAME} holds a {type(spec).__name__} instead of an object")
    return spec


def _check_spec(spec: Mapping[str, object], root: Path) -> BundleSpec:
    class_path = spec.get("class_path")
    if not isinstance(class_path, str) or not _is_class_path(class_path):
        raise BundleError(
            f"class_path in {SPEC_NAME} is {_shown(class_path)} instead of a dotted path like package.module.Class"
        )
    arguments = spec.get("init_kwargs", {})
    if not isinstance(arguments, dict):
        raise BundleError(f"init_kwargs in {SPEC_NAME} is {_shown(arguments)} instead of an object")
    data, script = spec.get("data_path"), spec.get("setup_script")
    if data is not None and not (_is_inside(data) and (root / str(data)).exists()):
        raise BundleError(f"data_path in {SPEC_NAME} is {_shown(data)}, which is not in the bundle")
    if script is not None and not (_is_inside(script) and (root / str(script)).is_file()):
        raise BundleError(f"setup_script in {SPEC_NAME} is {_shown(script)}, which is no file of the bundle")
    return BundleSpec(class_path, arguments, _text(data), _text(script))


def _is_class_path(text: str) -> bool:
    parts = text.split(".")
    return (
        len(text) <= _MAX_CLASS_PATH
        and len(parts) > 1
        and all(part.isascii() and part.isidentifier() and not keyword.iskeyword(part) for part in parts)
    )


def _is_inside(path: object) -> bool:
    """Whether a path stays in the bundle wherever that is unpacked; cogames also expands `~`."""
    if not isinstance(path, str) or not path or "\0" in path or "\\" in path:
        return False
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts and not path.startswith("~")


def _text(path: object) -> str | None:
    return None if path is None else str(path)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
