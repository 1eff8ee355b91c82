"""`daf version`."""

from __future__ import annotations

import platform
from importlib import metadata

from daf.cli.session import JsonFlag, print_json

_PACKAGES = ("daf", "daf-protos", "daf-standalone", "daf-cogames", "cogames", "mettagrid", "torch", "grpcio")


def version(json: JsonFlag = False) -> None:
    """Print the versions of DAF and of what it runs on here."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if json:
        print_json({"versions": versions})
        return
    for package, number in versions.items():
        print(f"{package:<16}{number}")
