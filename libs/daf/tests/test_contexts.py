from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from daf.contexts import add_context, current_endpoint, current_name, read_contexts, remove_context, use_context
from daf.endpoint import Endpoint
from daf_common.errors import DataLoss, InvalidArgument, NotFound

TOKEN = "a-token-that-nobody-may-see"


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


def test_without_a_context_the_embedded_stack_is_used(home: Path) -> None:
    assert current_name() == "embedded"
    assert current_endpoint() is None


def test_a_context_is_used_until_another_or_none_is(home: Path) -> None:
    cluster, other = Endpoint("daf.example.org:443", TOKEN, server_name="x"), Endpoint("unix:/tmp/x.sock")
    add_context("cluster", cluster)
    add_context("other", other)

    use_context("cluster")
    assert current_endpoint() == cluster
    use_context("embedded")
    assert current_endpoint() is None
    use_context("other")
    remove_context("other")
    assert current_endpoint() is None
    assert dict(read_contexts().endpoints) == {"cluster": cluster}


def test_only_the_owner_can_read_the_tokens(home: Path) -> None:
    add_context("cluster", Endpoint("daf.example.org:443", TOKEN))

    assert stat.S_IMODE((home / "contexts.json").stat().st_mode) == 0o600


def test_the_environment_overrides_the_file(home: Path, monkeypatch: pytest.MonkeyPatch, ca_file: Path) -> None:
    add_context("cluster", Endpoint("a:1", TOKEN))
    monkeypatch.setenv("DAF_CONTEXT", "cluster")
    assert current_endpoint() == Endpoint("a:1", TOKEN)

    for name, value in {"ACCESS_TOKEN": "other", "CA_FILE": str(ca_file), "SERVER_NAME": "b"}.items():
        monkeypatch.setenv(f"DAF_{name}", value)
    assert current_endpoint() == Endpoint("a:1", "other", ca_file.read_text(), "b")


def test_a_token_of_a_context_is_not_sent_to_the_address_of_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_context("cluster", Endpoint("a:1", TOKEN))
    use_context("cluster")

    monkeypatch.setenv("DAF_ADDRESS", "b:2")
    assert current_endpoint() == Endpoint("b:2")
    monkeypatch.setenv("DAF_ACCESS_TOKEN", "other")
    assert current_endpoint() == Endpoint("b:2", "other")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DAF_ACCESS_TOKEN", "two words", "DAF_ACCESS_TOKEN"),
        ("DAF_SERVER_NAME", "daf", "DAF_SERVER_NAME: has no effect on http://127.0.0.1:1"),
        ("DAF_CA_FILE", "/nowhere", "/nowhere cannot be read"),
        ("DAF_CA_FILE", __file__, "holds no certificate"),
    ],
)
def test_what_cannot_be_in_the_environment_is_refused_by_name(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv("DAF_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, value)

    with pytest.raises(InvalidArgument, match=message):
        current_endpoint()


@pytest.mark.parametrize("name", ["embedded", "a b", ""])
def test_names_that_cannot_be_are_refused(home: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="name"):
        add_context(name, Endpoint("a:1"))

    assert not read_contexts().endpoints


def test_a_context_that_is_not_there_is_refused_with_those_that_are(home: Path) -> None:
    add_context("cluster", Endpoint("a:1"))

    with pytest.raises(NotFound, match="there are: embedded, cluster"):
        use_context("clutser")
    with pytest.raises(NotFound):
        remove_context("embedded")


@pytest.mark.parametrize("content", ["{", "[]", '{"current": "x"}', '{"current": "x", "contexts": {"x": {"a": 1}}}'])
def test_a_broken_file_says_what_to_do(home: Path, content: str) -> None:
    add_context("cluster", Endpoint("a:1"))
    (home / "contexts.json").write_text(content)

    with pytest.raises(DataLoss, match="remove it"):
        read_contexts()


def test_a_context_is_added_with_all_that_it_needs_and_shown_without_its_token(
    daf: Callable[..., Any], home: Path, tmp_path: Path, ca_file: Path
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    options = ("--token-file", str(tmp_path / "token"), "--ca", str(ca_file), "--server-name", "daf.example.org")

    added = daf("context", "add", "cluster", "https://127.0.0.1:8443", *options, "--use")
    shown, listed = daf("context", "list"), daf("context", "list", "--json")

    assert added.code == 0, added.err
    kept = read_contexts().endpoints["cluster"]
    assert kept == Endpoint("https://127.0.0.1:8443", TOKEN, ca_file.read_text(), "daf.example.org")
    assert "(token, own authority, certificate of daf.example.org)" in shown.out
    assert listed.json()["contexts"][1] == {
        "name": "cluster",
        "address": "https://127.0.0.1:8443",
        "has_token": True,
        "has_ca": True,
        "server_name": "daf.example.org",
    }
    assert not [text for text in (added.out, added.err, shown.out, listed.out, repr(kept)) if TOKEN in text]


def test_a_token_may_come_from_the_input(
    daf: Callable[..., Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content, code in ((f"{TOKEN}\n", 0), ("", 2), ("two words", 2)):
        (tmp_path / "input").write_text(content)
        with (tmp_path / "input").open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            assert daf("context", "add", "cluster", "a:1", "--token-file", "-").code == code

    assert read_contexts().endpoints["cluster"].token == TOKEN


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["http://daf.example.org:80", "--token-file", "TOKEN"], "could be read by anyone on the way"),
        (["http://127.0.0.1:80", "--ca", "CA"], "ca: has no effect"),
        (["unix:/x", "--server-name", "daf"], "server_name: has no effect"),
        (["a:1", "--token-file", "/nowhere"], "/nowhere cannot be read"),
        (["a:1", "--token-file", "EMPTY"], "empty is empty"),
        (["a:1", "--ca", "TOKEN"], "holds no certificate in PEM"),
    ],
)
def test_what_does_not_fit_together_is_refused_and_nothing_is_kept(
    daf: Callable[..., Any], home: Path, tmp_path: Path, ca_file: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "empty").write_text("\n")
    files = {"TOKEN": str(tmp_path / "token"), "EMPTY": str(tmp_path / "empty"), "CA": str(ca_file)}

    refused = daf("context", "add", "x", *(files.get(argument, argument) for argument in arguments))

    assert refused.code == 2
    assert message in refused.err
    assert TOKEN not in refused.err
    assert not (home / "contexts.json").exists()


def test_a_file_of_contexts_holds_no_private_key(daf: Callable[..., Any], home: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    (tmp_path / "both.pem").write_bytes(authority.private_key_pem.bytes() + authority.cert_pem.bytes())

    assert daf("context", "add", "cluster", "a:1", "--ca", str(tmp_path / "both.pem")).code == 0

    kept = json.loads((home / "contexts.json").read_text())["contexts"]["cluster"]["ca"]
    assert kept == authority.cert_pem.bytes().decode()
