"""Bundles as directories: unpacked once by their digest, and the policy that each holds."""

from __future__ import annotations

from pathlib import Path

from daf_cogames.code import made_once
from daf_cogames.policies import Bundle, PolicySource
from daf_common.bundles import read_bundle, unpack_bundle


def unpack_policy(archive: Path, sha256: str, cache: Path) -> PolicySource:
    """The policy of a bundle, which is unpacked under the cache if it is not there yet.

    Raises daf_common.bundles.BundleError, and daf_common.archives.ArchiveError where the archive's bytes do not have
    this digest.
    """

    def make(content: Path) -> None:
        unpack_bundle(archive, content)

    return bundle_policy(made_once(cache / sha256, archive, make))


def bundle_policy(root: Path) -> PolicySource:
    """The policy of an unpacked bundle. Raises daf_common.bundles.BundleError."""
    root = root.resolve()
    spec = read_bundle(root)
    return PolicySource(
        class_path=spec.class_path,
        arguments=spec.init_kwargs,
        weights=None if spec.data_path is None else root / spec.data_path,
        bundle=Bundle(root, spec.setup_script),
    )


def module_root(root: Path, class_path: str) -> Path:
    """The directory of a bundle that has the top module of a class path, where cogames looks for it; else the top."""
    top = class_path.partition(".")[0]
    if (root / top).is_dir() or (root / f"{top}.py").is_file():
        return root
    packages = (file.parent for file in sorted(root.rglob("__init__.py")))
    return next((package.parent for package in packages if package.name == top), root)
