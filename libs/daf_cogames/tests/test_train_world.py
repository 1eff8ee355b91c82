import itertools

import torch

from daf_cogames.seeding import MAX_SEED, rank_seed
from daf_cogames.training.world import World


def test_torchrun_tells_each_process_which_one_it_is():
    assert World.from_environment({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == World(5, 8, 1)


def test_a_process_that_torchrun_has_not_started_is_alone():
    assert World.from_environment({}) == World(rank=0, size=1, local_rank=0)


def test_a_rank_that_is_alone_exchanges_with_itself_and_needs_no_connection():
    world = World()

    with world.connected(torch.device("cpu"), timeout_seconds=1.0):
        world.wait()
        assert world.sum([1.5, True]) == [1.5, 1.0]
        assert world.gather("a") == ["a"]
        assert world.broadcast("b") == "b"
        assert not torch.distributed.is_initialized()


def test_the_first_rank_of_the_first_attempt_has_the_seed_of_the_run():
    assert rank_seed(42, rank=0) == 42


def test_ranks_and_attempts_have_a_million_seeds_each_to_themselves():
    seeds = sorted(rank_seed(42, rank, attempt) for rank in range(67) for attempt in range(1, 32))

    assert min(b - a for a, b in itertools.pairwise(seeds)) >= 1_000_000
    assert seeds[0] + MAX_SEED + 1 - seeds[-1] >= 1_000_000
    assert 0 <= seeds[0] < seeds[-1] <= MAX_SEED
