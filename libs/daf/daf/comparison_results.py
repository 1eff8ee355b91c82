"""What a comparison came to, as Python objects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from daf_protos.statistics.v1 import comparison_pb2
from daf_protos.statistics.v1.comparison_pb2 import Comparison, PairComparison


@dataclass(frozen=True)
class PolicyComparisonResult:
    """The comparison of two policies, A and B. None where something cannot be computed."""

    policy_a_name: str
    policy_b_name: str
    avg_reward_a: float | None
    """Mean of the metric over the pairs of episodes."""
    avg_reward_b: float | None
    p_value: float | None
    """Of the paired sign-flip permutation test, two-sided, not adjusted."""
    is_significant: bool
    """Whether the p-value, adjusted for all pairs of policies, is at most alpha."""
    effect_size: float | None
    """Cohen's d, with the pooled standard deviation."""
    verdict: str
    """`first_better`, `second_better`, `equivalent`, `undecided`, `degenerate` or `invalid`."""
    sentence: str
    """The verdict as a sentence."""
    episodes: int
    """Pairs of episodes that count."""
    difference: float | None
    """Mean of A minus B."""
    interval: tuple[float, float] | None
    """Of the difference, at the level 1 - alpha."""
    adjusted_p_value: float | None
    equivalence_p_value: float | None
    """Of the tests of equivalence within the margin, adjusted; None without a margin."""
    effect_size_paired: float | None
    """Cohen's d of the differences (d_z)."""
    hedges_g: float | None
    correlation: float | None
    """Of the two policies over the pairs."""
    probability_of_improvement: float | None
    """That a value of A is higher than one of B."""
    mission: str = ""
    """Empty for all missions together."""

    def summary_string(self) -> str:
        """The verdict as a sentence: number of pairs and interval before the p-value."""
        return self.sentence


def pair_results(comparison: Comparison, mission: str) -> list[PolicyComparisonResult]:
    """Every pair of policies on a mission of `mission_labels`, or, if that is empty, over all of them."""
    labels = [policy.label for policy in comparison.policies]
    pairs: Sequence[PairComparison] = comparison.pairs
    if mission:
        called = mission_labels(comparison)
        pairs = next(one.pairs for one in comparison.missions if called[one.mission] == mission)
    return [_result(pair, labels, comparison.design.alpha, mission) for pair in pairs]


def mission_labels(comparison: Comparison) -> dict[str, str]:
    """What the missions of a comparison are called, by their full text."""
    return labels_of_missions([one.mission for one in comparison.missions])


def labels_of_missions(texts: Sequence[str]) -> dict[str, str]:
    """What missions are called, by their full text: the name, and what changes it where two have the same name."""
    told = {text: _mission(text) for text in texts}
    names = [name for name, _ in told.values()]
    return {
        mission: name if names.count(name) == 1 else ", ".join([name, *changes])
        for mission, (name, changes) in told.items()
    }


def verdict_name(pair: PairComparison) -> str:
    """A verdict as one word."""
    return comparison_pb2.Verdict.Name(pair.verdict).removeprefix("VERDICT_").lower()


def policy_statistics(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """What each policy's values come to, by its label."""
    found = {}
    for policy in comparison.policies:
        values = policy.values
        low, high = given(values, "interquartile_mean_low"), given(values, "interquartile_mean_high")
        found[policy.label] = {
            "avg_reward": given(values, "mean"),
            "std_reward": given(values, "standard_deviation"),
            "min_reward": given(values, "minimum"),
            "max_reward": given(values, "maximum"),
            "episodes": values.episodes,
            "copies": values.copies,
            "forfeits": values.forfeits,
            "iqm": given(values, "interquartile_mean"),
            "iqm_interval": None if low is None else (low, high),
        }
    return found


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Everything, for a JSON file."""
    return {
        "name": comparison.name,
        "metric": comparison.design.metric,
        "summary_statistics": policy_statistics(comparison),
        "comparisons": [asdict(result) for result in pair_results(comparison, "")],
        "mission_comparisons": {
            mission: [asdict(result) for result in pair_results(comparison, mission)]
            for mission in mission_labels(comparison).values()
        },
        "warnings": list(comparison.warnings),
        "comparison": MessageToDict(comparison, preserving_proto_field_name=True),
    }


def race_lines(comparison: Comparison) -> list[str]:
    """What a race decided and what it saved, as sentences; none without a race."""
    if not comparison.HasField("race"):
        return []
    race, looks = comparison.race, comparison.design.looks
    labels = [policy.label for policy in comparison.policies]
    lines = [
        f"Look {one.look} of {looks}: {labels[one.worse]} left, since {labels[one.better]} is better "
        f"(p = {one.p_value:.3g}, level {one.level:.3g})."
        for one in race.decisions
    ]
    played, planned = episodes_played(comparison)
    after = f"after {race.looks} of {looks} looks"
    if race.over:
        saved = f", {1 - played / planned:.0%} fewer than the {planned} planned" if played < planned else ""
        lines.append(f"The race is over {after}: {played} episodes were played{saved}.")
    else:
        lines.append(f"The race goes on {after}: {played} of at most {planned} episodes have been played.")
    return lines


def episodes_played(comparison: Comparison) -> tuple[int, int]:
    """How many episodes were played for a comparison, and how many were planned."""
    values = [policy.values for policy in comparison.policies]
    played = sum(of_policy.episodes + of_policy.copies + of_policy.forfeits for of_policy in values)
    return played, comparison.design.episodes * max(1, len(comparison.missions)) * len(values)


def given(message: Message, field: str) -> float | None:
    """The number in a field; None where it is unset."""
    return getattr(message, field) if message.HasField(field) else None


def _mission(text: str) -> tuple[str, list[str]]:
    """The name of a mission, and what changes it. Episodes tell their mission as JSON, values from elsewhere anyhow."""
    try:
        fields = json.loads(text)
        return str(fields["name"]), [f"{key} {value}" for key, value in fields.items() if value and key != "name"]
    except (ValueError, TypeError, KeyError):
        return text, []


def _result(pair: PairComparison, labels: Sequence[str], alpha: float, mission: str) -> PolicyComparisonResult:
    adjusted = given(pair, "adjusted_p_value")
    return PolicyComparisonResult(
        policy_a_name=labels[pair.first],
        policy_b_name=labels[pair.second],
        avg_reward_a=given(pair, "first_mean"),
        avg_reward_b=given(pair, "second_mean"),
        p_value=given(pair, "p_value"),
        is_significant=adjusted is not None and adjusted <= alpha,
        effect_size=given(pair, "cohens_d"),
        verdict=verdict_name(pair),
        sentence=pair.sentence,
        episodes=pair.pairs,
        difference=given(pair, "difference"),
        interval=(pair.interval_low, pair.interval_high) if pair.HasField("interval_low") else None,
        adjusted_p_value=adjusted,
        equivalence_p_value=given(pair, "adjusted_equivalence_p_value"),
        effect_size_paired=given(pair, "cohens_d_paired"),
        hedges_g=given(pair, "hedges_g"),
        correlation=given(pair, "correlation"),
        probability_of_improvement=given(pair, "probability_of_improvement"),
        mission=mission,
    )
