"""What a policy of somebody else is kept from in its sandbox, by policies that try it."""

from __future__ import annotations

import os
import re
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mettagrid.policy.policy_env_interface import PolicyEnvInterface

from daf_cogames.missions import Mission, build_mission
from daf_cogames.policies import PolicyError
from daf_cogames.sandbox.confinement import MAX_FILE_BYTES
from daf_cogames.sandbox.sandbox import Sandbox
from libs.daf_cogames.tests.sandboxed import make_bundle

MISSION = Mission("cogsguard_arena.basic", cogs=2, max_steps=10)
SECRET = "the-token-of-the-worker"
LIMIT_SECONDS = 120.0

linux = pytest.mark.skipif(sys.platform != "linux", reason="what is enforced is Linux's")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    os.environ["DAF_TEST_SECRET"] = SECRET
    try:
        with Sandbox(LIMIT_SECONDS, memory_bytes=1 << 30) as sandbox:
            yield sandbox
    finally:
        del os.environ["DAF_TEST_SECRET"]


@pytest.fixture(scope="module")
def environment() -> PolicyEnvInterface:
    return PolicyEnvInterface.from_mg_cfg(build_mission(MISSION))


@pytest.fixture
def run(sandbox: Sandbox, environment: PolicyEnvInterface, tmp_path: Path) -> Callable[[str], str]:
    """Runs code in a policy's constructor; returns what the expression `said` then is."""

    def run_in_sandbox(code: str) -> str:
        source = make_bundle(
            tmp_path / "bundle", load=textwrap.dedent(code) + "\nraise RuntimeError('said: ' + str(said))"
        )
        with pytest.raises(PolicyError) as error:
            sandbox.load(source, environment, "cpu")
        match = re.search("said: (.*)", error.value.message)
        return match[1] if match else error.value.message

    return run_in_sandbox


@linux
def test_all_of_the_sandbox_is_enforced_here(sandbox: Sandbox) -> None:
    if os.getuid() == 0:
        assert sandbox.enforced.gaps == []
    assert sandbox.enforced.calls


def test_it_has_nothing_of_the_workers_environment(run: Callable[[str], str]) -> None:
    assert os.environ["DAF_TEST_SECRET"] == SECRET
    names = run("said = sorted(name for name in os.environ)")

    assert "DAF_TEST_SECRET" not in names
    assert "PATH" not in names


@linux
@pytest.mark.parametrize("name", ["environ", "mem", "maps", "fd/0"])
@pytest.mark.parametrize("whose", ["worker", "warm"])
def test_it_cannot_look_into_other_processes(run: Callable[[str], str], name: str, whose: str) -> None:
    process = os.getpid() if whose == "worker" else "{os.getppid()}"

    assert "PermissionError" in run(f"""
        try:
            said = open(f"/proc/{process}/{name}", "rb").read(100)
        except OSError as error:
            said = type(error).__name__
    """)


@linux
@pytest.mark.parametrize(
    "call",
    [
        "os.kill({pid}, 9)",
        "os.kill({pid}, 0)",
        "os.kill(os.getppid(), 9)",
        "os.killpg(os.getpgid({pid}), 9)",
        "os.kill(-1, 9)",
        "os.kill(0, 15)",
        "os.setpriority(os.PRIO_PROCESS, {pid}, 19)",
        "os.sched_setaffinity({pid}, {{0}})",
        "__import__('resource').prlimit({pid}, __import__('resource').RLIMIT_NOFILE, (0, 0))",
        "os.pidfd_open({pid})",
    ],
)
def test_it_cannot_act_on_other_processes(run: Callable[[str], str], call: str) -> None:
    assert run(refused(call.format(pid=os.getpid()))) == "PermissionError"


@linux
@pytest.mark.parametrize(
    "call",
    [
        "__import__('subprocess').run(['/bin/true'])",
        "os.system('true') and exec('raise PermissionError')",
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "__import__('multiprocessing').get_context('spawn').Process().start()",
        "os.execv('/bin/true', ['true'])",
    ],
)
def test_it_starts_no_processes(run: Callable[[str], str], call: str) -> None:
    assert run(refused(call)) == "PermissionError"


@linux
@pytest.mark.parametrize(
    "call",
    [
        "socket.create_connection(('127.0.0.1', {port}), 1)",
        "socket.create_connection(('1.1.1.1', 53), 1)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
        "socket.socket(socket.AF_INET6)",
        "socket.socket(socket.AF_UNIX).connect({path!r})",
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_NETLINK)",
    ],
)
def test_it_reaches_no_network_and_no_service(run: Callable[[str], str], tmp_path: Path, call: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "service"))
        local.listen()
        port = server.getsockname()[1]

        assert run("import socket\n" + refused(call.format(port=port, path=str(tmp_path / "service")))) == (
            "PermissionError"
        )


