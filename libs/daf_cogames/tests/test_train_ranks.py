"""Two ranks train one policy: real processes that exchange gradients. An update is 512 agent steps of each rank."""

import math
import signal
import statistics
from dataclasses import replace

import psutil
import pytest
import torch
from mettagrid.policy.loader import initialize_or_load_policy
from mettagrid.policy.policy import PolicySpec
from mettagrid.policy.policy_env_interface import PolicyEnvInterface

from daf_cogames.missions import Mission, build_mission
from daf_cogames.policies import PolicyError
from daf_cogames.training.progress import StopReason
from daf_cogames.training.resume import read_resume_point
from daf_cogames.training.train import Ending, TrainingPlan
from daf_cogames.training.world import PeerLost
from libs.daf_cogames.tests.training_policies import (
    BreakingOnRank1,
    Changing,
    Memoryless,
    PartlyUsed,
    RaisingOnRank1,
    Recurrent,
    policy,
)
from libs.daf_cogames.tests.training_ranks import (
    KillAt,
    SleepAt,
    importable,
    start_with_environment_processes,
    train_ranks,
    wait_for,
)

ARENA = Mission("cogsguard_arena.basic", cogs=4, max_steps=40)
MINER = Mission("cogsguard_machina_1.miner_tutorial", cogs=4, max_steps=40)
OWN_UPDATE = 512  # agent steps of one rank: 2 environments of 4 agents, 64 steps
UPDATE = 2 * OWN_UPDATE
LEARNING_RATE = 0.00092


@pytest.fixture(scope="module", autouse=True)
def importable_tests():
    with importable():
        yield


def plan_of(directory, **changes):
    plan = TrainingPlan(
        missions=(ARENA,),
        policy=policy(Recurrent),
        agent_steps=4 * UPDATE,
        num_envs=2,
        seed=1,
        directory=directory,
        progress_interval_s=0.0,
        checkpoint_agent_steps=2 * UPDATE,
        peer_timeout_s=1000.0,  # longer than `train_ranks` waits
    )
    return replace(plan, **changes)


def learning_rates(updates, first=0):
    return pytest.approx([LEARNING_RATE * (1 + math.cos(math.pi * n / updates)) / 2 for n in range(first, updates)])


