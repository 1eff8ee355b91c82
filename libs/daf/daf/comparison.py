"""Comparison of policies: the same episodes for all, and which differences hold up."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daf.client import Client
from daf.comparison_results import (
    PolicyComparisonResult,
    as_dict,
    episodes_played,
    mission_labels,
    pair_results,
    policy_statistics,
)
from daf.comparisons import (
    ComparisonFailed,
    baseline_number,
    compare_values,
    make_design,
    play_and_compare,
    read_comparison,
)
from daf.config import DAFComparisonConfig
from daf.connection import given_or_connected
from daf.missions import given_mission
from daf.policy_arguments import given_policy
from daf.races import play_race
from daf.sections import EVALUATION_SEED
from daf.vor import daf_compare_with_vor
from daf_common.errors import InvalidArgument
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation
from daf_protos.statistics.v1.comparison_pb2 import Comparison, MissionValues, PolicyValues
from daf_protos.statistics.v1.comparison_service_pb2 import ComparePoliciesRequest

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "ComparisonFailed",
    "ComparisonReport",
    "DAFComparisonConfig",
    "PolicyComparisonResult",
    "daf_compare_policies",
    "daf_compare_with_vor",
    "daf_get_comparison",
]


class ComparisonReport:
    """What a comparison of policies came to; or one that a script fills with `add_policy_results`."""

    def __init__(self, metric: str = "reward", *, client: Client | None = None) -> None:
        """An empty report.

        Args:
            metric: what the values that are going to be added are called.
            client: where they are compared; otherwise where the context in use says.
        """
        self.metric = metric
        self.comparison: Comparison | None = None
        """All numbers, as the statistics service keeps them."""
        self._client = client
        self._values: dict[str, PolicyValues] = {}

    @classmethod
    def of(cls, comparison: Comparison, client: Client | None = None) -> ComparisonReport:
        """The report of a comparison that was made."""
        report = cls(comparison.design.metric, client=client)
        report.comparison = comparison
        return report

    @property
    def name(self) -> str:
        """Resource name, by which the report can be made again; empty before anything was compared."""
        return self.comparison.name if self.comparison else ""

    @property
    def comparisons(self) -> list[PolicyComparisonResult]:
        """Every pair of policies, over all missions."""
        return pair_results(self.comparison, "") if self.comparison else []

    @property
    def mission_comparisons(self) -> dict[str, list[PolicyComparisonResult]]:
        """Every pair of policies by mission; empty where there is one mission."""
        if self.comparison is None:
            return {}
        return {mission: pair_results(self.comparison, mission) for mission in mission_labels(self.comparison).values()}

    @property
    def warnings(self) -> list[str]:
        """What a reader must know: designs that cannot decide, forfeits, copies, missing episodes."""
        return list(self.comparison.warnings) if self.comparison else []

    @property
    def episodes_played(self) -> int:
        """How many episodes were played; a race plays fewer than were planned."""
        return episodes_played(self._compared())[0]

    @property
    def episodes_saved(self) -> int:
        """How many episodes a race did not need of those that one look at the end would have; 0 without a race."""
        played, planned = episodes_played(self._compared())
        return planned - played if self._compared().design.looks > 1 else 0

    @property
    def summary_statistics(self) -> dict[str, dict[str, Any]]:
        """What each policy's values come to, by its name: `avg_reward`, `std_reward`, `min_reward`, `max_reward`,
        `episodes`, `copies`, `forfeits`, `iqm` and `iqm_interval`; the values are those of the metric."""
        return policy_statistics(self._compared())

    def add_policy_results(self, policy_name: str, mission_rewards: Mapping[str, Sequence[float]]) -> None:
        """Adds the values of one policy.

        Args:
            policy_name: what it is called; again, its values are replaced.
            mission_rewards: by mission one value an episode. Values at the same place of two policies are a pair, so
                give them in the order of the seeds, the same for all policies.

        Raises:
            InvalidArgument: this is the report of episodes that were played.
        """
        if self.comparison is not None and not self._values:
            raise InvalidArgument.field("policy_name", f"{self.name} is made of episodes: add values to a new report")
        self._values[policy_name] = PolicyValues(
            label=policy_name,
            missions=[
                MissionValues(mission=mission, seeds=range(len(values)), values=[float(value) for value in values])
                for mission, values in mission_rewards.items()
            ],
        )
        self.comparison = None

    def compute_pairwise_comparisons(
        self,
        significance_level: float = 0.05,
        *,
        margin: float | None = None,
        family: str = "holm",
        baseline: str | None = None,
    ) -> list[PolicyComparisonResult]:
        """Compares every pair of policies.

        Args:
            significance_level: probability of a wrong decision that is accepted, over all pairs together.
            margin: differences smaller than this do not matter.
            family: `holm` or `bh` (Benjamini-Hochberg).
            baseline: the policy that every other is compared with; all pairs otherwise.

        Raises:
            InvalidArgument: there are no two policies, or a value is not finite.
        """
        with given_or_connected(self._client) as connected:
            if self.comparison is not None and not self._values:
                request = ComparePoliciesRequest(
                    policies=[policy.episodes for policy in self.comparison.policies],
                )
                for asked, policy in zip(request.policies, self.comparison.policies, strict=True):
                    asked.label = policy.label
                labels = [policy.label for policy in self.comparison.policies]
                number = None if baseline is None else baseline_number(baseline, labels)
                design = make_design(
                    self.metric, significance_level, margin, family, number, self.comparison.design.episodes
                )
                design.aggregation = self.comparison.design.aggregation
                design.looks = self.comparison.design.looks  # that the episodes were looked at does not go away
                request.design.CopyFrom(design)
                self.comparison = connected.comparison.ComparePolicies(request).comparison
            else:
                number = None if baseline is None else baseline_number(baseline, list(self._values))
                design = make_design(self.metric, significance_level, margin, family, number)
                self.comparison = compare_values(connected, list(self._values.values()), design)
        return self.comparisons

    def print_summary(self, console: Console | None = None) -> None:
        """Prints policies and pairs: number of episodes, interval and verdict before any p-value."""
        from daf.render_comparison import print_comparison

        print_comparison(self._compared(), console)

    def save_json(self, path: str | Path) -> None:
        """Writes everything to a JSON file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(as_dict(self._compared()), indent=2) + "\n", encoding="utf-8")

    def _compared(self) -> Comparison:
        if self.comparison is None:
            self.compute_pairwise_comparisons()
        assert self.comparison is not None
        return self.comparison


