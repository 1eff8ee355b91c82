"""Wheels are installed once, whole, and come last on the path."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from daf_cogames.code import on_path
from daf_cogames.wheels import WHEELS_LIMITS, install_wheels, requirements_on_path
from daf_common.archives import ArchiveError, digest_of, pack

type MakeWheel = Callable[..., Path]

INSTALL = """
import sys
from pathlib import Path
from daf_cogames.wheels import install_wheels
archive, digest, cache = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
directory = install_wheels(Path(archive), digest, Path(cache))
print(len(list((directory / "tiny").glob("m*.py"))))
"""


def archive_of(path: Path, *wheels: Path) -> tuple[Path, str]:
    path.write_bytes(pack(wheels, WHEELS_LIMITS))
    return path, digest_of(path)


def installed(make_wheel: MakeWheel, directory: Path, name: str, version: str, module: str = "tiny") -> Path:
    wheel = make_wheel(directory, name, version, {f"{module}/__init__.py": f"version = {version!r}\n"})
    archive, digest = archive_of(directory / f"{name}-{version}.zip", wheel)
    return install_wheels(archive, digest, directory / "cache")


def test_an_archive_of_wheels_is_installed_under_its_digest_once(make_wheel: MakeWheel, tmp_path: Path) -> None:
    tiny = make_wheel(
        tmp_path / "w",
        "tiny",
        "1.0",
        {"tiny/__init__.py": "from other import value\n", "tiny-1.0.data/data/share/tiny.txt": "data"},
    )
    other = make_wheel(tmp_path / "w", "other", "2.0", {"other.py": "value = 3\n"})
    archive, digest = archive_of(tmp_path / "wheels.zip", tiny, other)

    directory = install_wheels(archive, digest, tmp_path / "cache")
    archive.unlink()

    assert install_wheels(archive, digest, tmp_path / "cache") == directory == tmp_path / "cache" / digest
    assert list((tmp_path / "cache").iterdir()) == [directory]
    assert (directory / "share" / "tiny.txt").read_text() == "data"
    with requirements_on_path(directory):
        assert importlib.import_module("tiny").value == 3
        assert version("tiny") == "1.0"
    assert "tiny" not in sys.modules
    assert str(directory) not in sys.path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("nonsense.whl", b"no wheel"),
        ("tiny-1.0-py3-none-any.whl", b"no zip"),
        ("tiny.txt", b"what is this"),
    ],
)
def test_what_is_no_wheel_is_refused_and_leaves_nothing(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    archive, digest = archive_of(tmp_path / "wheels.zip", tmp_path / name)

    with pytest.raises(ArchiveError, match=name):
        install_wheels(archive, digest, tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


def test_a_wheel_does_not_reach_outside(make_wheel: MakeWheel, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "tiny", "1.0", {"../../escaped.py": ""})
    archive, digest = archive_of(tmp_path / "wheels.zip", wheel)

    with pytest.raises(ArchiveError, match="forbidden name"):
        install_wheels(archive, digest, tmp_path / "cache")

    assert not list(tmp_path.rglob("escaped.py"))


def test_several_processes_that_install_at_once_all_find_it_whole(make_wheel: MakeWheel, tmp_path: Path) -> None:
    files = {f"tiny/m{number}.py": f"value = {number}\n" for number in range(200)}
    archive, digest = archive_of(tmp_path / "wheels.zip", make_wheel(tmp_path, "tiny", "1.0", files))

    command = [sys.executable, "-c", INSTALL, str(archive), digest, str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # ready
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0] for process in processes]

    assert outputs == [b"200\n"] * 3
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [digest]


def test_a_wheel_never_takes_the_place_of_an_installed_package_or_of_the_users_module(
    make_wheel: MakeWheel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest_1 = installed(make_wheel, tmp_path / "1", "pytest", "1.0", module="pytest")
    helper = installed(make_wheel, tmp_path / "2", "helper", "1.0", module="shadowed_helper")
    code = tmp_path / "code"
    code.mkdir()
    (code / "shadowed_helper.py").write_text("version = 'mine'")

    with on_path(code), requirements_on_path(pytest_1, helper):
        assert importlib.import_module("pytest").__version__ == pytest.__version__
        assert importlib.import_module("shadowed_helper").version == "mine"

    assert f"own pytest {pytest.__version__} is used, not the required 1.0" in caplog.text


def test_two_policies_may_share_a_package_but_not_need_two_versions_of_it(
    make_wheel: MakeWheel, tmp_path: Path
) -> None:
    first = installed(make_wheel, tmp_path / "1", "tiny", "1.0")
    again = installed(make_wheel, tmp_path / "2", "tiny", "1.0")
    second = installed(make_wheel, tmp_path / "3", "tiny", "2.0")
    before = list(sys.path)

    with requirements_on_path(first, again):
        assert importlib.import_module("tiny").version == "1.0"
    with pytest.raises(ImportError, match=r"tiny 1\.0 and 2\.0"), requirements_on_path(first, second):
        pass

    assert sys.path == before
