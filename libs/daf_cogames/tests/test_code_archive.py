"""A user's code is unpacked once, found on the path while it is needed, and forgotten afterwards."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from daf_cogames.code import on_path, shadowed_module, unpack_code
from daf_common.archives import ArchiveError, digest_of, pack


def make_module(directory: Path, name: str, content: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.py").write_text(content)
    return directory


def make_archive(path: Path, content: str) -> Path:
    directory = make_module(path.parent / f"{path.stem}-source", "my_policy", content)
    path.write_bytes(pack([directory]))
    return path


def test_an_archive_is_unpacked_under_its_digest_once(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "code.zip", "version = 1")
    digest = digest_of(archive)

    directory = unpack_code(archive, digest, tmp_path / "cache")
    archive.unlink()

    assert directory == tmp_path / "cache" / digest
    assert unpack_code(archive, digest, tmp_path / "cache") == directory
    assert (directory / "my_policy.py").read_text() == "version = 1"
    assert list((tmp_path / "cache").iterdir()) == [directory]


def test_an_archive_that_is_not_the_one_named_leaves_nothing(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "code.zip", "version = 1")

    with pytest.raises(ArchiveError, match="digest"):
        unpack_code(archive, "0" * 64, tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


def test_a_broken_archive_leaves_nothing(tmp_path: Path) -> None:
    archive = tmp_path / "code.zip"
    archive.write_bytes(b"not a zip")

    with pytest.raises(ArchiveError, match="zip"):
        unpack_code(archive, digest_of(archive), tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


def test_two_versions_of_a_module_follow_each_other(tmp_path: Path) -> None:
    first = make_module(tmp_path / "1", "followed_module", "version = 1")
    second = make_module(tmp_path / "2", "followed_module", "version = 2")
    before = list(sys.path)

    versions = []
    for directory in (first, second):
        with on_path(directory):
            versions.append(importlib.import_module("followed_module").version)

    assert versions == [1, 2]
    assert sys.path == before
    assert "followed_module" not in sys.modules


def test_two_versions_of_a_module_at_once_are_refused(tmp_path: Path) -> None:
    first = make_module(tmp_path / "1", "twin_module", "version = 1")
    second = make_module(tmp_path / "2", "twin_module", "version = 2")
    before = list(sys.path)

    with pytest.raises(ImportError, match="both have a module 'twin_module'"), on_path(first, second):
        pass

    assert sys.path == before


def test_the_same_code_may_be_named_twice(tmp_path: Path) -> None:
    directory = make_module(tmp_path / "1", "shared_module", "version = 1")

    with on_path(directory, directory):
        assert importlib.import_module("shared_module").version == 1

    assert str(directory) not in sys.path


def test_a_users_module_never_takes_the_place_of_an_installed_one(tmp_path: Path) -> None:
    directory = make_module(tmp_path, "pytest", "raise SystemExit('the wrong module was imported')")
    make_module(tmp_path, "json", "raise SystemExit('the wrong module was imported')")
    make_module(tmp_path, "my_own_module", "")

    with on_path(directory):
        assert "installed module" in (shadowed_module("pytest.Policy", directory) or "")
        assert "installed module" in (shadowed_module("json.Policy", directory) or "")
        assert shadowed_module("my_own_module.Policy", directory) is None
        assert shadowed_module("mettagrid.policy.noop.NoopPolicy", directory) is None
