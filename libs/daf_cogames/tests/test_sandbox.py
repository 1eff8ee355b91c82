"""What a policy of somebody else may do in its sandbox, and what it is kept from: by real processes."""

from __future__ import annotations

import gc
import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from mettagrid.policy.policy import MultiAgentPolicy
from mettagrid.policy.policy_env_interface import PolicyEnvInterface

from daf_cogames.bundle_files import bundle_policy
from daf_cogames.confinement import MAX_FILE_BYTES
from daf_cogames.episodes import EpisodeRunner
from daf_cogames.failures import CRASHED, FAILED, FLOODED, HUNG, PolicyFailure
from daf_cogames.missions import Mission, build_mission
from daf_cogames.policies import LoaderError, PolicyError, PolicySource
from daf_cogames.sandbox import Sandbox
from daf_cogames.seating import plan_episodes

MISSION = Mission("cogsguard_arena.basic", cogs=2, max_steps=10)
SECRET = "the-token-of-the-worker"
LIMIT_SECONDS = 3.0

linux = pytest.mark.skipif(sys.platform != "linux", reason="what is enforced is Linux's")

POLICY = """
import os, sys
from mettagrid.policy.policy import AgentPolicy, MultiAgentPolicy
from mettagrid.simulator import Action

class Agent(AgentPolicy):
    def step(self, obs):
        {step}
        return Action(name="noop")

class Policy(MultiAgentPolicy):
    def __init__(self, policy_env_info, device="cpu", **kwargs):
        super().__init__(policy_env_info)
        {load}

    def agent_policy(self, agent_id):
        return Agent(self._policy_env_info)
"""


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
def bundle(tmp_path: Path) -> Callable[..., PolicySource]:
    """Makes the directory of a bundle."""

    def make(load: str = "pass", step: str = "pass", setup: str | None = None, **files: str) -> PolicySource:
        root = tmp_path / "bundle"
        root.mkdir()
        parts = {"load": load, "step": step}
        parts = {name: textwrap.indent(textwrap.dedent(code), " " * 8).strip() for name, code in parts.items()}
        (root / "hostile.py").write_text(POLICY.format(**parts))
        spec = {"class_path": "hostile.Policy", "setup_script": setup and "setup_policy.py"}
        (root / "policy_spec.json").write_text(json.dumps(spec))
        if setup:
            (root / "setup_policy.py").write_text(textwrap.dedent(setup))
        return bundle_policy(root)

    return make


@pytest.fixture
def run(sandbox: Sandbox, environment: PolicyEnvInterface, bundle: Callable[..., PolicySource]) -> Callable[[str], str]:
    """Runs code in a policy's constructor; returns what the expression `said` then is."""

    def run_in_sandbox(code: str) -> str:
        source = bundle(load=textwrap.dedent(code) + "\nraise RuntimeError('said: ' + str(said))")
        with pytest.raises(PolicyError) as error:
            sandbox.load(source, environment, "cpu")
        match = re.search("said: (.*)", error.value.message)
        return match[1] if match else error.value.message

    return run_in_sandbox


def episode(sandbox: Sandbox, *sources: PolicySource) -> EpisodeRunner:
    return EpisodeRunner(MISSION, [PolicySource(**{**vars(source), "elsewhere": sandbox}) for source in sources])


def plan():
    return plan_episodes((0, 0), 1, 7)[0]


