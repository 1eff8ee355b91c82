"""Requirements: read, checked against the runner, resolved, packed once, and refused in plain words."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from daf import wheels
from daf.requirements import Runner, check_against_runner, read_requirements
from daf.wheels import build_wheels, modules_of
from daf_common.archives import ArchiveLimits
from daf_common.errors import FailedPrecondition, InvalidArgument, ResourceExhausted

type MakeWheel = Callable[..., Path]

RUNNER = Runner("3.12", {"numpy": "2.5.5", "torch": "2.9.0"}, frozenset({"numpy", "torch"}))


@pytest.fixture
def index(tmp_path: Path, make_wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of wheels, the only place in which uv looks."""
    directory = tmp_path / "index"
    make_wheel(directory, "tiny", "1.0", {"tiny/__init__.py": "x = 1\n"}, needs=["numpy>=1", "small>=1"])
    make_wheel(directory, "small", "1.5", {"small.py": "x = 2\n"}, needs=["torch"])
    make_wheel(directory, "old_fashioned", "1.0", {"old.py": ""}, needs=["numpy<2"])
    make_wheel(directory, "for_another", "1.0", {"another.py": ""}, tag="cp312-cp312-win_amd64")
    config = tmp_path / "uv.toml"
    config.write_text("no-index = true\n")
    monkeypatch.setenv("UV_CONFIG_FILE", str(config))
    monkeypatch.setenv("UV_FIND_LINKS", str(directory))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return directory


def wheel_names(archive: bytes | None) -> list[str]:
    assert archive is not None
    with zipfile.ZipFile(io.BytesIO(archive)) as content:
        return content.namelist()


def build(cache: Path, *requirements: str, runner: Runner = RUNNER) -> bytes | None:
    return build_wheels(read_requirements(requirements, Path.cwd()), runner, cache)


def test_what_the_runner_lacks_is_packed_with_what_that_needs(index: Path, tmp_path: Path) -> None:
    archive = build(tmp_path / "cache", "tiny", "numpy>=2")

    assert wheel_names(archive) == ["small-1.5-py3-none-any.whl", "tiny-1.0-py3-none-any.whl"]
    assert archive is not None
    assert modules_of(archive) == {"tiny", "small"}


def test_an_archive_is_built_once(index: Path, tmp_path: Path) -> None:
    first = build(tmp_path / "cache", "tiny", "small")
    for wheel in index.iterdir():
        wheel.unlink()

    assert build(tmp_path / "cache", "small", "tiny") == first
    with pytest.raises(InvalidArgument):
        build(tmp_path / "cache", "tiny", "small", runner=Runner("3.12", {"numpy": "2.5.6", "torch": "2.9.0"}))


def test_requirements_that_come_to_the_same_wheels_are_the_same_bytes(index: Path, tmp_path: Path) -> None:
    assert build(tmp_path / "1", "tiny") == build(tmp_path / "2", "tiny>=0.1", "small")


def test_nothing_is_packed_if_the_runner_has_it_all(tmp_path: Path) -> None:
    assert build(tmp_path / "cache", "numpy>=2", "Torch~=2.9.0", "missing; sys_platform == 'win32'") is None
    assert not (tmp_path / "cache").exists()


def test_another_version_of_a_package_of_the_runner_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"requirements: numpy<2: the runner has numpy 2\.5\.5"):
        build(tmp_path / "cache", "numpy<2")
    with pytest.raises(InvalidArgument, match="packages of its extra opt-einsum"):
        check_against_runner(read_requirements(["torch[opt-einsum]"], tmp_path), RUNNER)


def test_a_need_of_a_requirement_that_the_runner_rules_out_is_refused(index: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"old-fashioned.* numpy<2 .*numpy==2\.5\.5 \(which the runner has\)"):
        build(tmp_path / "cache", "old-fashioned")


def test_only_wheels_for_the_runner_are_taken(index: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"manylinux_2_28_x86_64 are taken, nothing is built from source"):
        build(tmp_path / "cache", "for-another")


def test_a_package_that_is_nowhere_is_named(index: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no-such-package was not found"):
        build(tmp_path / "cache", "no-such-package")


def test_without_a_network_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://user:secret@127.0.0.1:9/simple")  # nothing listens there
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))

    with pytest.raises(FailedPrecondition, match="index cannot be reached, so nothing was started") as caught:
        build(tmp_path / "cache", "tiny")

    assert "secret" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_too_many_or_too_large_wheels_are_refused(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "LIMITS", ArchiveLimits(entries=1))
    with pytest.raises(ResourceExhausted, match="requirements: come to 2 wheels, more than 1"):
        build(tmp_path / "cache", "tiny")

    monkeypatch.setattr(wheels, "LIMITS", ArchiveLimits(entries=5, bytes=500))
    with pytest.raises(ResourceExhausted, match="requirements: the wheels have more than"):
        build(tmp_path / "cache", "tiny")


def test_a_file_has_one_requirement_a_line(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("# ours\n\neinops>=0.8  # shapes\nrich ; python_version >= '3.10'\n")

    found = read_requirements("requirements.txt", tmp_path)

    assert [str(requirement) for requirement in found] == ["einops>=0.8", 'rich; python_version >= "3.10"']


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-r other.txt", "requirements.txt, line 2: '-r other.txt' is an option"),
        ("--index-url https://x", "line 2: '--index-url https://x' is an option"),
        ("einops @ https://example.com/einops.whl", "names a place"),
        ("./einops", "is no requirement like"),
        ("einops==1 --hash=sha256:ab", "leave the hashes out"),
    ],
)
def test_what_is_no_requirement_of_a_package_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"einops\n{line}\n")

    with pytest.raises(InvalidArgument, match=message):
        read_requirements("requirements.txt", tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"requirements: none\.txt: No such file"):
        read_requirements("none.txt", tmp_path)
