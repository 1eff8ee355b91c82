"""The document of a comparison: `comparison_config.yaml`."""

from __future__ import annotations

import warnings
from typing import Literal, Self

from pydantic import Field, model_validator

from daf.document_config import DocumentConfig, MetricName
from daf.references import Count, MissionConfig, PolicyConfig, RequirementsField, Seed, StoredArtifact, problem_at
from daf.sections import EVALUATION_SEED

__all__ = ["DAFComparisonConfig"]


class DAFComparisonConfig(DocumentConfig):
    """Policies that play the same episodes, each alone, and how they are compared."""

    name: str = Field("comparison", min_length=1, max_length=200)
    policies: list[PolicyConfig] = Field(min_length=2, max_length=16)
    code: list[str] | StoredArtifact | None = None
    """Files and folders of the user's own code; policies whose class is in it take it along."""
    requirements: RequirementsField = None
    """Packages that this code needs."""
    missions: list[MissionConfig] = Field(min_length=1)
    episodes_per_mission: Count = 20
    """Episodes of each mission for each policy, on the same seeds."""
    seed: Seed = EVALUATION_SEED
    metric: MetricName = "reward"
    """`reward`, or an agent's or the game's statistic; higher is better."""
    aggregation: Literal["mean", "sum", "min", "max"] = "mean"
    """How the values of a policy's seats become one; a statistic of the game is one already."""
    alpha: float = Field(0.05, ge=0.001, le=0.5)
    """Probability of a wrong decision that is accepted, over all tests together."""
    margin: float | None = Field(None, gt=0)
    """Differences smaller than this do not matter: policies that differ by less are equivalent."""
    family: Literal["holm", "bh"] = "holm"
    """How all tests share alpha: Holm, for decisions; Benjamini-Hochberg, for exploration."""
    baseline: str | None = None
    """The policy that every other is compared with, by its label or as it is listed; all pairs otherwise."""
    looks: int = Field(1, ge=1, le=50)
    """How often is looked at the numbers while they come in: after each look, policies that are worse than another play
    no more, and it ends as soon as one is left. One look: at the end, when all episodes have been played."""
    strict: bool = False
    """Refuses a design that cannot reach its alpha, instead of warning of it."""
    max_action_time_ms: Count | None = None
    """Time for an action by the wall clock; otherwise so much that it never decides a score."""
    fast: bool = False
    """Batches networks also where that changes the last bits of their output; the comparison says so."""
    isolated: bool = False
    """Lets every policy play in a sandbox, not only bundles."""
    time_limit_seconds: float | None = Field(None, gt=0, le=86_400)
    """For a policy to load, to start or for one step, before it forfeits the episode."""
    profile: str = ""
    workers: Count | None = None
    save_raw_results: bool = True
    """Whether `daf compare FILE` writes the results as JSON to `daf_output/comparisons`."""
    generate_html_report: bool | None = None

    @model_validator(mode="after")
    def _say_what_has_no_effect(self) -> Self:
        if self.generate_html_report:
            warnings.warn("DAFComparisonConfig: generate_html_report has no effect yet", UserWarning, stacklevel=3)
        if self.baseline is not None and not self.baseline:
            raise problem_at(("baseline",), "is empty: name a policy, or leave it out")
        if self.looks > 1:
            if self.looks > self.episodes_per_mission:
                episodes = f"the {self.episodes_per_mission} episodes of a mission, of which each look needs one"
                raise problem_at(("looks",), f"there are more than {episodes}")
            if self.baseline is not None:
                raise problem_at(("baseline",), "is for one look: a race compares all pairs")
            if self.family != "holm":
                raise problem_at(("family",), "must be holm with several looks: a race shares alpha as Holm does")
        return self