def daf_compare_policies(
    policies: Sequence[Any],
    missions: Sequence[Any],
    episodes_per_mission: int = 5,
    *,
    seed: int = EVALUATION_SEED,
    metric: str = "reward",
    alpha: float = 0.05,
    margin: float | None = None,
    family: str = "holm",
    baseline: str | None = None,
    strict: bool = False,
    aggregation: str = "mean",
    looks: int = 1,
    name: str = "",
    code: Sequence[str | Path] = (),
    client: Client | None = None,
    on_change: Callable[[Evaluation], None] = lambda _: None,
) -> ComparisonReport:
    """Lets each policy play the same episodes alone and compares them pair by pair.

    With several looks it is a race: the numbers are looked at while they come in, policies that are worse than another
    play no more, and all ends as soon as one is left. The probability of a wrong decision stays alpha.

    Args:
        policies: short names, class paths, checkpoints (`job/NAME/checkpoints/best`), mappings, or CoGames'
            `PolicySpec`.
        missions: names, mappings such as `{"mission": ..., "cogs": 4}`, or pairs of a name and a `MettaGridConfig`.
        episodes_per_mission: five are too few for a decision on one mission: the report's `warnings` say how many are
            needed.
        seed: of the first episode; the others follow, the same for all policies.
        metric: `reward`, or an agent's or the game's statistic; higher is better.
        alpha: probability of a wrong decision that is accepted, over all pairs together.
        margin: differences smaller than this do not matter: policies that differ by less are equivalent.
        family: how the pairs share alpha: `holm` or `bh` (Benjamini-Hochberg).
        baseline: the policy that every other is compared with; all pairs otherwise.
        strict: refuses a design that cannot reach its alpha, before anything is played.
        aggregation: how the values of a policy's seats become one: `mean`, `sum`, `min` or `max`.
        looks: how often is looked at the numbers, after equally many episodes each; 1: at the end.
        name: id of the evaluation and the comparison; one is made otherwise. A race of the same name goes on where it
            was interrupted.
        code: files and folders of the user's own code.
        client: where to play; otherwise where the context in use says, else on the embedded stack, which is started
            if it does not run.
        on_change: told twice a second how far the episodes are.

    Raises:
        ComparisonFailed: the episodes could not be played; a RuntimeError.
        DafError: something in it is not known or refused.
        ValueError: an argument cannot be used.
    """
    config = DAFComparisonConfig.model_validate(
        {
            "policies": [given_policy(policy, index) for index, policy in enumerate(policies)],
            "missions": [given_mission(mission, index) for index, mission in enumerate(missions)],
            "episodes_per_mission": episodes_per_mission,
            "seed": seed,
            "metric": metric,
            "alpha": float(alpha),
            "margin": margin,
            "family": family,
            "baseline": baseline,
            "strict": strict,
            "aggregation": aggregation,
            "looks": looks,
            "code": [str(Path(path).absolute()) for path in code] or None,
        }
    )
    with given_or_connected(client) as connected:
        if config.looks > 1:
            return ComparisonReport.of(play_race(connected, config, on_change, id=name), client)
        return ComparisonReport.of(play_and_compare(connected, config, on_change, name), client)


def daf_get_comparison(name: str, *, client: Client | None = None) -> ComparisonReport:
    """The report of a comparison that was made before, by its name `comparisons/...`.

    Raises:
        NotFound: there is none.
    """
    with given_or_connected(client) as connected:
        return ComparisonReport.of(read_comparison(connected, name), client)
