"""Bundles on a worker's disk: what is refused, and that other bytes are another bundle."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from daf_cogames.sandbox.bundle_files import bundle_policy, module_root, unpack_policy
from daf_common.archives import ArchiveError
from daf_common.bundles import BundleError


def packed(archive: Path, files: dict[str, str | bytes], **spec: Any) -> str:
    """Writes a bundle; returns its digest."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("policy_spec.json", json.dumps({"class_path": "mine.Policy", **spec}))
        for name, data in files.items():
            content.writestr(name, data)
    return hashlib.sha256(archive.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("files", "spec", "said"),
    [
        ({}, {"data_path": "/etc/passwd"}, "data_path"),
        ({}, {"data_path": "../../secret"}, "data_path"),
        ({}, {"data_path": "~/secret"}, "data_path"),
        ({}, {"data_path": "not-there"}, "data_path"),
        ({}, {"setup_script": "/bin/true"}, "setup_script"),
        ({}, {"setup_script": "../script.py"}, "setup_script"),
        ({".setup-0123456789abcdef.done": ""}, {"setup_script": "mine.py"}, "reserved"),
        ({".extraction_complete": ""}, {}, "reserved"),
        ({"../outside": ""}, {}, "forbidden name"),
        ({"/outside": ""}, {}, "forbidden name"),
        ({"zeros": bytes(64 << 20)}, {}, "times its size"),
        ({f"{number}": "" for number in range(10_001)}, {}, "entries"),
        ({}, {"class_path": "mine"}, "class_path"),
        ({}, {"class_path": 7}, "class_path"),
        ({}, {"init_kwargs": [1]}, "init_kwargs"),
    ],
)
def test_what_is_no_sound_bundle_is_refused(
    tmp_path: Path, files: dict[str, str | bytes], spec: dict[str, Any], said: str
) -> None:
    digest = packed(tmp_path / "bundle.zip", {"mine.py": "", **files}, **spec)

    with pytest.raises(BundleError, match=said):
        unpack_policy(tmp_path / "bundle.zip", digest, tmp_path / "cache")

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "bundle.zip"]


def test_a_replaced_file_is_another_bundle(tmp_path: Path) -> None:
    archive, cache = tmp_path / "bundle.zip", tmp_path / "cache"
    first = unpack_policy(archive, packed(archive, {"mine.py": "old"}), cache)
    second = unpack_policy(archive, packed(archive, {"mine.py": "new"}), cache)

    assert first.bundle
    assert second.bundle
    assert (first.bundle.root / "mine.py").read_text() == "old"
    assert (second.bundle.root / "mine.py").read_text() == "new"


def test_other_bytes_than_were_named_are_refused(tmp_path: Path) -> None:
    packed(tmp_path / "bundle.zip", {"mine.py": ""})

    with pytest.raises(ArchiveError, match="digest"):
        unpack_policy(tmp_path / "bundle.zip", "0" * 64, tmp_path / "cache")


def test_a_bundle_says_what_to_load(tmp_path: Path) -> None:
    digest = packed(
        tmp_path / "bundle.zip",
        {"data/weights.pt": "", "prepare.py": ""},
        data_path="data/weights.pt",
        init_kwargs={"layers": [1, 2]},
        setup_script="prepare.py",
    )

    source = unpack_policy(tmp_path / "bundle.zip", digest, tmp_path / "cache")

    assert source.bundle is not None
    assert source.class_path == "mine.Policy"
    assert source.weights == source.bundle.root / "data" / "weights.pt"
    assert source.arguments == {"layers": [1, 2]}
    assert source.bundle.setup == "prepare.py"
    assert bundle_policy(source.bundle.root) == source


@pytest.mark.parametrize(
    ("files", "class_path", "root"),
    [
        (["mine.py"], "mine.Policy", ""),
        (["mine/__init__.py"], "mine.policies.Policy", ""),
        (["src/mine/__init__.py", "src/mine/deep/__init__.py"], "mine.deep.Policy", "src"),
        (["src/other/__init__.py"], "mine.Policy", ""),
    ],
)
def test_modules_are_found_where_cogames_finds_them(
    tmp_path: Path, files: list[str], class_path: str, root: str
) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()

    assert module_root(tmp_path, class_path) == tmp_path / root