@linux
def test_it_reads_no_file_of_others(run: Callable[[str], str], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o666)
    tmp_path.chmod(0o777)
    tries = [str(secret), "/etc/passwd", "/proc/self/environ", "/proc/1/cmdline", str(Path.home() / ".profile")]

    said = run(f"""
        said = []
        for path in {tries}:
            for flags in (os.O_RDONLY, os.O_WRONLY):
                try:
                    said.append(os.read(os.open(path, flags), 100))
                except OSError as error:
                    said.append(type(error).__name__)
        try:
            said.append(os.listdir({str(tmp_path)!r}))
        except OSError as error:
            said.append(type(error).__name__)
    """)

    assert set(re.findall(r"\w+", said)) <= {"PermissionError", "FileNotFoundError"}
    assert secret.read_text() == SECRET


@linux
@pytest.mark.parametrize(
    "call",
    [
        "open({outside!r} + '/new', 'w')",
        "open({outside!r} + '/old', 'a')",
        "os.truncate({outside!r} + '/old', 0)",
        "os.unlink({outside!r} + '/old')",
        "os.rename({outside!r} + '/old', 'mine')",
        "os.link({outside!r} + '/old', 'mine')",
        "os.mkdir({outside!r} + '/directory')",
        "os.symlink('/', {outside!r} + '/link')",
        "open(os.path.dirname(__file__) + '/hostile.py', 'a')",
        "open(os.__file__, 'a')",
        "open('/dev/shm/left-behind', 'w')",
        "open('/tmp/left-behind', 'w')",
        "os.memfd_create('memory')",
    ],
)
def test_it_writes_nothing_of_others(run: Callable[[str], str], tmp_path: Path, call: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    (outside / "old").write_text("old")
    (outside / "old").chmod(0o666)

    assert run(refused(call.format(outside=str(outside)))) in ("PermissionError", "OSError")
    assert (outside / "old").read_text() == "old"
    assert [entry.name for entry in outside.iterdir()] == ["old"]


@linux
def test_it_changes_no_metadata_and_is_told_otherwise(run: Callable[[str], str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    file.chmod(0o640)

    assert run(f"""
        os.chmod({str(file)!r}, 0o777)
        os.utime({str(file)!r}, (1, 1))
        said = "done"
    """) == ("done")
    assert file.stat().st_mode & 0o777 == 0o640
    assert file.stat().st_mtime > 1


@linux
def test_it_has_a_directory_of_its_own_to_write_to(run: Callable[[str], str]) -> None:
    assert run("""
        import tempfile, shutil
        open("notes", "w").write("mine")
        shutil.copy("notes", "copy")
        with tempfile.NamedTemporaryFile("w+") as file:
            file.write("x")
        said = os.path.expanduser("~") == os.getcwd(), sorted(os.listdir("."))
    """) == ("(True, ['copy', 'notes'])")


@linux
def test_what_it_writes_is_limited(run: Callable[[str], str]) -> None:
    assert run(f"""
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            with open("large", "wb") as file:
                file.truncate({MAX_FILE_BYTES + 1})
            said = "written"
        except OSError as error:
            said = error.errno
    """) == ("27")


@linux
def test_threads_may_be_started(run: Callable[[str], str]) -> None:
    assert run("""
        import threading
        said = []
        thread = threading.Thread(target=said.append, args=(1,))
        thread.start()
        thread.join()
    """) == ("[1]")


@linux
def test_a_bomb_of_threads_does_not_reach_the_machine(run: Callable[[str], str]) -> None:
    said = run("""
        import threading, time
        threading.stack_size(32768)
        said = 0
        try:
            while said < 5000:
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                said += 1
        except RuntimeError:
            pass
    """)

    assert int(said) < 5000 or os.getuid() != 0


def test_memory_is_limited(run: Callable[[str], str]) -> None:
    assert run("""
        taken = []
        try:
            while True:
                taken.append(bytearray(1 << 26))
        except MemoryError:
            said = 0 < len(taken) <= 16
    """) == ("True")


def refused(call: str) -> str:
    """Code that makes a call and says which error it ends with."""
    return f"try:\n    said = {call}\nexcept OSError as error:\n    said = type(error).__name__\n"
