from __future__ import annotations

import pytest

from daf.endpoint import Endpoint
from daf_common.credentials import Tls
from daf_common.errors import InvalidArgument


@pytest.mark.parametrize(
    ("address", "target", "encrypted"),
    [
        ("daf.example.org:443", "daf.example.org:443", True),
        ("https://daf.example.org:8443", "daf.example.org:8443", True),
        ("https://daf.example.org", "daf.example.org:443", True),
        ("https://daf.example.org/", "daf.example.org:443", True),
        ("http://daf:50051", "daf:50051", False),
        ("http://daf", "daf:80", False),
        ("[::1]:443", "[::1]:443", True),
        ("http://[::1]:50051", "[::1]:50051", False),
        ("unix:/run/daf.sock", "unix:/run/daf.sock", False),
    ],
)
def test_an_address_is_encrypted_unless_it_says_otherwise(address: str, target: str, encrypted: bool) -> None:
    endpoint = Endpoint(address)

    assert endpoint.target == target
    assert endpoint.tls == (Tls() if encrypted else None)


@pytest.mark.parametrize(
    "address", ["", "a", "unix:", "ftp://a:1", "https://", "a:0", "a:65536", "a:b", "a b:1", "https://a:1/x", "u@a:1"]
)
def test_addresses_that_cannot_be_are_refused(address: str) -> None:
    with pytest.raises(InvalidArgument, match="address"):
        Endpoint(address)


@pytest.mark.parametrize("address", ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "unix:/x", "a:1"])
def test_a_token_goes_where_nobody_on_the_way_can_read_it(address: str) -> None:
    assert Endpoint(address, "token").token == "token"


@pytest.mark.parametrize("address", ["http://daf:1", "http://10.0.0.1:1", "http://0.0.0.0:1", "http://localhost.x:1"])
def test_a_token_goes_nowhere_else(address: str) -> None:
    with pytest.raises(InvalidArgument, match="could be read"):
        Endpoint(address, "token")
