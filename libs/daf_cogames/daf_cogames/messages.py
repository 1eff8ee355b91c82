"""What a worker is told in protobuf messages, as the plain values that this package works with."""

from __future__ import annotations

from pathlib import Path

from daf_cogames.missions import Mission
from daf_cogames.policies import PolicySource
from daf_common.values import scalars
from daf_protos.common.v1.mission_pb2 import Mission as MissionMessage
from daf_protos.common.v1.policy_pb2 import PolicyClass


def mission_of(message: MissionMessage, file: Path | None) -> Mission:
    """The mission that a message names; the unpacked file of a user's own lies where the argument says."""
    return Mission(
        name=message.name,
        variants=tuple(message.variants),
        cogs=message.cogs if message.HasField("cogs") else None,
        max_steps=message.max_steps if message.HasField("max_steps") else None,
        difficulty=message.difficulty or None,
        map_seed=message.map_seed if message.HasField("map_seed") else None,
        file=file,
    )


def policy_of(
    message: PolicyClass, weights: Path | None, code: Path | None, requirements: Path | None = None
) -> PolicySource:
    """The policy that a message names; its weights and its unpacked archives lie where the arguments say."""
    return PolicySource(message.class_path, scalars(message.arguments), weights, code, requirements)
