"""What the layers of an image say."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from tests.images.images import docker, inspect

type Entry = tuple[bytes, int, int, int, float, int, str]
"""Of a file: its type, mode, owners, time of change, size, and digest or target."""


def written_as_it_was(name: str, base: str) -> list[str]:
    """What the layers above a base hold though nothing about it has changed: some engines leave it out, some do not."""
    there: dict[str, Entry] = {}
    found = []
    for number, layer in enumerate(layers_of(name)):
        if number >= len(inspect(base)["RootFS"]["Layers"]):
            same = {path for path, entry in layer.items() if there.get(path) == entry}
            holds_changes = {str(above) for path in layer.keys() - same for above in PurePosixPath(path).parents}
            found += [f"layer {number}: {path}" for path in sorted(same - holds_changes)]
        there.update(layer)
    return found


def layers_of(name: str) -> Iterator[Mapping[str, Entry]]:
    """What each layer of an image holds, by path."""
    with tempfile.TemporaryDirectory() as directory:
        saved = Path(directory, "image.tar")
        docker("save", "--output", str(saved), name)
        with tarfile.open(saved) as image:
            manifest = image.extractfile("manifest.json")
            assert manifest is not None
            for layer in json.load(manifest)[0]["Layers"]:
                with tarfile.open(fileobj=image.extractfile(layer)) as entries:
                    yield {entry.name: _entry(entries, entry) for entry in entries}


def _entry(layer: tarfile.TarFile, found: tarfile.TarInfo) -> Entry:
    content = layer.extractfile(found) if found.isreg() else None
    said = hashlib.sha256(content.read()).hexdigest() if content else found.linkname
    return found.type, found.mode, found.uid, found.gid, found.mtime, found.size, said
