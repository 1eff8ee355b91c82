"""The document of a comparison, policies as Python calls give them, and baselines by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from mettagrid.policy.policy import PolicySpec

from daf.comparisons import baseline_number, evaluation_config
from daf.config import DAFComparisonConfig
from daf.documents import DocumentError
from daf.policy_arguments import given_policy
from daf.references import PolicyConfig
from daf_common.errors import InvalidArgument

EXAMPLE = Path(__file__).parents[3] / "examples" / "comparison_config.yaml"


def test_the_example_is_read_and_written_again(tmp_path: Path) -> None:
    config = DAFComparisonConfig.from_yaml(EXAMPLE)
    config.to_yaml(tmp_path / "again.yaml")

    assert DAFComparisonConfig.from_yaml(tmp_path / "again.yaml").model_dump() == config.model_dump()
    assert (config.episodes_per_mission, config.family, config.margin) == (10, "holm", 0.01)
    evaluation = evaluation_config(config)
    assert (evaluation.team, evaluation.episodes, evaluation.directory) == ("solo", 10, EXAMPLE.parent)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("episode_per_mission: 5", "4: unknown key 'episode_per_mission'; did you mean 'episodes_per_mission'?"),
        ("alpha: 0", "4: alpha: should be greater than or equal to 0.001, not 0"),
        ("margin: -1", "4: margin: should be greater than 0, not -1"),
        ("family: none", "4: family: should be 'holm' or 'bh', not 'none'"),
        ("episodes_per_mission: 0", "4: episodes_per_mission: should be greater than or equal to 1, not 0"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "comparison.yaml"
    path.write_text(f"policies: [random, starter]\nmissions:\n  - some.mission\n{line}\n")

    with pytest.raises(DocumentError) as refused:
        DAFComparisonConfig.from_yaml(path)

    assert str(refused.value) == f"{path}:{problem}"


def test_reports_that_are_not_built_are_said_to_have_no_effect() -> None:
    with pytest.warns(UserWarning, match="generate_html_report has no effect yet"):
        DAFComparisonConfig(policies=["random", "starter"], missions=["m.n"], generate_html_report=True)


def test_policies_are_names_mappings_or_specs_of_cogames(tmp_path: Path) -> None:
    spec = PolicySpec(class_path="lstm", data_path=str(tmp_path / "w.pt"), init_kwargs={"hidden_size": 8})

    given = [given_policy(policy, 0) for policy in ("random", {"policy": "starter", "label": "s"}, spec)]

    assert given == [
        PolicyConfig(policy="random"),
        PolicyConfig(policy="starter", label="s"),
        PolicyConfig(policy="lstm", weights=str(tmp_path / "w.pt"), arguments={"hidden_size": 8}),
    ]
    with pytest.raises(InvalidArgument, match=r"policies\[3\]: is a int"):
        given_policy(7, 3)


def test_a_baseline_is_named_by_its_label_or_as_the_policy_is() -> None:
    policies = [PolicyConfig(policy="random"), PolicyConfig(policy="a.B", arguments={"n": 3}, label="mine")]

    assert baseline_number("mine", ["random", "mine"], policies) == 1
    assert baseline_number("random", ["random-1", "mine"], policies) == 0
    with pytest.raises(InvalidArgument, match="'other' is not one of random, mine"):
        baseline_number("other", ["random", "mine"], policies)
