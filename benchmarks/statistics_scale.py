"""How long the summary and the comparison of very many stored episodes take, beside a plain reading of the same rows.

The episodes have every statistic that is known. Ours are calls of the served
statistics service; the peer reads the same rows with SQLite's own module, parses them, and hands the values to pandas
and scipy: no conditions, no copies, no forfeits, no digest.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from daf_protos.statistics.v1.episode_pb2 import Episode, Statistics

EPISODES = int(os.environ.get("DAF_BENCHMARK_EPISODES", "100000"))
POLICIES = 2
BATCH = 200
COGS = 4
EVALUATION = "evaluations/large"
STATISTIC = "carbon.gained"


def main() -> None:
    """Prints the figures."""
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_measure(Path(directory)))


async def _measure(directory: Path) -> None:
    from daf_common.channel import raising
    from daf_common.server import create_server
    from daf_common.service import Context
    from daf_common.settings import ServiceSettings
    from daf_protos.statistics.v1 import comparison_pb2
    from daf_protos.statistics.v1 import comparison_service_pb2 as comparison_api
    from daf_protos.statistics.v1 import statistics_service_pb2 as api
    from daf_protos.statistics.v1.comparison_service_pb2_grpc import ComparisonServiceStub
    from daf_protos.statistics.v1.metric_pb2 import Metric
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
    from daf_statistics.main import build

    database = directory / "statistics.db"
    settings = ServiceSettings(
        home=directory,
        database_url=f"sqlite:///{database}",
        statistics_address=f"unix:{directory}/statistics.sock",
    )
    context = Context(settings)
    service = build(context)
    server, _ = create_server(settings.statistics_address)
    service.register(server)
    await server.start()
    statistics = StatisticsServiceStub(context.peer("statistics"))
    comparisons = ComparisonServiceStub(context.peer("statistics"))

    start, size = time.perf_counter(), 0
    batch: list[Episode] = []
    for episode in _episodes():
        batch.append(episode)
        size += episode.ByteSize()
        if len(batch) == BATCH:
            await raising(statistics.RecordEpisodes(api.RecordEpisodesRequest(episodes=batch)))
            batch = []
    seconds = time.perf_counter() - start
    print(
        f"{EPISODES:,} episodes of {size / EPISODES / 1000:.1f} kB recorded in {seconds:.0f} s, "
        f"{1e6 * seconds / EPISODES:.0f} us each"
    )

    def summary(metric: str) -> Callable[[], Awaitable[Any]]:
        request = api.SummarizeEvaluationRequest(evaluation=EVALUATION, metric=Metric(name=metric))
        return lambda: raising(statistics.SummarizeEvaluation(request, timeout=600))

    def comparison(metric: str) -> Callable[[], Awaitable[Any]]:
        request = comparison_api.ComparePoliciesRequest(
            design=comparison_pb2.ComparisonDesign(metric=metric),
            policies=[
                comparison_pb2.PolicyEpisodes(
                    sources=[comparison_pb2.EpisodeSource(evaluation=EVALUATION, policy=number)]
                )
                for number in range(POLICIES)
            ],
        )
        return lambda: raising(comparisons.ComparePolicies(request, timeout=600))

    async def peer(metric: str) -> Any:
        return await asyncio.to_thread(_peer, database, metric)

    for metric in ("reward", STATISTIC):
        theirs = await _print(f"{metric}: read, parsed, pandas and scipy", lambda metric=metric: peer(metric))
        for what, call in (("SummarizeEvaluation", summary(metric)), ("ComparePolicies", comparison(metric))):
            await _print(f"{metric}: {what}", call, theirs)
    await server.stop(None)
    await service.close()
    await context.close()


def _episodes() -> Iterator[Episode]:
    """Each policy plays alone on the same seeds."""
    played = _with_all_statistics()
    generator = np.random.default_rng(1)
    each = EPISODES // POLICIES
    maps = generator.normal(0, 1, each)
    for policy in range(POLICIES):
        rewards = maps[:, None] + generator.normal(policy / 100, 1, (each, COGS))
        for index in range(each):
            episode = Episode()
            episode.CopyFrom(played)
            episode.evaluation, episode.scenario, episode.index, episode.seed = EVALUATION, policy, index, index
            episode.seats[:] = [policy] * COGS
            episode.rewards[:] = rewards[index].tolist()
            for agent, value in zip(episode.agent_statistics, rewards[index].tolist(), strict=True):
                agent.values[STATISTIC] = value
            episode.map_digest = hashlib.sha256(f"map {index}".encode()).hexdigest()
            episode.digest = hashlib.sha256(f"{policy} {index}".encode()).hexdigest()
            yield episode


def _with_all_statistics() -> Episode:
    """An episode with every statistic that the catalogue knows: as large as they get."""
    from daf_cogames.catalog import catalog

    agents = [Statistics(values={name: 10.0 * agent for name in catalog().agent_statistics}) for agent in range(COGS)]
    game = Statistics(values=dict.fromkeys(catalog().game_statistics, 3.0))
    return Episode(
        steps=1000,
        max_steps=1000,
        agent_statistics=agents,
        game_statistics=game,
        average_game_statistics=game,
        mission=json.dumps({"name": "cogsguard_machina_1.basic", "cogs": COGS, "max_steps": 1000}),
        versions={"cogames": "0.18.0", "mettagrid": "0.18.0"},
    )


async def _print(what: str, call: Callable[[], Awaitable[Any]], peer: float | None = None) -> float:
    """The shortest of three, as the first imports what it needs. Returns CPU seconds, which other load changes less."""
    walls, cpus, memory = [], [], 0.0
    for _ in range(3):
        before = _reset_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        await call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        memory = max(memory, _peak() - before)
    beside = "" if peer is None else f", {peer / min(cpus):.1f} times as fast"
    print(f"  {what:<44} {min(walls):6.2f} s, CPU {min(cpus):5.2f} s{beside}, {memory:4.0f} MB more at its peak")
    return min(cpus)


def _reset_peak() -> float:
    """Lets the kernel measure the process's largest memory anew; returns the present one in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1000


def _peer(database: Path, metric: str) -> Any:
    import pandas as pd
    from scipy.stats import ttest_rel

    connection = sqlite3.connect(database)
    rows = []
    for (message,) in connection.execute("SELECT message FROM episodes ORDER BY scenario, episode"):
        episode = Episode.FromString(message)
        seats = episode.rewards if metric == "reward" else [one.values[metric] for one in episode.agent_statistics]
        rows.append((episode.seats[0], episode.seed, sum(seats) / len(seats)))
    connection.close()
    frame = pd.DataFrame(rows, columns=["policy", "seed", "value"])
    summary = frame.groupby("policy")["value"].agg(["mean", "sem"])
    wide = frame.pivot(index="seed", columns="policy", values="value")
    return summary, ttest_rel(wide[0], wide[1])


if __name__ == "__main__":
    main()
