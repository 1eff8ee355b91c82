"""Episodes: each one the same, to the bit, whichever process runs it and whatever ran before it there.

mettagrid's own loop plays the episode. Around it, three things that its sequential runner leaves to chance are fixed:
the global random state is set for each episode (the `random` policy and networks draw from it), policies of one
episode step one after another instead of in threads that share that state, and whatever a policy raises is reported
as that policy's failure.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from cogames.seed import seed_rollout_rng
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.runner import rollout
from mettagrid.simulator.rollout import Rollout, StepResult

from daf_cogames.decoding import fast_decoding, is_exact
from daf_cogames.digests import digest, episode_digest
from daf_cogames.failures import SeatedPolicy, blame
from daf_cogames.latency import Latency
from daf_cogames.missions import Mission, build_mission
from daf_cogames.policies import PolicySource, load_policy
from daf_cogames.seating import EpisodePlan
from daf_cogames.stopwatches import let_loggers_go
from daf_common.archives import digest_of

# Far above what a policy needs on a busy machine: an action that comes late is replaced by a noop, which changes the
# result.
PATIENT_ACTION_TIME_MS = 60_000


@dataclass(frozen=True)
class EpisodeOutcome:
    """What an episode came to.

    rewards, action_timeouts and agent_stats: one for each agent, in the order of `seats`; steps: environment steps
    taken, out of max_steps; game_stats: at the end; time_averaged_game_stats: over the steps. An episode with an
    action timeout depends on the machine's load and cannot be repeated. wall_seconds covers loading the policies,
    too; map_digest: SHA-256 (hex) of what stood where at the start; latencies: of those who played, by policy.
    """

    index: int
    seed: int
    seats: tuple[int, ...]
    steps: int
    max_steps: int
    rewards: tuple[float, ...]
    action_timeouts: tuple[int, ...]
    agent_stats: tuple[Mapping[str, float], ...]
    game_stats: Mapping[str, float]
    time_averaged_game_stats: Mapping[str, float]
    wall_seconds: float
    versions: Mapping[str, str]
    map_digest: str
    digest: str
    latencies: Mapping[int, Latency]


class EpisodeRunner:
    """Runs episodes of one mission. The environment's config is built once, the policies afresh for each episode."""

    def __init__(
        self,
        mission: Mission,
        policies: Sequence[PolicySource],
        device: str = "cpu",
        max_action_time_ms: int = PATIENT_ACTION_TIME_MS,
    ) -> None:
        """Also limits torch in this process to one thread. Raises daf_cogames.missions.MissionError."""
        # How many threads add up a sum changes its last bits; and a small network is ten times slower on two busy
        # cores.
        torch.set_num_threads(1)
        let_loggers_go()
        self._mission = mission
        self._policies = tuple(policies)
        self._device = device
        self._max_action_time_ms = max_action_time_ms
        self._config = build_mission(mission)
        is_exact()  # before any episode's random state is set

    @property
    def agents(self) -> int:
        """The number of seats of an episode."""
        return int(self._config.game.num_agents)

    def run(self, plan: EpisodePlan) -> EpisodeOutcome:
        """Play one episode. Raises PolicyFailure when a policy cannot play; the runner can go on with others."""
        self._check_seats(plan)
        started = time.perf_counter()
        # Before the policies are loaded: an untrained network draws its weights from this state.
        seed_rollout_rng(episode_random_seed(plan.seed, plan.index))
        config = rollout.resolve_env_for_seed(self._config, plan.seed)
        environment = PolicyEnvInterface.from_mg_cfg(config)
        # Only who plays is loaded: an episode does not depend on who else is in the evaluation.
        seated: list[Any] = [
            self._load(policy, environment) if policy in plan.seats else None for policy in range(len(self._policies))
        ]
        with _policies_in_turn() as played_map, fast_decoding():
            result, _ = rollout.single_episode_rollout(
                seated,
                plan.seats,
                config,
                seed=plan.seed,
                max_action_time_ms=self._max_action_time_ms,
                render_mode="none",
                autostart=False,
                capture_replay=False,
            )
        rewards = tuple(float(reward) for reward in result.rewards)
        return EpisodeOutcome(
            index=plan.index,
            seed=plan.seed,
            seats=plan.seats,
            steps=result.steps,
            max_steps=config.game.max_steps,
            rewards=rewards,
            action_timeouts=tuple(result.action_timeouts),
            agent_stats=tuple(result.stats["agent"]),
            game_stats=result.stats["game"],
            time_averaged_game_stats=result.time_averaged_game_stats,
            wall_seconds=time.perf_counter() - started,
            versions=engine_versions(),
            map_digest=played_map(),
            digest=episode_digest(
                mission=mission_fields(self._mission),
                seed=plan.seed,
                seats=plan.seats,
                steps=result.steps,
                rewards=rewards,
                agent_stats=result.stats["agent"],
                game_stats=result.stats["game"],
                time_averaged_game_stats=result.time_averaged_game_stats,
                versions=engine_versions(),
            ),
            latencies={number: policy.latency for number, policy in enumerate(seated) if policy is not None},
        )

    def _load(self, policy: int, environment: PolicyEnvInterface) -> SeatedPolicy:
        with blame(policy, None, "load"):
            return SeatedPolicy(policy, load_policy(self._policies[policy], environment, self._device), environment)

    def _check_seats(self, plan: EpisodePlan) -> None:
        if len(plan.seats) != self.agents:
            raise ValueError(
                f"{self._mission.name} has {self.agents} seats, the plan of episode {plan.index} {len(plan.seats)}"
            )
        if not all(0 <= policy < len(self._policies) for policy in plan.seats):
            raise ValueError(f"episode {plan.index} seats a policy that is not one of the {len(self._policies)}")


def episode_random_seed(seed: int, index: int) -> int:
    """The seed (32 bits) of the global random state in an episode: a function of the plan alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{index}".encode()).digest()[:4])


def mission_fields(mission: Mission) -> dict[str, str | int | list[str] | None]:
    """A mission as the plain values that enter a digest; of a user's own file, its SHA-256."""
    fields = {**dataclasses.asdict(mission), "variants": list(mission.variants)}
    del fields["file"]
    return fields if mission.file is None else {**fields, "file": digest_of(mission.file)}


@functools.cache
def engine_versions() -> Mapping[str, str]:
    """The versions that an episode's result may depend on; torch without its build (`+cpu`)."""
    return {
        "cogames": version("cogames"),
        "mettagrid": version("mettagrid"),
        "torch": version("torch").partition("+")[0],
    }


class RolloutInTurn(Rollout):
    """The same steps in the same order as in mettagrid, without the threads whose interleaving nothing repeats."""

    def _execute_group_steps(self, group_indices: list[list[int]]) -> list[StepResult]:
        return [result for indices in group_indices for result in self._step_group(indices)]


@contextmanager
def _policies_in_turn() -> Iterator[Callable[[], str]]:
    """For the time of an episode, put RolloutInTurn where mettagrid looks for its own class.

    Yields a function that tells the digest of the map, once the episode has begun.
    """
    digests: list[str] = []

    def begin(*args: Any, **kwargs: Any) -> RolloutInTurn:
        begun = RolloutInTurn(*args, **kwargs)
        digests.append(_map_digest(begun))
        return begun

    namespace = vars(rollout)
    namespace["Rollout"] = begin
    try:
        yield lambda: digests[-1]
    finally:
        namespace["Rollout"] = Rollout


def _map_digest(begun: Rollout) -> str:
    objects = begun._sim.grid_objects().values()
    return digest(sorted([int(thing["r"]), int(thing["c"]), str(thing["type_name"])] for thing in objects))
