"""Missions as messages and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from daf.convert.policies import Resolver, artifact_config, artifact_message
from daf.missions import OwnMission, expand, is_file, stands_for_several
from daf.references import MissionConfig
from daf_protos.common.v1.mission_pb2 import Mission


def mission_messages(
    configs: Sequence[MissionConfig], field: str, directory: Path, resolver: Resolver
) -> list[Mission]:
    """Missions as messages: patterns and sets as what they stand for, files of the user's own uploaded.

    Args:
        configs: the missions.
        field: what errors name, with the number of the mission behind it.
        directory: what paths are relative to.
        resolver: resolves their references.

    Raises:
        DafError: something that they refer to is not there or not readable; names the field.
    """
    return [
        message
        for index, config in enumerate(configs)
        for message in _messages(config, f"{field}[{index}]", directory, resolver)
    ]


def mission_config(message: Mission) -> MissionConfig:
    """A mission as documents have it."""
    return MissionConfig(
        mission=message.name,
        variants=list(message.variants),
        cogs=message.cogs if message.HasField("cogs") else None,
        max_steps=message.max_steps if message.HasField("max_steps") else None,
        difficulty=message.difficulty or None,
        map_seed=message.map_seed if message.HasField("map_seed") else None,
        file=artifact_config(message.file) if message.HasField("file") else None,
    )


def _messages(config: MissionConfig, field: str, directory: Path, resolver: Resolver) -> Iterator[Mission]:
    if config.file is not None:
        message = _message(config)
        message.file.CopyFrom(artifact_message(config.file))
        yield message
    elif is_file(config.mission):
        own = OwnMission.of(directory / Path(config.mission).expanduser(), field)
        message = _message(config)
        message.name = own.name
        message.file.CopyFrom(resolver.mission(own))
        yield message
    elif stands_for_several(config.mission):
        for one in expand(config, resolver.missions(), field):
            yield _message(one)
    else:
        yield _message(config)


def _message(config: MissionConfig) -> Mission:
    return Mission(
        name=config.mission,
        variants=config.variants,
        cogs=config.cogs,
        max_steps=config.max_steps,
        difficulty=config.difficulty or "",
        map_seed=config.map_seed,
    )
