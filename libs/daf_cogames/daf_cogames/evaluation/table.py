"""Where the episodes of one evaluation are played: its missions and policies, kept from episode to episode.

Nothing here knows the service: the process that plays never loads gRPC (see `daf_cogames.evaluation.player`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from daf_cogames.code import on_path
from daf_cogames.missions import Mission, MissionError
from daf_cogames.play.digests import digest
from daf_cogames.play.episodes import EpisodeOutcome, EpisodeRunner, mission_fields
from daf_cogames.play.failures import PolicyFailure
from daf_cogames.play.latency import Latency
from daf_cogames.play.marks import playing
from daf_cogames.policies import PolicySource, last_line
from daf_cogames.sandbox.sandbox import Sandbox
from daf_cogames.seating import EpisodePlan
from daf_cogames.wheels import requirements_on_path
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.statistics.v1.episode_pb2 import Episode, PolicyLatency, Statistics

logger = logging.getLogger(__name__)

STAND_IN = PolicySource("mettagrid.policy.noop.NoopPolicy")
"""Sits where a policy should that could not play, so that the others can go on."""


class Unplayable(Exception):
    """An evaluation, or a mission of it, that no worker can play."""

    def __init__(self, reason: str, message: str, subject: str = "") -> None:
        super().__init__(message)
        self.failure = Failure(reason=reason, message=message, subject=subject)


@dataclass(frozen=True)
class Setting:
    """What an evaluation is played with, all of it files of this machine.

    time_limit_seconds: for each call of a policy; fast: batches are made also where they are not exact; isolated: all
    policies play in a sandbox, not only those from bundles; replays: an existing directory, if replays are wanted.
    """

    missions: Sequence[Mission]
    policies: Sequence[PolicySource]
    max_action_time_ms: int
    time_limit_seconds: float
    fast: bool = False
    isolated: bool = False
    replays: Path | None = None

    def replay(self, episode: int) -> Path | None:
        """Where the replay of an episode goes, by its index; None if it is not wanted."""
        return self.replays and self.replays / f"{episode}.json.z"


@dataclass(frozen=True)
class Table:
    """What is needed to play. Runners are kept: to build a mission takes longer than many an episode."""

    setting: Setting
    _runners: dict[tuple[int, frozenset[int]], EpisodeRunner] = dataclasses.field(default_factory=dict)

    def seats(self, mission: int) -> int:
        """The number of seats of a mission. Raises Unplayable."""
        return self._runner(mission, frozenset()).agents

    def play_all(
        self, mission: int, plans: Sequence[EpisodePlan], forfeits: Mapping[int, Failure], *, alone: bool = False
    ) -> Iterator[Episode]:
        """Plays episodes of a mission and yields them in the order of their plans, each as soon as it is played.

        Args:
            mission: its number.
            plans: the episodes.
            forfeits: policies that forfeit all of them from the start, by number.
            alone: one episode after the other, so that it shows in which one a policy ends the process.

        Raises:
            Unplayable: as `play`.
        """
        if alone or self.setting.replays is not None:
            for plan in plans:
                yield self.play(mission, plan, forfeits)
            return
        runner = self._runner(mission, frozenset(forfeits))
        for plan in plans:
            self._check_seats(mission, runner, plan)
        for plan, result in zip(plans, runner.run_together(plans, fast=self.setting.fast), strict=True):
            if isinstance(result, PolicyFailure):
                yield self.play(mission, plan, _with_forfeit(forfeits, result, plan))
            else:
                yield self._message(mission, result, forfeits)

    def play(self, mission: int, plan: EpisodePlan, forfeits: Mapping[int, Failure] | None = None) -> Episode:
        """Plays one episode of a mission, by number; a policy that cannot play forfeits it.

        The message lacks what the table does not know: the evaluation, the scenario, the worker.

        Raises:
            Unplayable: the mission does not build, or not for these seats.
        """
        forfeits = forfeits or {}
        while True:
            runner = self._runner(mission, frozenset(forfeits))
            self._check_seats(mission, runner, plan)
            try:
                with playing(plan.index):
                    outcome = runner.run(plan, replay=self.setting.replay(plan.index))
            except PolicyFailure as failure:
                forfeits = _with_forfeit(forfeits, failure, plan)
                continue
            return self._message(mission, outcome, forfeits)

    def _check_seats(self, mission: int, runner: EpisodeRunner, plan: EpisodePlan) -> None:
        if runner.agents != len(plan.seats):
            message = f"has {runner.agents} seats, but was planned for {len(plan.seats)}"
            raise Unplayable(
                "MISSION_INVALID", f"{self.setting.missions[mission].name} {message}", f"missions[{mission}]"
            )

    def _message(self, mission: int, outcome: EpisodeOutcome, forfeits: Mapping[int, Failure]) -> Episode:
        return _to_message(self.setting.missions[mission], outcome, [forfeits[policy] for policy in sorted(forfeits)])

    def _runner(self, mission: int, forfeited: frozenset[int]) -> EpisodeRunner:
        key = (mission, forfeited)
        if key not in self._runners:
            policies = [
                STAND_IN if number in forfeited else policy for number, policy in enumerate(self.setting.policies)
            ]
            try:
                self._runners[key] = EpisodeRunner(
                    self.setting.missions[mission], policies, max_action_time_ms=self.setting.max_action_time_ms
                )
            except MissionError as error:
                raise Unplayable("MISSION_INVALID", error.message, f"missions[{mission}].{error.field}") from error
        return self._runners[key]


@contextlib.contextmanager
def laid(setting: Setting) -> Iterator[Table]:
    """The table of an evaluation; users' code, and the packages that it needs, are on the import path while it stands.
    What plays in a sandbox is on no path here.

    Raises:
        Unplayable: code or packages cannot be used together.
    """
    with contextlib.ExitStack() as stack:
        policies = list(setting.policies)
        if apart := [number for number, policy in enumerate(policies) if setting.isolated or policy.bundle]:
            sandbox = stack.enter_context(Sandbox(setting.time_limit_seconds, scratch=Path.cwd()))
            for number in apart:
                policies[number] = dataclasses.replace(policies[number], elsewhere=sandbox)
        here = [policy for policy in policies if policy.elsewhere is None]
        try:
            stack.enter_context(on_path(*(policy.code for policy in here if policy.code)))
            stack.enter_context(requirements_on_path(*(policy.requirements for policy in here if policy.requirements)))
        except ImportError as error:
            raise Unplayable("POLICY_INVALID", last_line(error)) from error
        yield Table(dataclasses.replace(setting, policies=policies))


def _with_forfeit(forfeits: Mapping[int, Failure], failure: PolicyFailure, plan: EpisodePlan) -> dict[int, Failure]:
    """Raises the failure if even that policy's stand-in fails."""
    if failure.policy in forfeits:
        raise failure
    logger.warning("%s in episode %s", failure, plan.index, exc_info=failure.__cause__)
    return {**forfeits, failure.policy: to_forfeit(failure)}


