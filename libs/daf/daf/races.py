"""Races: comparisons that look at the numbers while they come in, and let only those play on that may be the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from daf.client import Client
from daf.comparisons import (
    ComparisonFailed,
    PolicyComparison,
    check,
    compare_or_find,
    create_or_find,
    followed,
)
from daf.config import DAFComparisonConfig
from daf_common.errors import InvalidArgument
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation, EvaluationSpec
from daf_protos.statistics.v1.comparison_pb2 import Comparison, EpisodeSource, PolicyEpisodes

MAX_ID = 36
"""Characters of a race's id: its looks append up to four."""


class PolicyRace:
    """One race of policies.

    Every look is an evaluation of its own, `ID-l1`, `ID-l2` and so on, of the policies that are still racing, on seeds
    that follow those of the look before; and a comparison of all that was played so far. The last comparison is the
    race's, `ID`. The same race started again goes on where it was, since what is there already is not made again.
    """

    def __init__(self, client: Client, config: DAFComparisonConfig, id: str = "") -> None:
        """Uploads what the policies need; starts nothing.

        Args:
            client: where.
            config: what to compare, with several looks.
            id: of the race; otherwise the name with something random behind it.

        Raises:
            DafError: something in it is not known; names the field.
        """
        if len(id) > MAX_ID:
            raise InvalidArgument.field("name", f"has {len(id)} characters; a race's has at most {MAX_ID}")
        self._client = client
        self.comparison = PolicyComparison(client, config, id)
        """What it is going to be, in one look; only to be planned and checked."""
        self.id = self.comparison.id
        """Of the race, and of the comparison that it ends with."""

    def run(
        self, follow: Callable[[str], Evaluation], on_look: Callable[[Comparison], None] = lambda _: None
    ) -> Comparison:
        """Plays look after look until the race is over.

        Args:
            follow: waits for the end of the evaluation of this name and returns it.
            on_look: told what each look but the last came to.

        Raises:
            ComparisonFailed: an evaluation failed or was cancelled.
            DafError: something is refused.
        """
        racing: Sequence[int] = range(len(self.comparison.spec.policies))
        sources: list[list[EpisodeSource]] = [[] for _ in racing]
        look = 0
        while True:
            look += 1
            evaluation = follow(self._start(look, racing).name)
            if evaluation.state != evaluation_pb2.EVALUATION_STATE_SUCCEEDED:
                raise ComparisonFailed(evaluation)
            for number, policy in enumerate(racing):
                sources[policy].append(EpisodeSource(evaluation=evaluation.name, policy=number))
            if look == self.comparison.design.looks:
                return self._compare(self.id, evaluation, sources)
            comparison = self._compare(_look_id(self.id, look), evaluation, sources)
            if comparison.race.over:
                return self._compare(self.id, evaluation, sources)
            on_look(comparison)
            racing = list(comparison.race.racing)

    def _start(self, look: int, racing: Sequence[int]) -> Evaluation:
        spec = look_spec(self.comparison.spec, look, self.comparison.design.looks, racing)
        return create_or_find(self._client, _look_id(self.id, look), spec)

    def _compare(self, id: str, evaluation: Evaluation, sources: Sequence[Sequence[EpisodeSource]]) -> Comparison:
        policies = [
            PolicyEpisodes(sources=of_policy, label=policy.label)
            for of_policy, policy in zip(sources, self.comparison.spec.policies, strict=True)
        ]
        request_id = f"race {id} {evaluation.digest[:32]}"
        return compare_or_find(self._client, id, request_id, self.comparison.design, policies)


def play_race(
    client: Client,
    config: DAFComparisonConfig,
    on_change: Callable[[Evaluation], None] = lambda _: None,
    on_look: Callable[[Comparison], None] = lambda _: None,
    id: str = "",
) -> Comparison:
    """Runs a race from its start or from where it was; raises as `PolicyRace`.

    Args:
        client: where.
        config: what to compare, with several looks.
        on_change: told twice a second how far the episodes of a look are.
        on_look: told what each look but the last came to.
        id: of the race; the same one goes on with a race that was interrupted.
    """
    race = PolicyRace(client, config, id)
    check(race.comparison)
    return race.run(lambda name: followed(client, name, on_change), on_look)


def look_spec(spec: EvaluationSpec, look: int, looks: int, racing: Sequence[int]) -> EvaluationSpec:
    """The evaluation of one look.

    Args:
        spec: the evaluation of all episodes by all policies.
        look: which, from 1; all have their episodes in equal parts, as far as it goes.
        looks: how many there are going to be.
        racing: numbers of the policies that play.
    """
    first, end = (spec.episodes * done // looks for done in (look - 1, look))
    found = EvaluationSpec()
    found.CopyFrom(spec)
    found.seed, found.episodes = spec.seed + first, end - first
    del found.policies[:]
    found.policies.extend(spec.policies[number] for number in racing)
    return found


def _look_id(id: str, look: int) -> str:
    return f"{id}-l{look}"
