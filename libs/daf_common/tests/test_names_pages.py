"""Names, ids and page tokens: what is accepted and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daf_common import names, pages
from daf_common.errors import InvalidArgument
from daf_common.ids import CountedIds, RandomIds, is_valid


def test_a_name_parses_to_what_it_was_made_of() -> None:
    assert names.TRIAL.format("lr-search", 12) == "sweeps/lr-search/trials/12"
    assert names.TRIAL.parse("sweeps/lr-search/trials/12") == ("lr-search", "12")
    assert names.POLICY_VERSION.parse("policyPackages/miner/versions/1.2.0-rc.1") == ("miner", "1.2.0-rc.1")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "sweeps",
        "sweeps/",
        "sweeps/A",
        "sweeps/a/trials",
        "sweeps/a/trials/0x1",
        "sweeps/a/trials/01",
        "sweeps/a/trials/٣",
        "sweeps/a/trials/-1",
        "sweeps/a\x00/trials/1",
        "sweeps/../trials/1",
        "x" * 1_000_000,
    ],
)
def test_anything_else_is_refused_in_a_short_message(name: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        names.TRIAL.parse(name, "parent")
    assert error.value.violations[0].field == "parent"
    assert len(error.value.message) < 300


def test_ids_are_labels_that_leave_room() -> None:
    assert is_valid("a" * 40)
    assert not any(is_valid(bad) for bad in ("", "a" * 41, "1a", "a-", "-a", "a_b", "ä"))
    assert is_valid(RandomIds().new("sweep"))
    with pytest.raises(InvalidArgument, match="sweep_id"):
        names.new_id("Not An Id", "sweep", CountedIds(), "sweep_id")


@given(st.lists(st.one_of(st.integers(), st.text(st.characters(exclude_characters="\x1f", exclude_categories=["Cs"])))))
def test_a_token_gives_back_its_keys_but_only_to_its_own_request(keys: list[int | str]) -> None:
    token = pages.encode("ListJobs", *keys)
    if len(token) < 1000:
        assert list(pages.decode("ListJobs", token)) == keys
    with pytest.raises(InvalidArgument):
        pages.decode("ListSweeps", token)


@pytest.mark.parametrize("token", ["x", "AAAA", "é", "=" * 9, "a" * 100_000])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument, match="page_token"):
        pages.decode("ListJobs", token)


def test_page_sizes() -> None:
    assert [pages.page_size(n) for n in (0, 7, 10**9)] == [50, 7, 1000]
    with pytest.raises(InvalidArgument, match="page_size"):
        pages.page_size(-1)
