"""Training curves, from a real statistics service to a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from daf.client import Client
from daf.visualization import daf_plot_training_curves
from daf_common.errors import InvalidArgument, NotFound
from daf_protos.statistics.v1 import statistics_service_pb2 as pb
from daf_protos.training.v1.training_job_pb2 import TrainingJob

REWARD = "env/reward_per_agent"
STARTING_SECONDS = 60


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A service with the series of two jobs."""
    directory = tmp_path_factory.mktemp("statistics")
    address = f"unix:{directory}/s.sock"
    process = subprocess.Popen(
        [sys.executable, "-m", "daf_statistics.main"],
        env={**os.environ, "DAF_HOME": str(directory), "DAF_LISTEN": address},
        stderr=subprocess.DEVNULL,
    )
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=STARTING_SECONDS)
    with Client(address) as client:
        for job, slope in (("first", 1.0), ("second", -1.0)):
            points = [
                pb.MetricPoint(step=step, agent_steps=step * 100, values={REWARD: slope * step, "learning_rate": 0.1})
                for step in range(30)
            ]
            client.statistics.RecordMetrics(pb.RecordMetricsRequest(source=f"trainingJobs/{job}", points=points))
        yield client
    process.terminate()
    process.wait()


@pytest.fixture
def in_use(statistics: Client, daf: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """That service as the one that commands talk to."""
    monkeypatch.setenv("DAF_ADDRESS", statistics.address)


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    "source",
    ["first", "job/first", "trainingJobs/first", TrainingJob(name="trainingJobs/first"), ["first", "second"]],
)
def test_curves_are_written_under_the_name_of_the_job(statistics: Client, tmp_path: Path, source: object) -> None:
    path = daf_plot_training_curves(source, tmp_path / "plots", client=statistics)

    assert path == tmp_path / "plots" / "first.png"
    assert is_png(path)


def test_the_directory_of_a_checkpoint_stands_for_its_job(statistics: Client, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text(json.dumps({"training_job": "trainingJobs/second"}))

    path = daf_plot_training_curves(str(tmp_path), tmp_path, client=statistics)

    assert (path.name, is_png(path)) == ("second.png", True)


def test_what_cannot_be_drawn_is_said_and_nothing_is_written(statistics: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="is not the directory of a checkpoint"):
        daf_plot_training_curves(tmp_path, client=statistics)
    with pytest.raises(NotFound, match="trainingJobs/third"):
        daf_plot_training_curves("third", tmp_path, client=statistics)
    with pytest.raises(InvalidArgument, match="known are: env/reward_per_agent, learning_rate"):
        daf_plot_training_curves("first", tmp_path, metrics=["lerning_rate"], client=statistics)
    with pytest.raises(InvalidArgument, match="names no job"):
        daf_plot_training_curves([], tmp_path, client=statistics)

    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_picture_and_says_how_large_it_is(
    daf: Callable[..., Any], in_use: None, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "curve.png"

    outcome = daf("job", "plot", "first", "job/second", "--metric", REWARD, "--output", str(output), "--json")

    assert outcome.code == 0
    assert is_png(output)
    document = outcome.json()
    assert document["output"] == str(output)
    assert document["width"] > document["height"] > 400


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["third"], 4, "no metrics of trainingJobs/third are recorded"),
        (["first", "--metric", "x"], 2, f"known are: {REWARD}"),
        (["first", "--output", "curve.pdf"], 2, "does not end in .png"),
        (["FIRST JOB"], 2, "is not a resource name"),
    ],
)
def test_a_wrong_plot_command_says_what_is_wrong(
    daf: Callable[..., Any], in_use: None, arguments: list[str], code: int, said: str
) -> None:
    outcome = daf("job", "plot", *arguments)

    assert outcome.code == code
    assert said in outcome.err
