"""Episodes: each one the same, to the bit, whichever process runs it and whatever ran before or beside it there.

mettagrid's own rollout plays the episode. Around it, things that its sequential runner leaves to chance are fixed (see
also `daf_cogames.play.live_episodes`): the global random state is set for each episode (the `random` policy and
networks draw from it), and whatever a policy raises is reported as that policy's failure.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from cogames.seed import seed_rollout_rng
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.runner.rollout import resolve_env_for_seed

from daf_cogames.missions import Mission, build_mission
from daf_cogames.play.asking import networks_of
from daf_cogames.play.batching import NotBatchable, Row, known_rows
from daf_cogames.play.decoding import fast_decoding, is_exact
from daf_cogames.play.digests import digest, episode_digest
from daf_cogames.play.failures import PolicyFailure, SeatedPolicy, blame
from daf_cogames.play.latency import Latency
from daf_cogames.play.live_episodes import LiveEpisode
from daf_cogames.play.lockstep import play_together
from daf_cogames.play.marks import playing
from daf_cogames.play.stopwatches import let_loggers_go
from daf_cogames.policies import PolicySource, load_policy
from daf_cogames.seating import EpisodePlan
from daf_common.archives import digest_of

# Far above what a policy needs on a busy machine: an action that comes late is replaced by a noop, which changes the
# result.
PATIENT_ACTION_TIME_MS = 60_000

GROUP = 8
"""Episodes that advance together at most. With more, time is no longer saved but memory taken, and a process that ends
loses them all."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpisodeOutcome:
    """What an episode came to.

    rewards, action_timeouts and agent_stats: one for each agent, in the order of `seats`; steps: environment steps
    taken, out of max_steps; game_stats: at the end; time_averaged_game_stats: over the steps. An episode with an
    action timeout depends on the machine's load and cannot be repeated. wall_seconds covers loading the policies,
    too, and is an equal share for episodes that were played together; map_digest: SHA-256 (hex) of what stood where at
    the start; latencies: of those who played, by policy; approximate: a batch that was not exact played in it, which
    its digest says, too.
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
    approximate: bool = False


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
        self._unbatched: set[int] = set()
        is_exact()  # before any episode's random state is set

    @property
    def agents(self) -> int:
        """The number of seats of an episode."""
        return int(self._config.game.num_agents)

    def run(self, plan: EpisodePlan, replay: Path | None = None) -> EpisodeOutcome:
        """Play one episode, agent by agent as mettagrid does.

        replay: a file (`.json.z`) for what mettagrid's own player shows; the outcome is the same with and without.

        Raises:
            PolicyFailure: a policy cannot play; the runner can go on with other episodes.
        """
        self._check_seats(plan)
        started = time.perf_counter()
        with fast_decoding():
            episode = self._begin(plan, replay=replay is not None)
            episode.run_until_done()
        if replay is not None:
            episode.write_replay(replay)
        return self._outcome(episode, time.perf_counter() - started)

    def run_together(
        self, plans: Sequence[EpisodePlan], *, fast: bool = False
    ) -> Iterator[EpisodeOutcome | PolicyFailure]:
        """Play episodes, of each what `run` returns or raises, in the order of `plans`.

        Where policies can be batched, GROUP episodes at a time advance together, and are known together; others are
        played one after the other. A policy that was tried in vain is not tried again.

        fast: whether policies are batched, too, where that is not exact. Outcomes say so.
        """
        for plan in plans:
            self._check_seats(plan)
        for group in itertools.batched(plans, GROUP):
            yield from self._run_group(group, fast)

    def _run_group(self, plans: Sequence[EpisodePlan], fast: bool) -> Iterator[EpisodeOutcome | PolicyFailure]:
        """Yields what is known as soon as all before it is."""
        started = time.perf_counter()
        waiting: list[LiveEpisode | EpisodeOutcome | PolicyFailure] = []
        for plan in plans:
            # Only what has no others waiting is known to be the episode that a policy ends the process in.
            with nullcontext() if waiting else playing(plan.index):
                result = self._begin_or_run(plan)
            if waiting or isinstance(result, LiveEpisode):
                waiting.append(result)
            else:
                yield result
        begun = [result for result in waiting if isinstance(result, LiveEpisode)]
        if begun:
            self._play_together(begun, fast)
        seconds = time.perf_counter() - started
        for result in waiting:
            yield self._end(result, seconds / len(begun)) if isinstance(result, LiveEpisode) else result

    def _begin_or_run(self, plan: EpisodePlan) -> LiveEpisode | EpisodeOutcome | PolicyFailure:
        """Begin an episode of which a part can be batched; play any other."""
        started = time.perf_counter()
        try:
            with fast_decoding():
                episode = self._begin(plan)
                # In a batch, an action has no time of its own.
                if self._max_action_time_ms >= PATIENT_ACTION_TIME_MS and (
                    self._batched(episode) or self._foretold(episode)
                ):
                    return episode
                episode.run_until_done()
        except PolicyFailure as failure:
            return failure
        return self._outcome(episode, time.perf_counter() - started)

    def _play_together(self, begun: Sequence[LiveEpisode], fast: bool) -> None:
        batched: dict[int, list[Row]] = {}
        for episode in begun:
            for policy, rows in self._batched(episode).items():
                batched.setdefault(policy, []).extend(rows)
        try:
            with fast_decoding():
                for alone in play_together(batched, self._foretold(*begun), begun, fast=fast):
                    _logger.info("%s", alone)
                    self._unbatched.add(alone.policy)
        except (NotBatchable, PolicyFailure) as error:
            _logger.warning("a group of %s episodes is played one by one: %s", len(begun), error)
            self._unbatched.add(error.policy)

    def _batched(self, episode: LiveEpisode) -> Mapping[int, Sequence[Row]]:
        """The agents of an episode that a batch may step, by policy."""
        return {policy: rows for policy, rows in known_rows(episode).items() if policy not in self._unbatched}

    def _foretold(self, *begun: LiveEpisode) -> set[int]:
        """The other policies in episodes whose networks' answers may be foretold."""
        return {
            policy
            for episode in begun
            for policy in networks_of(episode)
            if policy not in self._unbatched and policy not in known_rows(episode)
        }

    def _end(self, episode: LiveEpisode, seconds: float) -> EpisodeOutcome | PolicyFailure:
        if episode.failure is not None:
            return episode.failure
        if episode.over:
            return self._outcome(episode, seconds)
        try:
            return self.run(episode.plan)
        except PolicyFailure as failure:
            return failure

    def _begin(self, plan: EpisodePlan, *, replay: bool = False) -> LiveEpisode:
        # Before the policies are loaded: an untrained network draws its weights from this state.
        seed_rollout_rng(episode_random_seed(plan.seed, plan.index))
        config = resolve_env_for_seed(self._config, plan.seed)
        environment = PolicyEnvInterface.from_mg_cfg(config)
        # Only who plays is loaded: an episode does not depend on who else is in the evaluation.
        policies = {policy: self._load(policy, environment) for policy in sorted(set(plan.seats))}
        return LiveEpisode(plan, config, policies, self._max_action_time_ms, replay=replay)

    def _outcome(self, episode: LiveEpisode, wall_seconds: float) -> EpisodeOutcome:
        plan, simulation = episode.plan, episode.simulation
        stats = simulation.episode_stats
        approximate = any(not batch.exact for batch in episode.together.values())
        exact_digest = episode_digest(
            mission=mission_fields(self._mission),
            seed=plan.seed,
            seats=plan.seats,
            steps=simulation.current_step,
            rewards=episode.rewards,
            agent_stats=stats["agent"],
            game_stats=stats["game"],
            time_averaged_game_stats=episode.time_averaged_game_stats,
            versions=engine_versions(),
        )
        return EpisodeOutcome(
            index=plan.index,
            seed=plan.seed,
            seats=plan.seats,
            steps=simulation.current_step,
            max_steps=episode.config.game.max_steps,
            rewards=episode.rewards,
            action_timeouts=episode.action_timeouts,
            agent_stats=tuple(stats["agent"]),
            game_stats=stats["game"],
            time_averaged_game_stats=episode.time_averaged_game_stats,
            wall_seconds=wall_seconds,
            versions=engine_versions(),
            map_digest=episode.map_digest,
            digest=digest([exact_digest, "approximate"]) if approximate else exact_digest,
            latencies={number: policy.latency for number, policy in episode.policies.items()},
            approximate=approximate,
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
