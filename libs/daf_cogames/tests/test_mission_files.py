"""A user's own mission is read as cogames reads it, and what is wrong with its file says where."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from pathlib import Path

import pytest
from cogames.cli.mission import get_mission
from cogames.game import save_mission_config

from daf_cogames.artifact_files import ArtifactFiles
from daf_cogames.mission_files import unpack_mission
from daf_cogames.missions import Mission, MissionError, build_mission
from daf_cogames.play.episodes import EpisodeRunner, mission_fields
from daf_cogames.policies import PolicySource
from daf_cogames.seating import EpisodePlan
from daf_cogames.training.assignment import prepared
from daf_cogames.training.train import TrainingPlan, train
from daf_cogames.training.world import World
from daf_common.archives import digest_of, pack
from daf_protos.common.v1.artifact_pb2 import Artifact, ArtifactLocation
from daf_protos.common.v1.mission_pb2 import Mission as MissionMessage
from daf_protos.common.v1.policy_pb2 import PolicyClass
from daf_protos.training.v1.training_job_pb2 import TrainingSpec
from daf_protos.training.v1.worker_service_pb2 import GetAssignmentResponse

PYTHON_MISSION = """
from cogames.cli.mission import get_mission

def get_config():
    _, config, _ = get_mission("cogsguard_arena.basic", cogs=3, steps=25)
    return config
