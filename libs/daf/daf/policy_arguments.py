"""Policies as the functions of DAF and of CoGames take them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from daf.references import PolicyConfig
from daf_common.errors import InvalidArgument


def given_policy(policy: object, index: int) -> PolicyConfig:
    """A policy of a Python call as documents have it: a text, a mapping, or CoGames' `PolicySpec`, whose files are
    meant relative to where the program is.

    Raises:
        InvalidArgument: it is none of these; names it by its index.
        ValueError: it cannot be used.
    """
    if isinstance(policy, PolicyConfig | str | Mapping):
        return PolicyConfig.model_validate(policy if isinstance(policy, PolicyConfig | str) else dict(policy))
    class_path = getattr(policy, "class_path", None)
    if not isinstance(class_path, str):
        raise InvalidArgument.field(
            f"policies[{index}]", f"is a {type(policy).__name__}, and neither a name nor a mapping nor a PolicySpec"
        )
    data_path = getattr(policy, "data_path", None)
    return PolicyConfig(
        policy=class_path,
        weights=str(Path(data_path).expanduser().absolute()) if data_path else None,
        arguments=dict(getattr(policy, "init_kwargs", None) or {}),
    )
