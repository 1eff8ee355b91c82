"""Pictures of training curves: drawn by the service from what it recorded, decoded, and looked at pixel by pixel."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest

from daf_cogames.catalog import resolve_policy
from daf_cogames.missions import Mission
from daf_cogames.policies import PolicySource
from daf_common.channel import raising
from daf_common.errors import InvalidArgument, NotFound
from daf_protos.statistics.v1 import statistics_service_pb2 as pb
from daf_statistics.curves import REWARD, curve, default_metrics, smoothed, with_unit
from daf_statistics.metrics import Point
from daf_statistics.plot import COLORS, draw

if TYPE_CHECKING:
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For tests of what is the same on every database."""

FIRST, SECOND = "trainingJobs/first", "trainingJobs/second"
MAX_BYTES = 4 << 20


async def record(stub: StatisticsServiceAsyncStub, source: str, metric: str, values: list[float]) -> None:
    points = [
        pb.MetricPoint(step=step, agent_steps=step * 1000, values={metric: value})
        for step, value in enumerate(values, 1)
    ]
    await raising(stub.RecordMetrics(pb.RecordMetricsRequest(source=source, points=points)))


async def plot(stub: StatisticsServiceAsyncStub, *sources: str, **fields: object) -> np.ndarray:
    """The picture as an array of rows, columns and red, green, blue from 0 to 1."""
    answer = await raising(stub.PlotMetrics(pb.PlotMetricsRequest(sources=sources, **fields)))
    assert len(answer.png) <= MAX_BYTES
    return decoded(answer.png)


def decoded(png: bytes) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(png), format="png")[:, :, :3]


