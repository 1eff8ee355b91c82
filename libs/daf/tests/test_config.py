from __future__ import annotations

from pathlib import Path

import pytest

from daf.config import DAFConfig, DAFEvaluationConfig, DAFSweepConfig, DAFTrainingConfig, daf_load_config
from daf.references import PolicyConfig, parse_policy, proportion_of

EXAMPLES = Path(__file__).parents[3] / "examples"


def sweep(**changes: object) -> DAFSweepConfig:
    fields = {"missions": ["alpha"], "policy": "lstm", "search_space": {"lr": [0.1, 0.2]}}
    return DAFSweepConfig.model_validate({**fields, **changes})


def test_the_examples_can_be_read() -> None:
    demo = DAFSweepConfig.from_yaml(EXAMPLES / "sweep_config.yaml")

    assert demo.directory == EXAMPLES
    assert demo.code is not None
    assert all((demo.directory / path).is_file() for path in demo.code)
    assert DAFSweepConfig.from_yaml(EXAMPLES / "quick_sweep.yaml").policy == "grid_policy.GridPolicy"
    assert DAFTrainingConfig.from_yaml(EXAMPLES / "training_config.yaml").training.agent_steps > 0


def test_both_names_of_the_policy_are_accepted() -> None:
    fields = {"missions": ["alpha"], "search_space": {"lr": [1]}}

    by_alias = DAFSweepConfig.model_validate({**fields, "policy": "lstm"})
    by_name = DAFSweepConfig.model_validate({**fields, "policy_class_path": "lstm"})

    assert by_alias == by_name
    assert by_name.policy == by_name.policy_class_path == "lstm"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    config = sweep(
        missions=["alpha", {"mission": "beta", "variants": ["dark"], "map_seed": 3}],
        baselines=["untrained", "class=a.B,kw.size=3", {"policy": "random", "label": "chance"}],
        held_out={"episodes": 7},
        search_space={"lr": {"min": 1e-4, "max": 1.0, "step": 0.1}, "mode": {"choices": ["x", "y"]}},
    )

    config.to_yaml(tmp_path / "again.yaml")

    assert DAFSweepConfig.from_yaml(tmp_path / "again.yaml").model_dump() == config.model_dump()


def test_an_assignment_is_checked_and_a_wrong_one_changes_nothing() -> None:
    config = sweep(strategy="random", num_trials=4)

    config.policy_class_path = "starter"
    with pytest.raises(ValueError, match="num_trials"):
        config.strategy = "grid"

    assert (config.policy, config.strategy) == ("starter", "random")


def test_validate_finds_what_was_broken_inside_of_a_list() -> None:
    config = sweep()
    config.validate()

    config.missions.append(3)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="missions"):
        config.validate()


def test_the_average_reward_is_the_reward() -> None:
    assert sweep(objective_metric="avg_reward").objective_metric == "reward"


def test_held_out_episodes_are_there_unless_they_are_left_out() -> None:
    assert sweep().held_out is not None
    assert sweep(held_out=None).held_out is None
    with pytest.raises(ValueError, match="held_out must not be null"):
        sweep(held_out=None, baselines=["random"])


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("random", {"policy": "random"}),
        ("grid_policy.GridPolicy", {"policy": "grid_policy.GridPolicy"}),
        ("lstm:runs/a.pt", None),
        ("lstm:weights.pt", {"policy": "lstm", "weights": "weights.pt"}),
        (
            "class=a.B,data=w.pt,kw.n=3,kw.r=1e-3",
            {"policy": "a.B", "weights": "w.pt", "arguments": {"n": 3, "r": 0.001}},
        ),
        ("job/one/checkpoints/latest", {"checkpoint": "trainingJobs/one/checkpoints/latest"}),
        ("trainingJobs/one/checkpoints/12", {"checkpoint": "trainingJobs/one/checkpoints/12"}),
        ("sweeps/s/trials/3", {"checkpoint": "sweeps/s/trials/3"}),
        ("policyPackages/p/versions/1.0.0", {"version": "policyPackages/p/versions/1.0.0"}),
    ],
)
def test_policies_are_named_by_texts(text: str, fields: dict[str, object] | None) -> None:
    if fields is None:
        fields = {"policy": "lstm", "weights": "runs/a.pt"}

    assert parse_policy(text) == PolicyConfig.model_validate(fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clas=a.B", "did you mean 'class'"),
        ("data=w.pt", "names no class"),
        ("class=a.B,kw.n", "is not KEY=VALUE"),
        ("no such policy", "neither a policy's short name"),
        ("job/miner", "no checkpoint: write job/NAME/checkpoints"),
        ("sweeps/lr/trials", "no checkpoint: write"),
    ],
)
def test_texts_that_name_no_policy_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_policy(text)


def test_a_policy_has_one_source() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        PolicyConfig.model_validate({"policy": "a", "version": "b"})
    with pytest.raises(ValueError, match="a checkpoint knows its policy"):
        PolicyConfig.model_validate({"policy": "a", "checkpoint": "b"})


def test_the_proportion_is_taken_out_of_cogames_syntax() -> None:
    assert proportion_of("class=a.B,proportion=3,kw.n=1") == ("class=a.B,kw.n=1", 3.0)
    assert proportion_of("random") == ("random", None)


def test_proportions_fit_the_policies() -> None:
    fields = {"policies": ["a", "b"], "missions": ["m"]}

    for proportions in ([1.0], [1.0, -1.0], [0.0, 0.0]):
        with pytest.raises(ValueError, match="proportions"):
            DAFEvaluationConfig.model_validate({**fields, "proportions": proportions})
    with pytest.raises(ValueError, match="mixed"):
        DAFEvaluationConfig.model_validate({**fields, "proportions": [1.0, 1.0], "team": "solo"})


def test_global_settings_say_which_of_them_have_no_effect(tmp_path: Path) -> None:
    path = tmp_path / "daf.yaml"
    path.write_text("output_dir: results\nmax_parallel_jobs: 8\nenable_gpu: true\nverbose: true\n")

    config = daf_load_config(path)

    assert (config.output_dir, config.max_parallel_jobs) == (Path("results"), 8)
    with pytest.warns(UserWarning, match="gpu_memory_fraction has no effect yet"):
        DAFConfig(gpu_memory_fraction=0.5)
