from __future__ import annotations

from pathlib import Path

import pytest

from daf.config import DAFSweepConfig
from daf.documents import DocumentError, scalar

GOOD = """\
name: search
missions: [alpha, {mission: beta, cogs: 4}]
policy: lstm
strategy: grid
search_space:
  learning_rate: [1e-4, 0.001]
  hidden_size: [64, 128]
training:
  agent_steps: 1e6
episodes_per_trial: 3
"""


def load(tmp_path: Path, text: str | bytes, name: str = "sweep.yaml") -> DAFSweepConfig:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return DAFSweepConfig.from_yaml(path)


def test_numbers_are_read_as_yaml_1_2_has_them(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)

    assert config.search_space["learning_rate"] == [0.0001, 0.001]
    assert config.training.agent_steps == 1_000_000
    assert [mission.cogs for mission in config.missions] == [None, 4]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("agent_steps", "agent_setps", "9: unknown key 'training.agent_setps'; did you mean 'agent_steps'?"),
        ("training:", "trainig:", "8: unknown key 'trainig'; did you mean 'training'?"),
        ("cogs: 4", "cgos: 4", "2: unknown key 'missions[1].cgos'; did you mean 'cogs'?"),
        ("[64, 128]", "{mni: 1, max: 2}", "7: unknown key 'search_space.hidden_size.mni'; did you mean 'min'?"),
        ("[64, 128]", "{min: 3, max: 1, step: 1}", "7: search_space.hidden_size: min 3 is greater than max 1"),
        (
            "[64, 128]",
            "{min: 0, max: 1, log: true}",
            "7: search_space.hidden_size: a logarithmic scale begins above zero",
        ),
        ("[64, 128]", "{min: 0, max: 1}", "7: search_space.hidden_size: a grid needs listed values"),
        ("[64, 128]", "{min: 1, max: 2e6, int: true}", "7: search_space.hidden_size: 2000000 values are more than"),
        ("[64, 128]", "[]", "7: search_space.hidden_size: list should have at least 1 item"),
        (
            "  learning_rate: [1e-4, 0.001]\n  hidden_size: [64, 128]",
            "  {}",
            "5: search_space: dictionary should have at least 1 item",
        ),
        ("[64, 128]", "64", "7: search_space.hidden_size: should be a list of values"),
        ("[64, 128]", "[[1]]", "7: search_space.hidden_size[0]: should be a number, a text, true or false"),
        ("[64, 128]", "[.nan]", "7: search_space.hidden_size[0]: should be a finite number"),
        ("strategy: grid", "strategy: gird", "4: strategy: should be 'grid', 'random' or 'bayesian', not 'gird'"),
        ("strategy: grid", "num_trials: 3", "4: num_trials: is for strategy random or bayesian"),
        ("trial: 3", "trial: -1", "10: episodes_per_trial: should be greater than or equal to 1, not -1"),
        ("trial: 3", "trial: '3'", "10: episodes_per_trial: should be a valid integer, not '3'"),
        ("trial: 3", "trial: true", "10: episodes_per_trial: should be a valid integer, not True"),
        ("trial: 3", "trial: 3000000000", "10: episodes_per_trial: should be less than or equal to 2147483647"),
        (
            "1e6",
            "1e6\n  trainer: {lr: 1, learning_rate: 2}",
            "10: training.trainer.learning_rate: is learning_rate, which",
        ),
        ("1e6", "1e6\n  workers: 2\n  min_workers: 3", "11: training.min_workers: is more than workers, which is 2"),
        ("policy: lstm", "", "1: policy is missing"),
        (
            "name: search",
            "name: !!python/object:os.system x",
            "1: the tag tag:yaml.org,2002:python/object:os.system is not",
        ),
        ("name: search", "name: x\nname: y", "2: the key 'name' is there twice, first on line 1"),
        ("name: search", "name: [", "3: expected"),
        ("name: search", "name: x\n\tseed: 1", "2: found character"),
        ("name: search", "? [a]\n: b", "1: a list cannot be a key"),
    ],
)
def test_an_error_names_the_line_and_what_to_do(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD

    with pytest.raises(DocumentError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))

    assert f"sweep.yaml:{message}" in str(caught.value)


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DocumentError) as caught:
        load(tmp_path, GOOD.replace("policy", "polcy").replace("trial: 3", "trial: 0"))

    assert [violation.field for violation in caught.value.violations] == ["policy", "episodes_per_trial", "polcy"]


def test_a_document_error_is_a_value_error() -> None:
    assert issubclass(DocumentError, ValueError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: the document is empty"),
        ("- a\n- b", "1: the document is a list"),
        ("word", "1: the document is a single value"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        (b"name: x\nmissions: [caf\xe9]\n", "2: byte 0xe9 is not UTF-8"),
        (b"\x00", "character #x0000"),
        ("[" * 5000, "nested too deeply"),
        ("a: &a [*a]", "too large"),
        ("a: 1 # " + "x" * (1 << 20), "more than the 1048576 bytes"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        load(tmp_path, text)


def test_a_few_lines_of_aliases_do_not_become_billions_of_values(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]

    with pytest.raises(DocumentError, match="with its aliases written out the document is too large"):
        load(tmp_path, "\n".join(lines))


def test_a_missing_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DAFSweepConfig.from_yaml(tmp_path / "none.yaml")


def test_json_is_read_with_lines_too(tmp_path: Path) -> None:
    text = '{\n\t"missions": ["a"],\n\t"policy": "p",\n\t"search_space": {"lr": [1e-3]},\n\t"sede": 1\n}'

    with pytest.raises(DocumentError, match=r"sweep.json:5: unknown key 'sede'; did you mean 'seed'\?"):
        load(tmp_path, text, "sweep.json")
    assert load(tmp_path, text.replace("sede", "seed"), "sweep.json").seed == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [("3e-4", 0.0003), ("7", 7), ("true", True), ("adam", "adam"), ("2026-01-01", "2026-01-01"), ("[1", "[1")],
)
def test_values_on_a_command_line_follow_yaml(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)
