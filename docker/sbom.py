"""Writes the bill of materials of an image: uv's, less what is not installed there, and the same each time.

The system's packages are not in it: they are those of the base image, and scanners read them from /var/lib/dpkg.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from importlib.metadata import distributions
from pathlib import Path

TARGET = Path("/usr/share/doc/daf/sbom.cdx.json")


def write(exported: Path, packages: Path) -> None:
    """Reads what `uv export --format cyclonedx1.5` wrote."""
    bill = json.loads(exported.read_text())
    there = {(normalized(one.name), one.version) for one in distributions(path=[str(packages)])}
    bill["components"] = [one for one in bill["components"] if (normalized(one["name"]), one.get("version")) in there]
    known = {bill["metadata"]["component"]["bom-ref"], *(one["bom-ref"] for one in bill["components"])}
    bill["dependencies"] = [
        {**one, "dependsOn": [other for other in one.get("dependsOn", ()) if other in known]}
        for one in bill["dependencies"]
        if one["ref"] in known
    ]
    # Lists of materials are told apart by these two; the same materials are the same list here.
    del bill["metadata"]["timestamp"]
    bill["serialNumber"] = ""
    digest = hashlib.sha256(json.dumps(bill).encode()).digest()
    bill["serialNumber"] = f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}"
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(bill, indent=1) + "\n")


def normalized(name: str) -> str:
    """As PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()
