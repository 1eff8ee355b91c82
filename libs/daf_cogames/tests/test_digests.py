"""A digest changes with everything that an episode is, and with nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from daf_cogames.play.digests import digest, episode_digest, evaluation_digest

EPISODE: dict[str, Any] = {
    "mission": {"name": "cogsguard_arena.basic", "variants": ["dark_side"], "cogs": 2},
    "seed": 42,
    "seats": (0, 1),
    "steps": 100,
    "rewards": (0.1, 1.0),
    "agent_stats": [{"heart.gained": 1.0}, {"heart.gained": 0.0}],
    "game_stats": {"objects.hub": 1.0},
    "time_averaged_game_stats": {"objects.hub": 0.5},
    "versions": {"cogames": "0.18.0"},
}


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("mission", EPISODE["mission"] | {"cogs": None}),
        ("mission", EPISODE["mission"] | {"variants": []}),
        ("seed", 43),
        ("seats", (1, 0)),
        ("steps", 99),
        ("rewards", (0.1 + 2**-56, 1.0)),
        ("rewards", (1.0, 0.1)),
        ("agent_stats", [{"heart.gained": 0.0}, {"heart.gained": 1.0}]),
        ("game_stats", {"objects.hub": 2.0}),
        ("game_stats", {"objects.hub": 1.0, "objects.wall": 0.0}),
        ("time_averaged_game_stats", {}),
        ("versions", {"cogames": "0.18.1"}),
    ],
)
def test_any_difference_shows(field: str, other: Any) -> None:
    assert episode_digest(**EPISODE) != episode_digest(**(EPISODE | {field: other}))


def test_what_a_wire_format_may_change_does_not_show() -> None:
    received = EPISODE | {
        "seats": [0, 1],
        "rewards": [0.1, 1],
        "agent_stats": ({"heart.gained": 1}, {"heart.gained": 0}),
        "mission": dict(reversed(EPISODE["mission"].items())),
    }

    assert episode_digest(**received) == episode_digest(**EPISODE)


def test_the_digest_of_a_known_episode_stays_what_it_was() -> None:
    assert episode_digest(**EPISODE) == "ada5500fe73025a480d3b22487c92293937bbf89ef304e93ec087322c93251d2"


def test_an_evaluation_does_not_depend_on_the_order_in_which_its_episodes_came() -> None:
    assert evaluation_digest([(1, "b"), (0, "a")]) == evaluation_digest([(0, "a"), (1, "b")])
    assert evaluation_digest([(0, "b"), (1, "a")]) != evaluation_digest([(0, "a"), (1, "b")])


def test_no_two_structures_share_a_canonical_form() -> None:
    values = [
        None,
        False,
        True,
        0,
        1,
        0.0,
        -0.0,
        1.0,
        float("nan"),
        "",
        "1",
        "n",
        [],
        {},
        [[]],
        [1, 2],
        ["12"],
        ["1", "2"],
    ]
    values += [{"a": 1}, {"a": "1"}, {"b": 1}, [{"a": 1}, "b"], [{"a": 1, "b": 1}]]

    assert len({digest(value) for value in values}) == len(values)


def test_numbers_of_other_libraries_are_refused() -> None:
    with pytest.raises(TypeError, match="plain values"):
        digest(object())  # type: ignore[arg-type]
