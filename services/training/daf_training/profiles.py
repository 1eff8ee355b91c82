"""Compute profiles: what a job gets that asks for nothing in particular. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """What the workers of a job are. environments: of each worker."""

    name: str
    environments: int
    workers: int


DEFAULT = "cpu-small"

PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in (Profile(DEFAULT, environments=16, workers=1),)}


def find_profile(name: str) -> Profile | None:
    """The profile of that name; the default one for an empty name."""
    return PROFILES.get(name or DEFAULT)
