"""Archives pack the same everywhere, and unpack nothing outside their directory or beyond their limits."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from daf_common.archives import ArchiveError, ArchiveLimits, digest_of, pack, unpack


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "package" / "__pycache__").mkdir(parents=True)
    (root / "package" / "__init__.py").write_text("")
    (root / "package" / "policy.py").write_text("class Policy: ...\n")
    (root / "package" / "__pycache__" / "policy.pyc").write_bytes(b"byte code")
    (root / ".hidden").write_text("secret")
    (root / "module.py").write_text("answer = 42\n")
    return root


def write_zip(path: Path, *entries: tuple[str, bytes], mode: int = stat.S_IFREG | 0o644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            entry = zipfile.ZipInfo(name)
            entry.filename = name  # ZipInfo itself would cut the name at a NUL
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return path


def names_in(data: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(data)).namelist()


def test_the_bytes_depend_on_the_content_alone(project: Path, tmp_path: Path) -> None:
    first = pack([project])
    for file in project.rglob("*"):
        os.utime(file, (0, 0))
        file.chmod(0o700)
    elsewhere = project.rename(tmp_path / "elsewhere")

    assert pack([elsewhere]) == first


def test_a_package_keeps_its_name_and_other_directories_give_their_content(project: Path) -> None:
    assert names_in(pack([project])) == ["module.py", "package/__init__.py", "package/policy.py"]
    assert names_in(pack([project / "package"])) == ["package/__init__.py", "package/policy.py"]
    assert names_in(pack([project / "module.py"])) == ["module.py"]


def test_the_same_file_named_twice_is_packed_once(project: Path) -> None:
    assert pack([project, project / "module.py"]) == pack([project])


def test_what_was_packed_comes_out(project: Path, tmp_path: Path) -> None:
    archive = tmp_path / "code.zip"
    archive.write_bytes(pack([project]))

    unpack(archive, tmp_path / "out")

    assert (tmp_path / "out" / "package" / "policy.py").read_text() == "class Policy: ...\n"
    assert not (tmp_path / "out" / ".hidden").exists()


def test_two_files_of_one_name_are_refused(project: Path, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("another")

    with pytest.raises(ArchiveError, match="comes from both"):
        pack([project, tmp_path / "module.py"])


def test_links_missing_files_and_empty_lists_are_refused(project: Path) -> None:
    with pytest.raises(ArchiveError, match="neither a file nor a directory"):
        pack([project / "missing.py"])
    with pytest.raises(ArchiveError, match="nothing to pack"):
        pack([])
    (project / "link.py").symlink_to("/etc/passwd")
    with pytest.raises(ArchiveError, match="symbolic link"):
        pack([project])


def test_a_project_over_the_limits_is_refused(project: Path) -> None:
    with pytest.raises(ArchiveError, match="3 files are more than the 2"):
        pack([project], ArchiveLimits(entries=2))
    with pytest.raises(ArchiveError, match="bytes, more than the 10"):
        pack([project], ArchiveLimits(bytes=10))


@pytest.mark.parametrize(
    "name",
    [
        "../out.py",
        "a/../../out.py",
        "/etc/cron.d/x",
        "a\\..\\b.py",
        "C:/x.py",
        "./x.py",
        "a//b.py",
        "..",
        "x\0.py",
        "x" * 300,
    ],
)
def test_a_name_that_leaves_its_place_is_refused(name: str, tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "bad.zip", (name, b"content"))

    with pytest.raises(ArchiveError, match="name"):
        unpack(archive, tmp_path / "out")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_special_files_are_refused(kind: int, tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "bad.zip", ("link.py", b"/etc/passwd"), mode=kind | 0o777)

    with pytest.raises(ArchiveError, match="neither a file nor a directory"):
        unpack(archive, tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("a.py", b"1"), ("a.py", b"2")], "twice"),
        ([("a.py", b"1"), ("A.PY", b"2")], "twice"),
        ([("a", b"1"), ("a/b.py", b"2")], "under a file"),
        ([], "empty"),
        ([(f"{number}.py", b"") for number in range(101)], "101 entries"),
        ([("big.py", b"x" * 5000)], "5000 bytes unpacked"),
    ],
)
def test_entries_that_clash_or_are_too_many_are_refused(
    entries: list[tuple[str, bytes]], message: str, tmp_path: Path
) -> None:
    archive = write_zip(tmp_path / "bad.zip", *entries)

    with pytest.raises(ArchiveError, match=message):
        unpack(archive, tmp_path / "out", ArchiveLimits(entries=100, bytes=4000))


def test_a_zip_bomb_is_refused_by_its_ratio(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "bomb.zip", ("zeros.py", b"\0" * (20 << 20)))

    with pytest.raises(ArchiveError, match="times its size"):
        unpack(archive, tmp_path / "out")


def damage_content(data: bytes) -> bytes:
    return data.replace(b"content", b"contend")


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def mark_encrypted(data: bytes) -> bytes:
    central = data.index(b"PK\x01\x02")
    return data[: central + 8] + b"\x01\x00" + data[central + 10 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_content, "not a sound zip"),
        (truncate, "not a sound zip"),
        (lambda data: b"", "not a sound zip"),
        (lambda data: b"text, not a zip", "not a sound zip"),
        (mark_encrypted, "encrypted"),
    ],
)
def test_a_damaged_archive_is_refused(damage: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("content")
    archive = tmp_path / "bad.zip"
    archive.write_bytes(damage(pack([tmp_path / "module.py"])))

    with pytest.raises(ArchiveError, match=message):
        unpack(archive, tmp_path / "out")


def test_a_digest_that_differs_is_an_error(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", ("a.py", b"1"))

    assert digest_of(archive, expected=digest_of(archive)) == digest_of(archive)
    with pytest.raises(ArchiveError, match="has the digest"):
        digest_of(archive, expected="0" * 64)
