"""Why training failed, for a program and for a person."""

from __future__ import annotations

import errno

import torch

from daf_cogames.missions import MissionError
from daf_cogames.policies import PolicyError, last_line
from daf_cogames.training.assignment import CheckpointsLost
from daf_cogames.training.checkpoints import WeightsError
from daf_cogames.training.train import PlanError
from daf_common.archives import ArchiveError
from daf_common.errors import DataLoss
from daf_protos.common.v1.failure_pb2 import Failure

_OUT_OF_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")


def failure_of(error: BaseException) -> Failure:
    """What to report of an error that ended training."""
    reason, subject = "CRASHED", ""
    match error:
        case PolicyError():
            reason, subject = "POLICY_INVALID", error.field
        case MissionError():
            reason, subject = "MISSION_INVALID", error.field
        case PlanError():
            reason, subject = "SPEC_INVALID", error.problems[0].name
        case WeightsError():
            reason = "WEIGHTS_INVALID"
        case ArchiveError() | ImportError():
            reason, subject = "POLICY_INVALID", "code"
        case DataLoss():
            reason = "ARTIFACT_LOST"
        case CheckpointsLost():
            reason = "CHECKPOINTS_LOST"
        case OSError(errno=errno.ENOSPC):
            reason = "DISK_FULL"
        case MemoryError() | torch.OutOfMemoryError():
            reason = "OUT_OF_MEMORY"
        case RuntimeError() if any(sign in str(error).lower() for sign in _OUT_OF_MEMORY_SIGNS):
            reason = "OUT_OF_MEMORY"
    return Failure(reason=reason, message=last_line(error), subject=subject)