def pixels_of(picture: np.ndarray, line: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows, from the top, and columns of the pixels in the colour of a line."""
    return np.nonzero((np.abs(picture - matplotlib.colors.to_rgb(COLORS[line])) < 0.02).all(axis=2))


def is_rising(picture: np.ndarray, line: int = 0) -> bool:
    """Whether a line is higher at its right than at its left, and goes over half of the picture's width."""
    rows, columns = pixels_of(picture, line)
    left, right = columns.min(), columns.max()
    assert right - left > picture.shape[1] / 2
    return bool(rows[columns == right].mean() < rows[columns == left].mean())


async def test_a_series_is_drawn_where_its_values_are(stub: StatisticsServiceAsyncStub) -> None:
    await record(stub, FIRST, REWARD, [math.sin(step) * 0.1 + step / 20 for step in range(100)])
    await record(stub, SECOND, REWARD, [math.sin(step) * 0.1 - step / 20 for step in range(100)])

    rising = await plot(stub, FIRST, metrics=[REWARD])
    falling = await plot(stub, SECOND, metrics=[REWARD])

    assert min(rising.shape[:2]) > 600
    assert is_rising(rising)
    assert not is_rising(falling)


@on_sqlite
async def test_every_source_has_a_line_of_its_own(stub: StatisticsServiceAsyncStub) -> None:
    await record(stub, FIRST, REWARD, [step / 20 for step in range(100)])
    await record(stub, SECOND, REWARD, [-step / 20 for step in range(100)])

    both = await plot(stub, FIRST, SECOND, metrics=[REWARD])
    alone = await plot(stub, FIRST, metrics=[REWARD])

    assert is_rising(both, line=0)
    assert not is_rising(both, line=1)
    assert not pixels_of(alone, line=1)[0].size


@on_sqlite
async def test_panels_are_those_of_training_unless_others_are_named(stub: StatisticsServiceAsyncStub) -> None:
    for metric in (REWARD, "losses/value_loss", "env/game/hearts"):
        await record(stub, FIRST, metric, [1.0, 2.0, 3.0])

    default = await plot(stub, FIRST)
    same = await plot(stub, FIRST, metrics=[REWARD, "losses/value_loss"])
    one = await plot(stub, FIRST, metrics=["env/game/hearts"])

    assert np.array_equal(default, same)
    assert one.shape[1] < default.shape[1]


@on_sqlite
async def test_a_source_without_metrics_of_training_shows_all_that_it_has(stub: StatisticsServiceAsyncStub) -> None:
    await record(stub, FIRST, "latency", [step / 20 for step in range(50)])

    assert is_rising(await plot(stub, FIRST))


@on_sqlite
@pytest.mark.parametrize("values", [[1.0], [math.nan], [math.nan] * 50, [0.0] * 50, [1e300, -1e300] * 20, [5.0, 5.0]])
async def test_no_series_is_too_odd_to_be_drawn(stub: StatisticsServiceAsyncStub, values: list[float]) -> None:
    await record(stub, FIRST, "odd $x_1$", values)

    picture = await plot(stub, FIRST, metrics=["odd $x_1$"], title="costs $5, or 10 %: $\\frac{$")

    assert pixels_of(picture, 0)[0].size


@on_sqlite
async def test_what_is_not_recorded_cannot_be_drawn(stub: StatisticsServiceAsyncStub) -> None:
    await record(stub, FIRST, REWARD, [1.0])

    with pytest.raises(NotFound, match="no metrics of trainingJobs/second are recorded"):
        await plot(stub, FIRST, SECOND)
    with pytest.raises(InvalidArgument) as refused:
        await plot(stub, FIRST, metrics=[REWARD, "rewart"])
    assert [violation.field for violation in refused.value.violations] == ["metrics[1]"]
    assert f"known are: {REWARD}" in refused.value.violations[0].message


@on_sqlite
@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.PlotMetricsRequest(), "sources"),
        (pb.PlotMetricsRequest(sources=[FIRST] * 17), "sources"),
        (pb.PlotMetricsRequest(sources=["/etc/passwd"]), "sources[0]"),
        (pb.PlotMetricsRequest(sources=[FIRST], metrics=["a"] * 25), "metrics"),
        (pb.PlotMetricsRequest(sources=[FIRST], metrics=["a\x00"]), "metrics[0]"),
        (pb.PlotMetricsRequest(sources=[FIRST], title="x" * 201), "title"),
    ],
)
async def test_a_wrong_request_for_a_picture_names_its_field(
    stub: StatisticsServiceAsyncStub, request_: pb.PlotMetricsRequest, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await raising(stub.PlotMetrics(request_))

    assert [violation.field for violation in refused.value.violations] == [field]


@on_sqlite
async def test_the_curves_of_a_real_run_are_drawn(stub: StatisticsServiceAsyncStub, tmp_path: Path) -> None:
    from daf_cogames.training.train import TrainingPlan, train

    points: list[pb.MetricPoint] = []
    train(
        TrainingPlan(
            missions=(Mission("cogsguard_arena.basic", cogs=4, max_steps=40),),
            policy=PolicySource(resolve_policy("lstm").name),
            agent_steps=5 * 512,
            num_envs=2,
            seed=1,
            directory=tmp_path,
            progress_interval_s=0,
        ),
        on_progress=lambda progress: points.append(
            pb.MetricPoint(
                step=progress.update,
                agent_steps=progress.agent_steps,
                values={**progress.metrics, "learning_rate": progress.learning_rate},
                non_finite=progress.nonfinite,
            )
        ),
        on_checkpoint=lambda checkpoint: None,
        stop=lambda: None,
    )
    await raising(stub.RecordMetrics(pb.RecordMetricsRequest(source=FIRST, points=points)))

    everything = await plot(stub, FIRST)
    rate = await plot(stub, FIRST, metrics=["learning_rate"])

    assert len(points) == 5
    assert everything.size > 4 * rate.size  # reward, losses and learning rate
    assert not is_rising(rate)


def test_a_picture_gets_smaller_until_it_fits() -> None:
    noise = np.random.default_rng(0).normal(size=500)
    curves = [curve(FIRST, "loss", [Point(step, step, 0, float(value)) for step, value in enumerate(noise)])]

    large, small = (draw(curves, ["loss"], [FIRST], "", max_bytes) for max_bytes in (MAX_BYTES, 60_000))

    assert len(small) <= 60_000 < len(large)
    assert decoded(small).shape[0] < decoded(large).shape[0]


def test_no_two_lines_of_a_picture_look_the_same() -> None:
    many = [f"trainingJobs/j{number}" for number in range(16)]
    curves = [curve(source, "loss", [Point(0, 0, 0, 1.0), Point(1, 1, 0, 1.0)]) for source in many]

    pictures = {
        draw(curves[:1] + curves[number : number + 1], ["loss"], [*many], "", MAX_BYTES) for number in range(16)
    }

    assert len(pictures) == 16


def test_smoothing_keeps_a_straight_line_and_takes_noise_away() -> None:
    x = np.arange(400.0)
    noise = np.random.default_rng(2).normal(size=400)
    inner = slice(50, 350)  # where the window does not reach beyond the ends

    straight, noisy = smoothed(x, 3 * x, 8.0), smoothed(x, 3 * x + noise, 8.0)

    assert np.allclose(straight[inner], 3 * x[inner])
    assert (noisy - straight)[inner].std() < 0.3


def test_smoothing_leaves_a_gap_where_values_are_not_finite() -> None:
    values = np.ones(100)
    values[40:50] = np.nan

    result = smoothed(np.arange(100.0), values, 5.0)

    assert np.array_equal(np.isnan(result), np.isnan(values))
    assert np.allclose(result[~np.isnan(result)], 1.0)


def test_the_learning_rate_and_short_series_are_not_smoothed() -> None:
    points = [Point(step, step * 10, 0, float(step % 2)) for step in range(100)]

    assert curve(FIRST, REWARD, points).is_smoothed
    assert not curve(FIRST, "learning_rate", points).is_smoothed
    assert not curve(FIRST, REWARD, points[:6]).is_smoothed
    assert not curve(FIRST, REWARD, [Point(0, 0, 0, 1.0)] * 50).is_smoothed


def test_a_source_that_counts_no_agent_steps_is_drawn_over_its_steps() -> None:
    drawn = curve(FIRST, "latency", [Point(5, 0, 0, 1.0), Point(9, 0, 0, 1.0)])

    assert (list(drawn.x), drawn.unit) == ([5, 9], "steps")


def test_reward_comes_first_and_counts_have_units() -> None:
    assert default_metrics({"learning_rate", "losses/entropy", REWARD, "x"})[0] == REWARD
    assert [with_unit(number) for number in (0, 950, 2500, 1_500_000, 2e9)] == ["0", "950", "2.5k", "1.5M", "2G"]


def test_the_service_starts_without_matplotlib() -> None:
    program = "import sys, daf_statistics.main; print('matplotlib' in sys.modules)"

    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )
