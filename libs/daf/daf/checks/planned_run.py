"""A training run or a sweep that is not started yet: how much of everything it will need."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daf import documents
from daf.checks.probe import ask
from daf.config import DAFSweepConfig, DAFTrainingConfig
from daf.convert.sweeps import DEFAULT_TRIALS
from daf.documents import Scalar
from daf.missions import is_file, stands_for_several
from daf.references import StoredArtifact
from daf.space import Choices, Interval, explicit, grid_size
from daf.user_code import UserCode
from daf_common.archives import unpack

DEFAULT_PROFILE, DEFAULT_WORKERS, DEFAULT_ENVIRONMENTS = "cpu-small", 1, 16
"""The profile of jobs that name none, unless an installation has changed it."""
DEFAULT_KEPT = 5
"""Checkpoints that a job keeps beside the best, if it does not say."""
_STATE_BYTES = 16 << 10  # of random generators and counters, for each worker


@dataclass(frozen=True)
class PlannedRun:
    """A document that says what is to be trained."""

    document: DAFTrainingConfig | DAFSweepConfig

    @classmethod
    def of(cls, run: str | Path | DAFTrainingConfig | DAFSweepConfig) -> PlannedRun:
        """A run from its document, or from the file with it.

        Raises:
            FileNotFoundError: there is no such file.
            daf.documents.DocumentError: it is no document of a training run or a sweep.
        """
        if not isinstance(run, str | Path):
            return cls(run)
        is_sweep = "search_space" in documents.read(run).data
        return cls((DAFSweepConfig if is_sweep else DAFTrainingConfig).from_yaml(run))

    @property
    def mission_names(self) -> list[str]:
        """The missions of CoGames that it names, without patterns and sets."""
        names = [mission.mission for mission in self.document.missions if mission.file is None]
        return [name for name in names if not is_file(name) and not stands_for_several(name)]

    @property
    def mission_files(self) -> list[str]:
        """The user's own missions that it names."""
        names = [mission.mission for mission in self.document.missions]
        return [self._mission_file(name) for name in names if is_file(name)]

    @property
    def jobs(self) -> int:
        """Training jobs in all."""
        if isinstance(self.document, DAFTrainingConfig):
            return 1
        if self.document.strategy == "grid":
            return grid_size(self.document.search_space)
        return self.document.num_trials or DEFAULT_TRIALS

    @property
    def jobs_at_once(self) -> int:
        """Training jobs that run at a time."""
        return (
            1 if isinstance(self.document, DAFTrainingConfig) else min(self.jobs, self.document.max_parallel_jobs or 1)
        )

    @property
    def workers(self) -> int | None:
        """Workers of a job; None where only the installation knows."""
        return self.document.training.workers or (DEFAULT_WORKERS if self._has_default_profile else None)

    @property
    def environments(self) -> int | None:
        """Environments of a worker; None where only the installation knows."""
        return self.document.training.num_envs or (DEFAULT_ENVIRONMENTS if self._has_default_profile else None)

    @property
    def checkpoints(self) -> int:
        """Checkpoints that a job leaves: all that it saves, or those that are kept and the best."""
        training = self.document.training
        saved = math.ceil(training.agent_steps / (training.checkpoint_agent_steps or training.agent_steps))
        kept = training.max_checkpoints or DEFAULT_KEPT
        return saved if saved <= kept else kept + 1

    @property
    def most_checkpoints(self) -> int:
        """Checkpoints of all jobs that lie on the disk at a time, at most: each job that runs writes one before it
        drops another."""
        return self.jobs * self.checkpoints + self.jobs_at_once

    def checkpoint_bytes(self) -> int:
        """Size of one checkpoint, weights with optimizer, found by building the policy: takes seconds, and runs the
        user's own code. In a sweep over sizes of the policy it is the largest.

        Raises:
            ProbeError: the policy or the mission cannot be built here.
            DafError: the user's code cannot be packed.
        """
        with self._code() as code:
            found = ask(
                "network",
                {
                    "class_path": self.document.policy,
                    "arguments": self.document.policy_arguments,
                    "largest": self._largest_values(),
                    "code": None if code is None else str(code),
                    "mission": self._mission_question(),
                },
            )
        workers = self.workers or DEFAULT_WORKERS
        return int(found["weights_bytes"]) + int(found["optimizer_bytes"]) + workers * _STATE_BYTES

    @property
    def knows_its_code(self) -> bool:
        """Whether the user's code is on this machine, if there is any."""
        return not isinstance(self.document.code, StoredArtifact)

    @property
    def _has_default_profile(self) -> bool:
        return self.document.training.profile in ("", DEFAULT_PROFILE)

    def _mission_question(self) -> dict[str, Any]:
        mission = self.document.missions[0]
        length = {"max_steps": mission.max_steps, "map_seed": mission.map_seed}
        if is_file(mission.mission):
            return {"file": self._mission_file(mission.mission), **length}
        changes = {"variants": mission.variants, "cogs": mission.cogs, "difficulty": mission.difficulty}
        return {"name": mission.mission, **changes, **length}

    def _mission_file(self, name: str) -> str:
        return str((self.document.directory / Path(name).expanduser()).absolute())

    @contextmanager
    def _code(self) -> Iterator[Path | None]:
        """A directory with the user's code as workers see it."""
        if not isinstance(self.document.code, list):
            yield None
            return
        code = UserCode.of(self.document.directory / Path(path).expanduser() for path in self.document.code)
        with tempfile.TemporaryDirectory(prefix="daf-check-") as directory:
            archive, content = Path(directory, "code.zip"), Path(directory, "code")
            archive.write_bytes(code.archive)
            unpack(archive, content)
            yield content

    def _largest_values(self) -> dict[str, Scalar]:
        """The largest value of each number that is searched over, by its name without its place."""
        if isinstance(self.document, DAFTrainingConfig):
            return {}
        found: dict[str, Scalar] = {}
        for name, domain in self.document.search_space.items():
            place, _, short = name.rpartition(".")
            numbers = _numbers(explicit(domain, self.document.strategy))
            if place in ("", "policy") and numbers:
                found[short] = max(numbers)
        return found


def _numbers(domain: Choices | Interval) -> list[Any]:
    if isinstance(domain, Interval):
        return [round(domain.max) if domain.int else domain.max]
    return [value for value in domain.choices if isinstance(value, int | float) and not isinstance(value, bool)]
