"""How policies end that play in a sandbox: as forfeits with the reason, and with nothing left behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from mettagrid.policy.policy import MultiAgentPolicy
from mettagrid.policy.policy_env_interface import PolicyEnvInterface

from daf_cogames.missions import Mission, build_mission
from daf_cogames.play.episodes import EpisodeRunner
from daf_cogames.play.failures import CRASHED, FAILED, FLOODED, HUNG, PolicyFailure
from daf_cogames.policies import LoaderError, PolicySource
from daf_cogames.sandbox.sandbox import Sandbox
from daf_cogames.seating import plan_episodes
from libs.daf_cogames.tests.sandboxed import make_bundle, processes

MISSION = Mission("cogsguard_arena.basic", cogs=2, max_steps=10)
PATIENCE_SECONDS = 120.0
HUNG_SECONDS = 6.0

linux = pytest.mark.skipif(sys.platform != "linux", reason="what is enforced is Linux's")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(PATIENCE_SECONDS, memory_bytes=1 << 30) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def hasty() -> Iterator[Sandbox]:
    """For policies that hang."""
    with Sandbox(HUNG_SECONDS, memory_bytes=1 << 30) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def environment() -> PolicyEnvInterface:
    return PolicyEnvInterface.from_mg_cfg(build_mission(MISSION))


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., PolicySource]:
    return partial(make_bundle, tmp_path / "bundle")


def episode(sandbox: Sandbox, *sources: PolicySource) -> EpisodeRunner:
    return EpisodeRunner(MISSION, [PolicySource(**{**vars(source), "elsewhere": sandbox}) for source in sources])


def plan():
    return plan_episodes((0, 0), 1, 7)[0]


@pytest.mark.parametrize(
    ("step", "reason", "said"),
    [
        ("raise RuntimeError('no idea')", FAILED, "in seat 0: RuntimeError: no idea"),
        ("raise SystemExit(0)", FAILED, "in seat 0: SystemExit: 0"),
        ("raise KeyboardInterrupt", FAILED, "in seat 0: KeyboardInterrupt"),
        ("return None", FAILED, "in seat 0: TypeError: step() returned NoneType instead of an Action"),
        ("return Action(name='fly')", FAILED, "is no action of this environment"),
        ("while True: pass", HUNG, f"a step takes longer than {HUNG_SECONDS:g} s"),
        ("__import__('ctypes').PyDLL(None).sleep(1000)", HUNG, f"a step takes longer than {HUNG_SECONDS:g} s"),
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
    sandbox: Sandbox, hasty: Sandbox, bundle: Callable[..., PolicySource], step: str, reason: str, said: str
) -> None:
    runner = episode(hasty if reason is HUNG else sandbox, bundle(step=step), PolicySource("noop"))

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
        ("while True: pass", HUNG, f"loading takes longer than {HUNG_SECONDS:g} s"),
        ("os._exit(7)", CRASHED, "its process ended with exit code 7"),
        ("while True: print('x' * 10000)", FLOODED, "it prints more than 16 MiB"),
    ],
)
def test_a_policy_that_cannot_be_loaded_forfeits(
    sandbox: Sandbox, hasty: Sandbox, bundle: Callable[..., PolicySource], load: str, reason: str, said: str
) -> None:
    with pytest.raises(PolicyFailure) as failure:
        episode(hasty if reason is HUNG else sandbox, bundle(load=load)).run(plan())

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
from pathlib import Path
from daf_cogames.policies import PolicySource
from daf_cogames.missions import Mission, build_mission
from daf_cogames.sandbox.sandbox import Sandbox
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
environment = PolicyEnvInterface.from_mg_cfg(build_mission(Mission("cogsguard_arena.basic", cogs=2)))
sandbox = Sandbox(60, scratch=Path(sys.argv[1]))
policy = sandbox.load(PolicySource("noop"), environment, "cpu")
print("loaded", policy.process._process, flush=True)
time.sleep(600)
"""


@linux
def test_it_dies_with_its_worker(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        line = next(line for line in worker.stdout if line.startswith("loaded"))
        started = [*psutil.Process(worker.pid).children(recursive=True)]
        assert int(line.split()[1]) in [process.pid for process in started]
        worker.kill()
        worker.wait()

        _, alive = psutil.wait_procs(started, timeout=30)

    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_a_warm_process_that_is_lost_is_replaced(environment: PolicyEnvInterface) -> None:
    with Sandbox(PATIENCE_SECONDS) as sandbox:
        sandbox.load(PolicySource("noop"), environment, "cpu")
        for child in psutil.Process().children():
            if str(os.getpid()) in child.cmdline() and sandbox._warm and child.pid == sandbox._warm._process.pid:
                child.kill()
                child.wait()

        with pytest.raises(LoaderError):
            sandbox.load(PolicySource("noop"), environment, "cpu")

        assert sandbox.load(PolicySource("noop"), environment, "cpu")
