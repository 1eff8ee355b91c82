"""Several episodes advance together, step by step, so that a policy's agents in all of them are one batch.

Each is the same, to the bit, as if it were played alone, unless it says that it is approximate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mettagrid.simulator.rollout import gc_disabled

from daf_cogames.play.asking import asking
from daf_cogames.play.batching import CHECKED_STEPS, Batch, NotBatchable, Row, Witness, batch_of, share_networks
from daf_cogames.play.foretelling import Foretelling, foretellings
from daf_cogames.play.live_episodes import LiveEpisode


def play_together(
    batched: Mapping[int, Sequence[Row]], foretold: Collection[int], episodes: Sequence[LiveEpisode], *, fast: bool
) -> list[NotBatchable]:
    """Play episodes of one mission to their ends, or to where a policy fails.

    batched: all agents of the policies that are batched, by policy, episode by episode; foretold: the policies whose
    networks' answers are; fast: whether batches need not be exact, where they cannot be. Returns which of `foretold`
    played by their own code alone, and why.

    Raises:
        NotBatchable: a policy cannot be batched.
        PolicyFailure: a policy failed to step several episodes at once.
        In both cases those that are not over have to be played again.
    """
    witnesses = {policy: [Witness(row) for row in rows] for policy, rows in batched.items()}
    with asking(episodes, foretold) as askers:
        _check(episodes, [witness for of_policy in witnesses.values() for witness in of_policy])
        batches: list[Batch | Foretelling] = []
        for policy, of_policy in witnesses.items():
            batches += _batches(policy, of_policy, fast)
        alone = []
        for policy, agents in askers.items():
            try:
                batches += foretellings(policy, agents)
            except NotBatchable as error:
                alone.append(error)
        while live := [episode for episode in episodes if not episode.over]:
            with gc_disabled():
                for batch in batches:
                    batch.step()
                for episode in live:
                    episode.step()
    return alone


def _check(episodes: Sequence[LiveEpisode], witnesses: Sequence[Witness]) -> None:
    """The first steps, agent by agent, with their witnesses."""
    for witness in witnesses:
        witness.watch()
    for _ in range(CHECKED_STEPS):
        for episode in episodes:
            if not episode.over:
                episode.step()
    for witness in witnesses:
        witness.leave()


def _batches(policy: int, witnesses: Sequence[Witness], fast: bool) -> list[Batch]:
    """One for each network, put in its agents' place in their episodes."""
    batches = []
    for group in share_networks([witness for witness in witnesses if not witness.row.episode.over]):
        batch = batch_of(group, policy, fast=fast)
        batches.append(batch)
        for witness in group:
            witness.row.episode.together[policy] = batch
    return batches
