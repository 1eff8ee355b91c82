"""Content that is put into the artifact store."""

from __future__ import annotations

import os
from typing import Any

import pytest

from daf import resources
from daf.client import Client
from daf.resources import Resources
from daf_common.errors import Unavailable

CONTENT = os.urandom(1 << 20)
"""More than a channel keeps of a call to send it again by itself."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_PAUSES_SECONDS", (0.0, 0.0, 0.0))


def test_what_did_not_get_through_is_sent_again(client: Client, services: Any) -> None:
    services.artifacts.lost = 3

    artifact = Resources(client).requirements(CONTENT)

    assert services.artifacts.stored[artifact.sha256] == CONTENT
    assert services.artifacts.uploads == 1


def test_what_never_gets_through_is_given_up(client: Client, services: Any) -> None:
    services.artifacts.lost = 4

    with pytest.raises(Unavailable, match="the end of it is missing"):
        Resources(client).requirements(CONTENT)

    assert (services.artifacts.lost, services.artifacts.uploads) == (0, 0)
