"""What a training worker reports, in which portions, and what it prints."""

from __future__ import annotations

import errno
import logging
import sys
from pathlib import Path

import pytest
import torch

from daf_cogames import runner
from daf_cogames.missions import MissionError
from daf_cogames.policies import PolicyError
from daf_cogames.training import reporter as training_reporter
from daf_cogames.training.checkpoints import SavedCheckpoint, StoredFile, WeightsError
from daf_cogames.training.failures import failure_of
from daf_cogames.training.log_capture import captured
from daf_cogames.training.reporter import Outbox
from daf_common.errors import DataLoss
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.training.v1 import worker_service_pb2 as pb
from daf_protos.training.v1.training_job_pb2 import TrainingProgress

ATTEMPT = pb.Attempt(training_job="trainingJobs/j", attempt=1)
FILE = StoredFile(Path("x"), "0" * 64, 1)


def saved(update: int) -> SavedCheckpoint:
    return SavedCheckpoint(FILE, FILE, update, update * 10, {})


def take_all(outbox: Outbox) -> list[tuple[pb.ReportTrainingRequest, SavedCheckpoint | None]]:
    taken, more = [], True
    while more:
        request, checkpoint, more = outbox.take(ATTEMPT, len(taken) + 1)
        taken.append((request, checkpoint))
    return taken


def test_everything_is_reported_once_and_the_outcome_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_reporter, "MAX_SAMPLES", 2)
    outbox = Outbox()
    outbox.add_start(1000, {"learning_rate": 0.1})
    for update in range(1, 6):
        outbox.add_progress(TrainingProgress(update=update), pb.MetricSample(update=update))
    outbox.add_checkpoint(saved(1))
    outbox.add_checkpoint(saved(2))
    outbox.finish(pb.TrainingOutcome())

    taken = take_all(outbox)

    assert [sample.update for request, _ in taken for sample in request.metrics] == [1, 2, 3, 4, 5]
    assert [checkpoint.update for _, checkpoint in taken if checkpoint] == [1, 2]
    assert [request.HasField("outcome") for request, _ in taken] == [False, False, True]
    assert [request.progress.update for request, _ in taken if request.HasField("progress")] == [5]
    assert taken[0][0].effective_trainer == {"learning_rate": Value(real=0.1)}
    assert not outbox.take(ATTEMPT, 9)[0].effective_trainer


def test_a_flood_of_output_is_cut_into_lines_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_reporter, "MAX_LOG_CHARACTERS", 10)
    monkeypatch.setattr(training_reporter, "MAX_WAITING_LOG_CHARACTERS", 30)
    outbox = Outbox()
    for _ in range(100):
        outbox.add_log("line\n")

    logs = [request.log for request, _ in take_all(outbox)]

    assert all(len(log) <= 10 for log in logs)
    assert "".join(logs) == "line\n" * 6 + "... more was printed than could be reported ...\n"


def test_whole_lines_are_captured_and_still_printed(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="x")  # whatever libraries that were imported before have switched off
    lines: list[str] = []
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    try:
        with captured(lines.append):
            print("one ", end="")
            assert lines == []
            print("line")
            logging.getLogger("x").warning("a warning")
            print("no newline", end="", file=sys.stderr)
    finally:
        logging.getLogger().removeHandler(handler)

    assert lines == ["one line\n", "a warning\n", "no newline\n"]
    assert capsys.readouterr() == ("one line\n", "a warning\nno newline")


@pytest.mark.parametrize(
    ("error", "reason", "subject"),
    [
        (PolicyError("class_path", "not a class"), "POLICY_INVALID", "class_path"),
        (MissionError("cogs", "too many"), "MISSION_INVALID", "cogs"),
        (WeightsError("cut off"), "WEIGHTS_INVALID", ""),
        (DataLoss("broken"), "ARTIFACT_LOST", ""),
        (OSError(errno.ENOSPC, "No space left on device"), "DISK_FULL", ""),
        (torch.OutOfMemoryError("CUDA out of memory"), "OUT_OF_MEMORY", ""),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "OUT_OF_MEMORY", ""),
        (RuntimeError("shapes do not match"), "CRASHED", ""),
    ],
)
def test_failures_have_a_reason_and_a_sentence(error: Exception, reason: str, subject: str) -> None:
    failure = failure_of(error)
    assert (failure.reason, failure.subject) == (reason, subject)
    assert str(error).split()[-1] in failure.message


def test_the_runner_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("DAF_TOKEN", raising=False)
    assert runner.main(["fly"]) == runner.USAGE_ERROR
    assert runner.main(["train"]) == runner.USAGE_ERROR
    assert "DAF_TOKEN" in capsys.readouterr().err
