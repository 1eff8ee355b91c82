from __future__ import annotations

from pathlib import Path

import pytest

from daf.contexts import add_context, current_address, current_name, read_contexts, remove_context, use_context
from daf_common.errors import DataLoss, InvalidArgument, NotFound


def test_without_a_context_the_embedded_stack_is_used(home: Path) -> None:
    assert current_name() == "embedded"
    assert current_address() is None


def test_a_context_is_used_until_another_or_none_is(home: Path) -> None:
    add_context("cluster", "daf.example.org:443")
    add_context("other", "unix:/tmp/x.sock")

    use_context("cluster")
    assert current_address() == "daf.example.org:443"
    use_context("embedded")
    assert current_address() is None
    use_context("other")
    remove_context("other")
    assert current_address() is None
    assert dict(read_contexts().addresses) == {"cluster": "daf.example.org:443"}


def test_the_environment_overrides_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_context("cluster", "a:1")
    monkeypatch.setenv("DAF_CONTEXT", "cluster")
    assert current_address() == "a:1"
    monkeypatch.setenv("DAF_ADDRESS", "b:2")
    assert current_address() == "b:2"


@pytest.mark.parametrize(
    ("name", "address"), [("embedded", "a:1"), ("a b", "a:1"), ("", "a:1"), ("x", "https://a"), ("x", "a"), ("x", "")]
)
def test_names_and_addresses_that_cannot_be_are_refused(home: Path, name: str, address: str) -> None:
    with pytest.raises(InvalidArgument):
        add_context(name, address)

    assert not read_contexts().addresses


def test_a_context_that_is_not_there_is_refused_with_those_that_are(home: Path) -> None:
    add_context("cluster", "a:1")

    with pytest.raises(NotFound, match="there are: embedded, cluster"):
        use_context("clutser")
    with pytest.raises(NotFound):
        remove_context("embedded")


def test_a_broken_file_says_what_to_do(home: Path) -> None:
    add_context("cluster", "a:1")
    (home / "contexts.json").write_text("{")

    with pytest.raises(DataLoss, match="remove it"):
        read_contexts()
