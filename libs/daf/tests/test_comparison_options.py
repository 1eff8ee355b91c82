"""What `daf compare` refuses on its command line, before it talks to anything."""

from __future__ import annotations

from typing import Any

import pytest

PLAYED = ("-p", "random", "-p", "starter", "-m", "some.mission")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("-p", "random", "-m", "some.mission"), "--policy/-p: give at least 2"),
        (("comparisons/one", "--metric", "energy.gained"), "--metric: has no meaning beside comparisons/one"),
        (("comparisons/one", "-p", "random"), "--policy: has no meaning beside comparisons/one"),
        (("comparisons/one", "--seed", "0"), "--seed: has no meaning beside comparisons/one"),
        (("comparisons/one", "--results", "v.csv"), "--results: has no meaning beside comparisons/one"),
        (("--results", "v.csv", "-p", "random"), "--policy: has no meaning beside --results"),
        (("one.yaml", "--results", "v.csv"), "FILE: has no meaning beside --results"),
        (("evaluations/one", "--vor", "--cogs", "3"), "--cogs: has no meaning beside evaluations/one"),
        ((*PLAYED, "--vor", "--vor-mode", "sample"), "--vor-mode: 'sample' is not one of sampled, cogames"),
        ((*PLAYED, "--cross-play", "--vor-mode", "cogames"), "--vor-mode: has no meaning beside --cross-play"),
        ((*PLAYED, "--power", "0"), "--power: 0 is no difference that can be found"),
        ((*PLAYED, "--power", "nan"), "--power: nan is no difference that can be found"),
        ((*PLAYED, "--power", "0.1", "--probability", "1"), "--probability: 1 is not between 0 and 1"),
        ((*PLAYED, "--time-limit", "0"), "--time-limit: should be greater than 0"),
    ],
)
def test_an_option_that_would_be_ignored_or_fail_later_is_refused(
    daf: Any, arguments: tuple[str, ...], problem: str
) -> None:
    outcome = daf("compare", *arguments)

    assert (outcome.code, outcome.err) == (2, f"daf: {problem}\n")