def processes() -> list[psutil.Process]:
    """The processes of policies; those that were killed are given time to end."""
    for _ in range(500):
        warm = [child for child in psutil.Process().children() if "daf_cogames.sandbox_child" in child.cmdline()]
        forked = [child for process in warm for child in process.children(recursive=True)]
        alive = [child for child in forked if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        if not alive:
            break
        time.sleep(0.01)
    return alive


# What it is kept from.


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


# How it ends.


@pytest.mark.parametrize(
    ("step", "reason", "said"),
    [
        ("raise RuntimeError('no idea')", FAILED, "in seat 0: RuntimeError: no idea"),
        ("raise SystemExit(0)", FAILED, "in seat 0: SystemExit: 0"),
        ("raise KeyboardInterrupt", FAILED, "in seat 0: KeyboardInterrupt"),
        ("return None", FAILED, "in seat 0: TypeError: step() returned NoneType instead of an Action"),
        ("return Action(name='fly')", FAILED, "is no action of this environment"),
        ("while True: pass", HUNG, "a step takes longer than 3 s"),
        ("__import__('ctypes').PyDLL(None).sleep(1000)", HUNG, "a step takes longer than 3 s"),
        ("os._exit(3)", CRASHED, "its process ended with exit code 3"),
        ("os._exit(0)", CRASHED, "its process ended with exit code 0"),
        ("os.abort()", CRASHED, "its process was ended by SIGABRT"),
        ("os.kill(os.getpid(), 9)", CRASHED, "its process was ended by SIGKILL"),
        ("__import__('ctypes').string_at(0)", CRASHED, "its process was ended by SIGSEGV"),
        ("while True: print('x' * 10000)", FLOODED, "it prints more than 16 MiB"),
        ("while True: os.write(2, b'x' * 10000)", FLOODED, "it prints more than 16 MiB"),
        ("os.closerange(0, 200)", CRASHED, "its process ended with exit code 1"),
        ("os.closerange(0, 200)\nimport time\ntime.sleep(1000)", FAILED, "it has closed its channel"),
    ],
)
def test_a_policy_that_ends_badly_forfeits_and_the_next_episode_begins_anew(
    sandbox: Sandbox, bundle: Callable[..., PolicySource], step: str, reason: str, said: str
) -> None:
    runner = episode(sandbox, bundle(step=step), PolicySource("noop"))

    with pytest.raises(PolicyFailure) as failure:
        runner.run(plan())

    assert (failure.value.policy, failure.value.stage, failure.value.reason) == (0, "step", reason)
    assert said in failure.value.message
    assert processes() == []
    assert runner.run(plan_episodes((1, 1), 1, 7)[0]).steps == MISSION.max_steps


@pytest.mark.parametrize(
    ("load", "reason", "said"),
    [
        ("raise RuntimeError('no luck')", FAILED, "hostile.Policy could not be constructed: RuntimeError: no luck"),
        ("while True: pass", HUNG, "loading takes longer than 3 s"),
        ("os._exit(7)", CRASHED, "its process ended with exit code 7"),
        ("while True: print('x' * 10000)", FLOODED, "it prints more than 16 MiB"),
    ],
)
def test_a_policy_that_cannot_be_loaded_forfeits(
    sandbox: Sandbox, bundle: Callable[..., PolicySource], load: str, reason: str, said: str
) -> None:
    with pytest.raises(PolicyFailure) as failure:
        episode(sandbox, bundle(load=load)).run(plan())

    assert (failure.value.policy, failure.value.stage, failure.value.reason) == (0, "load", reason)
    assert said in failure.value.message


CHANNEL = """
import pickle, struct
for channel in range(3, 200):
    try:
        os.fstat(channel)
        break
    except OSError:
        pass
"""


@pytest.mark.parametrize(
    "forged",
    [
        "pickle.dumps(print)",
        "b'\\xff' * 100",
        "struct.pack('<BI', 2, 4) + struct.pack('<HH', 60000, 0xFFFF)",
        "struct.pack('<BI', 2, 8) + struct.pack('<HHHH', 0, 60000, 0, 60000)",
        "struct.pack('<BI', 2, 0xFFFFFFFF)",
        "struct.pack('<BI', 2, 0) * 10",
        "struct.pack('<BI', 3, 1) + b'x'",
        "struct.pack('<BI', 3, 60000) + b'x' * 60000",
        "struct.pack('<BI', 2, 0)",
        "struct.pack('<BI', 1, 0)",
        "struct.pack('<BI', 4, 0)",
        "struct.pack('<BI', 99, 0)",
    ],
)
def test_what_is_forged_on_its_channel_is_refused(
    sandbox: Sandbox, bundle: Callable[..., PolicySource], forged: str
) -> None:
    source = bundle(step=f"{CHANNEL}\nos.write(channel, {forged})\nimport time\ntime.sleep(1000)")

    with pytest.raises(PolicyFailure, match="it answers nonsense") as failure:
        episode(sandbox, source).run(plan())

    assert failure.value.reason == FAILED


def test_a_forged_text_is_one_printable_line(sandbox: Sandbox, bundle: Callable[..., PolicySource]) -> None:
    text = "b'\\x1b[2J\\n\\nERROR root: all is \\xff lost'"
    source = bundle(
        step=f"{CHANNEL}\ntext = {text}\nos.write(channel, struct.pack('<BIH', 3, 2 + len(text), 1) + text)"
        "\nimport time\ntime.sleep(1000)"
    )

    with pytest.raises(PolicyFailure) as failure:
        episode(sandbox, source).run(plan())

    assert failure.value.message == "in seat 1: [2J ERROR root: all is \ufffd lost"


def test_it_cannot_rewrite_its_reward(sandbox: Sandbox, bundle: Callable[..., PolicySource]) -> None:
    rewrite = """
        import gc, numpy
        for thing in gc.get_objects():
            if hasattr(thing, "episode_rewards"):
                thing.episode_rewards[:] = 1e6
            if isinstance(thing, numpy.ndarray) and thing.dtype == numpy.float32 and thing.flags.writeable:
                thing[...] = 1e6
    """

    outcome = episode(sandbox, bundle(step=rewrite)).run(plan())

    assert outcome.rewards == EpisodeRunner(MISSION, [PolicySource("noop")]).run(plan()).rewards


def test_an_episode_sees_nothing_of_the_one_before(sandbox: Sandbox, bundle: Callable[..., PolicySource]) -> None:
    source = bundle(
        step="""
        import builtins
        assert not os.path.exists("left behind") or getattr(builtins, "mine", False)
        builtins.mine = True
        open("left behind", "w").close()
    """
    )
    runner = episode(sandbox, source)

    assert runner.run(plan()).digest == runner.run(plan()).digest


def test_its_output_is_passed_on_in_part(
    sandbox: Sandbox, bundle: Callable[..., PolicySource], capsys: pytest.CaptureFixture[str]
) -> None:
    episode(sandbox, bundle(step="print('hello from a policy')\nprint('x' * 100_000)")).run(plan())

    said = capsys.readouterr().out
    assert said.startswith("hello from a policy\n")
    assert "the rest of what it prints in this episode is dropped" in said
    assert len(said) < 300_000


def test_no_process_outlives_its_policy(sandbox: Sandbox, environment: PolicyEnvInterface) -> None:
    policy: MultiAgentPolicy | None = sandbox.load(PolicySource("noop"), environment, "cpu")
    assert policy is not None

    del policy
    gc.collect()

    assert processes() == []


WORKER = """
import sys, time
from daf_cogames.policies import PolicySource
from daf_cogames.missions import Mission, build_mission
from daf_cogames.sandbox import Sandbox
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
environment = PolicyEnvInterface.from_mg_cfg(build_mission(Mission("cogsguard_arena.basic", cogs=2)))
sandbox = Sandbox(60)
policy = sandbox.load(PolicySource("noop"), environment, "cpu")
print("loaded", policy.process._process, flush=True)
time.sleep(600)
"""


@linux
def test_it_dies_with_its_worker() -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        line = next(line for line in worker.stdout if line.startswith("loaded"))
        started = [*psutil.Process(worker.pid).children(recursive=True)]
        assert int(line.split()[1]) in [process.pid for process in started]
        worker.kill()
        worker.wait()

        _, alive = psutil.wait_procs(started, timeout=10)

    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_a_warm_process_that_is_lost_is_replaced(environment: PolicyEnvInterface) -> None:
    with Sandbox(20) as sandbox:
        sandbox.load(PolicySource("noop"), environment, "cpu")
        for child in psutil.Process().children():
            if str(os.getpid()) in child.cmdline() and sandbox._warm and child.pid == sandbox._warm._process.pid:
                child.kill()
                child.wait()

        with pytest.raises(LoaderError):
            sandbox.load(PolicySource("noop"), environment, "cpu")

        assert sandbox.load(PolicySource("noop"), environment, "cpu")