"""


@pytest.fixture
def python_file(tmp_path: Path) -> Path:
    path = tmp_path / "arena_for_three.py"
    path.write_text(PYTHON_MISSION)
    return path


def own(path: Path, **changes: object) -> Mission:
    return Mission(path.stem, file=path, **changes)  # type: ignore[arg-type]


def test_a_python_file_is_the_mission_that_it_returns(python_file: Path) -> None:
    config = build_mission(own(python_file))

    _, expected, _ = get_mission("cogsguard_arena.basic", cogs=3, steps=25)
    assert pickle.dumps(config) == pickle.dumps(expected)
    assert "game_config" not in sys.modules


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_what_cogames_writes_is_the_mission_that_it_reads_from_it(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"mine{suffix}"
    _, written, _ = get_mission("cogsguard_machina_1.miner_tutorial", cogs=2, steps=30)
    save_mission_config(written, path)

    config = build_mission(own(path, max_steps=12, map_seed=5))

    _, expected, _ = get_mission(str(path), steps=12)
    expected.game.map_builder.seed = 5
    assert pickle.dumps(config) == pickle.dumps(expected)


def test_a_pickled_config_comes_through_unchanged(tmp_path: Path) -> None:
    _, config, _ = get_mission("cogsguard_machina_1.miner_tutorial", cogs=4, steps=40)
    path = tmp_path / "config.pickle"
    path.write_bytes(pickle.dumps(config))

    assert build_mission(own(path)) == config


def test_it_is_played_and_its_file_is_part_of_the_digest(python_file: Path, tmp_path: Path) -> None:
    plan = EpisodePlan(0, 7, (0, 0, 0))
    outcome = EpisodeRunner(own(python_file), [PolicySource("starter")]).run(plan)
    other_directory = tmp_path / "elsewhere"
    other_directory.mkdir()
    (other_directory / python_file.name).write_text(PYTHON_MISSION)
    moved = EpisodeRunner(own(other_directory / python_file.name), [PolicySource("starter")]).run(plan)
    python_file.write_text(PYTHON_MISSION + "# changed\n")
    changed = EpisodeRunner(own(python_file), [PolicySource("starter")]).run(plan)

    assert outcome.steps == 25
    assert moved.digest == outcome.digest
    assert changed.rewards == outcome.rewards
    assert changed.digest != outcome.digest


def test_without_a_file_the_fields_in_a_digest_are_what_they_always_were() -> None:
    assert set(mission_fields(Mission("x"))) == {"name", "variants", "cogs", "max_steps", "difficulty", "map_seed"}


def test_it_is_trained_on(python_file: Path, tmp_path: Path) -> None:
    plan = TrainingPlan(
        missions=(own(python_file),),
        policy=PolicySource("lstm_corrected", {"hidden_size": 16}),
        agent_steps=96,
        num_envs=2,
        seed=0,
        directory=tmp_path / "run",
        trainer={"bptt_horizon": 16, "minibatch_size": 96},
    )

    outcome = train(plan, on_progress=lambda progress: None, on_checkpoint=lambda saved: None, stop=lambda: None)

    assert outcome.configuration.agents == 6
    assert outcome.agent_steps == 96


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.yaml", "game:\n  num_agents: 4\n bad indent: 1\n", "bad.yaml:3: "),
        ("bad.yaml", "label: x\ngame: {num_agents: many}\n", "bad.yaml: game.num_agents: Input should be a valid int"),
        ("bad.yaml", "- a\n- list\n", "must be a mapping"),
        ("bad.json", '{"game": {\n"num_agents": }}', "JSONDecodeError: Expecting value: line 2 column 15"),
        ("bad.py", "x = 1\nraise RuntimeError('no luck')\n", "bad.py:2: RuntimeError: no luck"),
        ("bad.py", "def get_config(:\n", "bad.py:1: "),
        ("bad.py", "import not_there\n", "bad.py:1: ModuleNotFoundError: No module named 'not_there'"),
        ("bad.py", "raise SystemExit(3)\n", "bad.py:1: SystemExit: 3"),
        ("bad.py", "x = 1\n", "must define either a 'get_config()' function"),
        ("bad.py", "config = 1\n", "must return a MettaGridConfig"),
        ("bad.pickle", "not a pickle", "UnpicklingError: invalid load key"),
    ],
)
def test_what_gives_no_mission_says_where_and_why(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)

    with pytest.raises(MissionError) as raised:
        build_mission(own(tmp_path / name))

    assert raised.value.field == "file"
    assert message in raised.value.message
    assert str(tmp_path) not in raised.value.message
    assert "game_config" not in sys.modules


def test_a_mission_that_cannot_be_simulated_is_the_files_fault(tmp_path: Path) -> None:
    (tmp_path / "crowd.py").write_text(
        PYTHON_MISSION.replace("    return", "    config.game.num_agents = 50\n    return")
    )

    with pytest.raises(MissionError, match="mission crowd does not build with 50 agents") as raised:
        build_mission(own(tmp_path / "crowd.py"))

    assert raised.value.field == "file"


def test_a_pickle_of_something_else_is_no_mission(tmp_path: Path) -> None:
    (tmp_path / "list.pickle").write_bytes(pickle.dumps([1]))

    with pytest.raises(MissionError, match="holds a list and not a MettaGridConfig"):
        build_mission(own(tmp_path / "list.pickle"))


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"variants": ("dark_side",)}, "variants[0]"), ({"cogs": 2}, "cogs"), ({"difficulty": "easy"}, "difficulty")],
)
def test_what_cogames_would_ignore_of_a_file_is_refused(
    changes: dict[str, object], field: str, python_file: Path
) -> None:
    with pytest.raises(MissionError, match="says this itself") as raised:
        build_mission(own(python_file, **changes))

    assert raised.value.field == field


def test_the_one_file_of_an_archive_is_unpacked(python_file: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive.zip"
    archive.write_bytes(pack([python_file]))

    path = unpack_mission(archive, digest_of(archive), tmp_path / "cache")
    build_mission(own(path))

    assert unpack_mission(archive, digest_of(archive), tmp_path / "cache") == path
    assert path.read_text() == PYTHON_MISSION
    assert path.parent.parent == tmp_path / "cache"


@pytest.mark.parametrize("names", [["a.txt"], ["a.py", "b.py"]])
def test_an_archive_of_anything_else_is_refused(names: list[str], tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    (tmp_path / "archive.zip").write_bytes(content.getvalue())

    with pytest.raises(MissionError, match="exactly one file") as raised:
        unpack_mission(tmp_path / "archive.zip", digest_of(tmp_path / "archive.zip"), tmp_path / "cache")

    assert raised.value.field == "file"


def test_an_archive_that_is_none_is_the_files_fault(tmp_path: Path) -> None:
    (tmp_path / "archive.zip").write_text("no zip")

    with pytest.raises(MissionError, match="cannot be used: not a sound zip archive"):
        unpack_mission(tmp_path / "archive.zip", digest_of(tmp_path / "archive.zip"), tmp_path / "cache")


def test_an_assignment_brings_the_file_that_is_trained_on(python_file: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive.zip"
    archive.write_bytes(pack([python_file]))
    artifact = Artifact(sha256=digest_of(archive), size_bytes=archive.stat().st_size, owner="deployment")
    assignment = GetAssignmentResponse(
        spec=TrainingSpec(
            policy_class=PolicyClass(class_path="daf_cogames.corrected.LSTMPolicy"),
            missions=[MissionMessage(name="mine", file=artifact, max_steps=9)],
            agent_steps=100,
            environments=2,
        ),
        downloads=[ArtifactLocation(artifact=artifact, url=archive.as_uri())],
        stall_seconds=60,
    )

    files = ArtifactFiles(assignment.downloads, tmp_path / "cache")
    with prepared(assignment, files, tmp_path / "run", World(), attempt=1) as preparation:
        [mission] = preparation.plan.missions

    config = build_mission(mission)
    assert mission.name == "mine"
    assert (config.game.num_agents, config.game.max_steps) == (3, 9)
