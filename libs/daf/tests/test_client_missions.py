"""Missions by pattern, by set, and from files of the user's own."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from mettagrid import MettaGridConfig

from daf.convert import mission_config, mission_messages
from daf.missions import SETS, OwnMission, expand, is_file, pack_config, stands_for_several
from daf.references import MissionConfig
from daf_cogames.catalog import catalog
from daf_common.errors import InvalidArgument
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.training.v1.catalog_service_pb2 import MissionInfo

KNOWN = [
    MissionInfo(name="arena.basic"),
    MissionInfo(name="arena.hard", sets=["diagnostic_evals", "all"]),
    MissionInfo(name="arena.never", sets=["diagnostic_evals"], problem="does not build"),
    MissionInfo(name="machina.basic", sets=["all"]),
]


class Store:
    """Keeps what is uploaded."""

    def __init__(self) -> None:
        self.uploaded: list[OwnMission] = []

    def mission(self, mission: OwnMission) -> Artifact:
        self.uploaded.append(mission)
        return Artifact(sha256=hashlib.sha256(mission.archive).hexdigest(), owner="deployment")

    def missions(self) -> Sequence[MissionInfo]:
        return KNOWN


def messages(directory: Path, *missions: Any) -> tuple[list[Any], Store]:
    store = Store()
    configs = [MissionConfig.model_validate(mission) for mission in missions]
    return mission_messages(configs, "missions", directory, store), store  # type: ignore[arg-type]


def names(mission: str) -> list[str]:
    return [found.mission for found in expand(MissionConfig(mission=mission), KNOWN, "missions[0]")]


@pytest.mark.parametrize(
    ("mission", "found"),
    [
        ("arena.*", ["arena.basic", "arena.hard"]),
        ("*basic", ["arena.basic", "machina.basic"]),
        ("a*b*c", ["arena.basic", "machina.basic"]),
        ("rena*hard", ["arena.hard"]),
        ("*", ["arena.basic", "arena.hard", "machina.basic"]),
        ("diagnostic_evals", ["arena.hard"]),
        ("all", ["arena.hard", "machina.basic"]),
    ],
)
def test_patterns_and_sets_stand_for_missions_that_build(mission: str, found: list[str]) -> None:
    assert stands_for_several(mission)
    assert names(mission) == found


def test_names_stand_for_themselves(tmp_path: Path) -> None:
    given = ["arena.basic", "arena.unknown", "arena.never", "training_facility_1"]

    found, _ = messages(tmp_path, *given)

    assert [mission.name for mission in found] == given


def test_the_sets_are_those_of_the_catalogue() -> None:
    assert set(SETS) == {name for mission in catalog().missions.values() for name in mission.sets}


def test_each_mission_of_a_pattern_has_the_same_changes(tmp_path: Path) -> None:
    found, _ = messages(tmp_path, {"mission": "arena.*", "cogs": 4, "variants": ["dark_side"]}, "machina.basic")

    assert [(mission.name, mission.cogs, list(mission.variants)) for mission in found] == [
        ("arena.basic", 4, ["dark_side"]),
        ("arena.hard", 4, ["dark_side"]),
        ("machina.basic", 0, []),
    ]


def test_a_pattern_that_fits_nothing_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"missions\[1\].*no mission fits 'arena.bsic\*'.*'arena.basic'"):
        messages(tmp_path, "arena.basic", "arena.bsic*")


@pytest.mark.parametrize("name", ["mine.py", "sub/mine.yaml", "./m.yml", "~/a.json", "x.pickle"])
def test_files_are_told_from_names_by_their_endings(name: str) -> None:
    assert is_file(name)
    assert not is_file(f"{name}.basic")


def test_a_file_is_packed_alone_and_uploaded(tmp_path: Path) -> None:
    (tmp_path / "my missions.v2.py").write_text("config = 1\n")
    (tmp_path / "other.py").write_text("secret = 1\n")

    [message], store = messages(tmp_path, {"mission": "my missions.v2.py", "max_steps": 20})

    assert message.name == "my-missions-v2"
    assert message.max_steps == 20
    assert message.file.owner == "deployment"
    with zipfile.ZipFile(BytesIO(store.uploaded[0].archive)) as archive:
        assert archive.namelist() == ["my missions.v2.py"]


def test_a_stored_mission_goes_into_a_document_and_back_without_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("config = 1\n")
    [message], _ = messages(tmp_path, "mine.py")

    [again], store = messages(tmp_path / "elsewhere", mission_config(message))

    assert again == message
    assert store.uploaded == []


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("m.yaml", "game:\n  a: 1\n b: 2\n", "m.yaml:3: "),
        ("m.yml", "a: [1, 2\nb: 3\n", "m.yml:2: "),
        ("m.yaml", "a: \x00", "m.yaml: cannot be read"),
        ("m.json", '{"game": {\n"a": }}', "m.json:2: Expecting value"),
        ("m.py", "x = 1\ndef get_config(:\n", "m.py:2: "),
        ("m.py", "\x00", "m.py"),
    ],
)
def test_a_file_that_cannot_be_read_names_the_line_and_nothing_is_uploaded(
    name: str, content: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)

    with pytest.raises(InvalidArgument) as raised:
        messages(tmp_path, name)

    assert [violation.field for violation in raised.value.violations] == ["missions[0]"]
    assert problem in str(raised.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"missions\[0\].*cannot read the mission .*none.py: No such file"):
        messages(tmp_path, "none.py")


def test_a_config_made_in_python_is_a_mission_that_documents_can_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAF_HOME", str(tmp_path))
    config = MettaGridConfig.EmptyRoom(num_agents=2)

    mission = pack_config(config, "empty room")
    again = pack_config(config, "empty room")
    [message], store = messages(Path("/"), mission)

    assert again == mission
    assert message.name == "empty-room"
    with zipfile.ZipFile(BytesIO(store.uploaded[0].archive)) as archive:
        assert pickle.loads(archive.read("empty-room.pickle")) == config


def test_what_is_no_config_is_not_packed() -> None:
    with pytest.raises(InvalidArgument, match="is a dict and no MettaGridConfig"):
        pack_config({"game": {}})


def test_a_file_on_the_command_line_is_relative_to_where_the_user_is(
    daf: Any, with_services: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.yaml").write_text("missions: [arena.basic]\npolicy: lstm\n")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.py").write_text("config = 1\n")
    monkeypatch.chdir(tmp_path / "here")

    outcome = daf("train", "../run.yaml", "-m", "mine.py", "--map-seed", "3", "--detach")

    [mission] = with_services.training.requests[-1].spec.missions
    assert outcome.code == 0, outcome.err
    assert (mission.name, mission.map_seed) == ("mine", 3)
    with zipfile.ZipFile(BytesIO(with_services.artifacts.stored[mission.file.sha256])) as archive:
        assert archive.namelist() == ["mine.py"]


def test_a_file_in_a_document_is_relative_to_the_document(daf: Any, with_services: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("config = 1\n")
    (tmp_path / "run.yaml").write_text("missions: [{mission: mine.py, max_steps: 9}]\npolicy: lstm\n")

    outcome = daf("train", str(tmp_path / "run.yaml"), "--detach")

    [mission] = with_services.training.requests[-1].spec.missions
    assert outcome.code == 0, outcome.err
    assert (mission.name, mission.max_steps, mission.HasField("file")) == ("mine", 9, True)


def test_a_pattern_on_the_command_line_stands_for_what_builds(daf: Any, with_services: Any) -> None:
    daf("train", "-m", "*_tutorial", "-p", "lstm", "--cogs", "4", "--detach")

    [mission] = with_services.training.requests[-1].spec.missions
    assert (mission.name, mission.cogs) == ("cogsguard_machina_1.miner_tutorial", 4)


def test_a_set_that_is_none_is_refused_with_the_nearest(daf: Any, with_services: Any) -> None:
    for command in ("train", "evaluate"):
        outcome = daf(command, "-S", "diagnostic_eval", "-p", "lstm")

        assert outcome.code == 2
        assert "there is no mission set 'diagnostic_eval'; did you mean 'diagnostic_evals'?" in outcome.err
    assert with_services.training.requests == []


def test_what_is_wrong_with_a_policy_is_said_before_it_is_trained(
    daf: Any, with_services: Any, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = daf("train", "-m", "cogsguard_machina_1.miner_tutorial", "-p", "lstm", "--detach")

    assert outcome.code == 0
    assert caplog.messages == ["lstm: pads otherwise"]