def to_forfeit(failure: PolicyFailure) -> Failure:
    """The failure of a policy, as its episode says it."""
    where = "" if failure.seat is None else f" in seat {failure.seat}"
    message = f"failed to {failure.stage}{where}: {failure.message}"
    return Failure(reason=failure.reason, message=message, subject=str(failure.policy))


def _to_message(mission: Mission, outcome: EpisodeOutcome, forfeits: Sequence[Failure]) -> Episode:
    forfeited = [forfeit.subject for forfeit in forfeits]
    return Episode(
        index=outcome.index,
        seed=outcome.seed,
        seats=outcome.seats,
        rewards=outcome.rewards,
        action_timeouts=outcome.action_timeouts,
        steps=outcome.steps,
        max_steps=outcome.max_steps,
        agent_statistics=[_statistics(stats) for stats in outcome.agent_stats],
        game_statistics=_statistics(outcome.game_stats),
        average_game_statistics=_statistics(outcome.time_averaged_game_stats),
        forfeits=forfeits,
        # With a stand-in it is another episode, even where it ends the same.
        digest=digest([outcome.digest, forfeited]) if forfeited else outcome.digest,
        wall_seconds=outcome.wall_seconds,
        versions=outcome.versions,
        map_digest=outcome.map_digest,
        approximate=outcome.approximate,
        mission=json.dumps(mission_fields(mission), sort_keys=True),
        latencies=[
            _latency(policy, latency)
            for policy, latency in outcome.latencies.items()
            if latency.steps and str(policy) not in forfeited
        ],
    )


def _latency(policy: int, latency: Latency) -> PolicyLatency:
    return PolicyLatency(
        policy=policy,
        steps=latency.steps,
        total_seconds=latency.total_nanoseconds / 1e9,
        longest_seconds=latency.longest_nanoseconds / 1e9,
        buckets=latency.buckets,
    )


def _statistics(values: Mapping[str, float]) -> Statistics:
    return Statistics(values={name: float(value) for name, value in values.items()})