def resume_point(ranks, number):
    saved = ranks[0].checkpoints[number]
    return read_resume_point(saved.weights.path, saved.trainer_state.path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two ranks that trained to the end."""
    return train_ranks(plan_of(tmp_path_factory.mktemp("pair")))


def test_both_end_together_with_the_same_weights_from_different_data(pair):
    assert [rank.error for rank in pair] == [None, None]
    assert [rank.outcome.ending for rank in pair] == [Ending.COMPLETED] * 2
    assert [(rank.outcome.update, rank.outcome.agent_steps) for rank in pair] == [(4, 4 * UPDATE)] * 2
    assert pair[0].weights == pair[1].weights
    assert pair[0].observations != pair[1].observations
    assert pair[0].environment_seed == 1
    assert abs(pair[1].environment_seed - pair[0].environment_seed) >= 1_000_000


def test_the_same_plan_gives_the_same_weights_again(pair, tmp_path):
    again = train_ranks(plan_of(tmp_path))

    assert [rank.weights for rank in again] == [rank.weights for rank in pair]
    assert [rank.observations for rank in again] == [rank.observations for rank in pair]


def test_the_learning_rate_follows_the_agent_steps_of_both(pair):
    assert pair[0].learning_rates == learning_rates(updates=4)
    assert pair[1].learning_rates == pair[0].learning_rates


def test_what_is_trained_with_is_said_of_both_together(pair):
    configuration = pair[1].outcome.configuration

    assert (configuration.workers, configuration.agents, configuration.batch_size) == (2, 16, UPDATE)
    assert configuration.agent_steps == 4 * UPDATE
    assert configuration.checkpoint_agent_steps == 2 * UPDATE
    assert any(f"learns from {UPDATE} agent steps" in note for note in configuration.notes)


def test_rank_0_reports_and_saves_for_both(pair):
    assert [progress.agent_steps for progress in pair[0].progress] == [n * UPDATE for n in (1, 2, 3, 4)]
    assert [saved.agent_steps for saved in pair[0].checkpoints] == [2 * UPDATE, 4 * UPDATE]
    assert (pair[1].progress, pair[1].checkpoints, pair[1].outcome.checkpoint) == ([], [], None)


def test_the_clock_of_rank_0_alone_decides_when_to_report(tmp_path):
    ranks = train_ranks(plan_of(tmp_path, agent_steps=3 * UPDATE), changes={1: {"progress_interval_s": 3600.0}})

    assert [progress.update for progress in ranks[0].progress] == [1, 2, 3]


def test_progress_counts_the_episodes_of_both_and_says_what_each_uses(pair):
    episodes = sum(progress.metrics.get("env/episodes", 0) for progress in pair[0].progress)
    assert episodes >= 2 * 2 * 6  # 4 environments, 256 steps of at most 40 an episode

    last = pair[0].progress[-1]
    assert [worker.rank for worker in last.workers] == [0, 1]
    shares = [
        sum(worker.agent_steps_per_second for worker in progress.workers) / progress.agent_steps_per_second
        for progress in pair[0].progress
    ]
    assert statistics.median(shares) == pytest.approx(1, rel=0.5)  # each rank reads its clock when it comes to it
    assert all(0 < worker.cpu_cores < 3 for worker in last.workers)
    assert all(worker.memory_bytes > 50_000_000 for worker in last.workers)
    assert all(worker.gpu_utilization is worker.gpu_memory_bytes is None for worker in last.workers)


def test_each_step_of_environments_and_gradients_counts_as_activity(pair):
    assert [rank.activities for rank in pair] == [4 * (64 + 1)] * 2


def test_plain_cogames_loads_a_checkpoint(pair):
    weights = pair[0].outcome.checkpoint.weights.path

    loaded = initialize_or_load_policy(
        PolicyEnvInterface.from_mg_cfg(build_mission(ARENA)),
        PolicySpec(class_path=policy(Recurrent).class_path, data_path=str(weights)),
    )

    saved = torch.load(weights, weights_only=True)
    assert not any(name.startswith("module.") for name in saved)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in loaded.network().state_dict().items())


def test_environments_of_all_ranks_take_turns_with_the_missions(tmp_path):
    ranks = train_ranks(plan_of(tmp_path, missions=(ARENA, MINER), num_envs=1, agent_steps=UPDATE))

    names = {name for progress in ranks[0].progress for name in progress.metrics if "reward_per_agent/" in name}
    assert len(names) == 2
    assert any(ARENA.name in name for name in names)
    assert any(MINER.name in name for name in names)


@pytest.mark.parametrize("policy_class", [Memoryless, PartlyUsed])
def test_other_kinds_of_policies_train_on_two_ranks(tmp_path, policy_class):
    ranks = train_ranks(plan_of(tmp_path, policy=policy(policy_class), agent_steps=2 * UPDATE))

    assert [rank.error for rank in ranks] == [None, None]
    assert ranks[0].weights == ranks[1].weights
    assert all(progress.metrics["losses/value_loss"] > 0 for progress in ranks[0].progress)


def test_a_policy_that_several_workers_cannot_train_is_refused_with_the_reason(tmp_path):
    ranks = train_ranks(plan_of(tmp_path, policy=policy(Changing)))

    assert [rank.error for rank in ranks] == [PolicyError] * 2
    assert "several workers" in ranks[0].message


def test_two_ranks_go_on_where_two_were(pair, tmp_path):
    point = resume_point(pair, 0)

    resumed = train_ranks(plan_of(tmp_path, resume=point, attempt=2))

    assert [rank.outcome.ending for rank in resumed] == [Ending.COMPLETED] * 2
    assert (resumed[0].outcome.update, resumed[0].outcome.agent_steps) == (4, 4 * UPDATE)
    assert resumed[0].learning_rates == pair[0].learning_rates[2:]
    for rank, saved in zip(resumed, point.random, strict=True):
        assert rank.generators["python"] == saved["python"]
        assert rank.generators["numpy"] == saved["numpy"]
        assert torch.equal(rank.generators["torch"], saved["torch"])
    assert not torch.equal(resumed[0].generators["torch"], resumed[1].generators["torch"])
    moments = resume_point(resumed, -1).optimizer["state"]
    assert all(int(moment["step"]) == 4 for moment in moments.values())
    seeds = [rank.environment_seed for rank in (*pair, *resumed)]
    assert min(abs(a - b) for i, a in enumerate(seeds) for b in seeds[:i]) >= 1_000_000
    assert resumed[0].weights == resumed[1].weights


def test_one_rank_goes_on_where_two_were(pair, tmp_path):
    point = resume_point(pair, 0)

    [alone] = train_ranks(plan_of(tmp_path, resume=point, attempt=2), size=1)

    assert (alone.outcome.update, alone.outcome.agent_steps) == (2 + 4, 4 * UPDATE)
    assert alone.learning_rates == learning_rates(updates=8, first=4)
    assert not torch.equal(alone.generators["torch"], point.random[0]["torch"])


def test_two_ranks_go_on_where_one_was_in_the_middle_of_what_is_an_update_of_two(tmp_path):
    [alone] = train_ranks(plan_of(tmp_path / "alone", checkpoint_agent_steps=OWN_UPDATE), size=1)
    point = resume_point([alone], 2)

    resumed = train_ranks(plan_of(tmp_path / "resumed", resume=point, attempt=2))

    assert point.agent_steps == 3 * OWN_UPDATE
    assert (resumed[0].outcome.update, resumed[0].outcome.agent_steps) == (3 + 3, 9 * OWN_UPDATE)
    assert resumed[0].learning_rates == pytest.approx(
        [LEARNING_RATE * (1 + math.cos(math.pi * done / 9)) / 2 for done in (3, 5, 7)]
    )
    assert resumed[0].weights == resumed[1].weights


def test_a_finished_run_that_is_extended_learns_on(pair, tmp_path):
    point = resume_point(pair, -1)

    extended = train_ranks(plan_of(tmp_path, resume=point, attempt=2, agent_steps=6 * UPDATE))

    assert point.agent_steps == 4 * UPDATE
    assert extended[0].learning_rates == learning_rates(updates=6, first=4)
    assert extended[0].weights != pair[0].weights


def test_a_stop_on_one_rank_ends_both_after_the_same_update_for_the_strongest_reason(tmp_path):
    stops = {0: [None, StopReason.PREEMPTED], 1: [None, StopReason.CANCELLED]}

    ranks = train_ranks(plan_of(tmp_path, agent_steps=100 * UPDATE), stops=stops)

    assert [rank.outcome.ending for rank in ranks] == [Ending.STOPPED] * 2
    assert [rank.outcome.stop_reason for rank in ranks] == [StopReason.CANCELLED] * 2
    assert [rank.outcome.update for rank in ranks] == [2, 2]
    assert ranks[0].outcome.checkpoint.update == 2


def test_a_stop_that_only_rank_1_was_told_ends_both(tmp_path):
    ranks = train_ranks(plan_of(tmp_path, agent_steps=100 * UPDATE), stops={1: [StopReason.PREEMPTED]})

    assert [(rank.outcome.stop_reason, rank.outcome.update) for rank in ranks] == [(StopReason.PREEMPTED, 1)] * 2


def test_both_diverge_when_one_does_and_save_nothing_of_it(tmp_path):
    plan = plan_of(tmp_path, policy=policy(BreakingOnRank1), agent_steps=9 * UPDATE, checkpoint_agent_steps=UPDATE)

    ranks = train_ranks(plan)

    assert [(rank.outcome.ending, rank.outcome.update) for rank in ranks] == [(Ending.DIVERGED, 3)] * 2
    assert [saved.update for saved in ranks[0].checkpoints] == [1, 2]
    point = resume_point(ranks, -1)
    assert all(torch.isfinite(tensor).all() for tensor in point.weights.values())


@pytest.mark.parametrize("activity", [30, 65], ids=["in a rollout", "in a gradient step"])
def test_a_rank_that_is_killed_is_missed_by_the_other_at_once(tmp_path, activity):
    killed_at = activity + 65  # in the second update

    survivor, killed = train_ranks(plan_of(tmp_path), on_activity={1: KillAt(killed_at)})

    assert killed.exit_code == -signal.SIGKILL
    assert survivor.error is PeerLost
    assert survivor.exit_code == 0


def test_a_rank_that_fails_raises_its_own_error_and_the_other_misses_it(tmp_path):
    survivor, failed = train_ranks(plan_of(tmp_path, policy=policy(RaisingOnRank1)))

    assert failed.error is RuntimeError
    assert failed.message == "out of luck"
    assert survivor.error is PeerLost


def test_a_rank_that_hangs_is_given_up(tmp_path):
    sleeper = {1: SleepAt(activity=30, seconds=5)}

    waiting, _ = train_ranks(plan_of(tmp_path, peer_timeout_s=2.0), on_activity=sleeper)

    assert waiting.error is PeerLost


def test_a_rank_that_never_comes_is_given_up(tmp_path):
    [waiting] = train_ranks(plan_of(tmp_path, peer_timeout_s=2.0), absent=[1])

    assert waiting.error is PeerLost


def test_the_processes_of_environments_end_with_a_rank_that_is_killed(tmp_path):
    plan = plan_of(tmp_path, agent_steps=1000 * UPDATE, checkpoint_agent_steps=UPDATE)
    process = start_with_environment_processes(plan)
    alive = []
    try:
        wait_for(tmp_path / "checkpoints" / "model_000002.pt")
        environments = psutil.Process(process.pid).children()
        process.kill()
        _, alive = psutil.wait_procs(environments, timeout=30)
    finally:
        for left in (process, *alive):
            left.kill()
        process.join()

    assert len(environments) == 1
    assert alive == []
