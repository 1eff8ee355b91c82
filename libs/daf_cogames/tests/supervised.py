"""Plays episodes at a supervised table and prints what came of them: a task and its result a line, as JSON.

A program of its own, since the mother of players is to be forked from a process that has not loaded gRPC.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from daf_cogames.evaluation import player_output, supervision
from daf_cogames.evaluation.mother import Mother
from daf_cogames.evaluation.supervision import SupervisedTable
from daf_cogames.evaluation.table import Setting, Unplayable
from daf_cogames.missions import Mission
from daf_cogames.policies import PolicySource
from daf_cogames.seating import EpisodePlan
from daf_protos.statistics.v1.episode_pb2 import Episode

HOSTILE = Path(__file__).parent / "hostile"
MISSION = Mission("cogsguard_arena.basic", cogs=4, max_steps=10)


player_output._JOIN_SECONDS = 30.0  # all that is printed is looked at, however late it is read


def main() -> None:
    with Mother.start() as mother:
        for line in sys.stdin:
            say({"done": play(mother, json.loads(line))})


def play(mother: Mother, task: dict[str, Any]) -> dict[str, Any]:
    policies = [
        PolicySource(code=HOSTILE if "hostile" in policy["class_path"] else None, **policy)
        for policy in task["policies"]
    ]
    mission = Mission("mine", file=Path(task["mission"])) if "mission" in task else MISSION
    supervision.STALL_SECONDS = task.get("stall", supervision.STALL_SECONDS)
    setting = Setting([mission], policies, 60_000, task["limit"])
    plans = [EpisodePlan(index, 100 + index, tuple(task["seats"])) for index in range(task["episodes"])]
    episodes = []
    with SupervisedTable(mother, setting) as table:
        try:
            for episode in table.play_all(0, plans):
                episodes.append(told(episode))
                player = table._player
                say({"episode": episode.index, "player": player and player._pid})
                if task.get("waits"):
                    sys.stdin.readline()
        except Unplayable as error:
            return {"episodes": episodes, "unplayable": [error.failure.reason, error.failure.message]}
    return {"episodes": episodes}


def told(episode: Episode) -> dict[str, Any]:
    return {
        "digest": episode.digest,
        "steps": episode.steps,
        "forfeits": [[forfeit.subject, forfeit.reason, forfeit.message] for forfeit in episode.forfeits],
        "timed": {latency.policy: latency.steps for latency in episode.latencies},
    }


def say(news: dict[str, Any]) -> None:
    os.write(1, f"\nNEWS {json.dumps(news)}\n".encode())


if __name__ == "__main__":
    main()
