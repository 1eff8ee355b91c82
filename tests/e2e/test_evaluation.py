"""Evaluations as a user runs them: real episodes of teams, and their replays."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from tests.daf_command import Daf

pytestmark = pytest.mark.timeout(1800)

ARENA = ["-m", "cogsguard_arena.basic", "--cogs", "3", "--steps", "15", "--episodes", "2"]


def test_teams_are_played_and_their_replays_brought_here(daf: Daf, tmp_path: Path) -> None:
    policies, directory = ["-p", "starter", "-p", "noop"], tmp_path / "replays"

    first = daf.json("evaluate", *policies, *ARENA, "--team", "pickup", "--replays", str(directory), "--name", "one")
    plain = daf.json("evaluate", *policies, *ARENA, "--team", "pickup", "--workers", "1")

    assert first["evaluation"]["digest"] == plain["evaluation"]["digest"]
    assert first["summary"]["policies"][0]["latency"]["steps"] == str(2 * 15 * (3 + 2 + 1))
    files = sorted(directory.iterdir())
    assert [path.name for path in files] == [
        f"cogsguard_arena.basic-{scenario}-{index}.json.z" for scenario in range(4) for index in range(2)
    ]
    assert first["replays"] == [str(path) for path in files]
    replay = json.loads(zlib.decompress(files[0].read_bytes()))
    assert (replay["num_agents"], replay["max_steps"]) == (3, 15)

    contents, times = {path: path.read_bytes() for path in files}, {path: path.stat().st_mtime_ns for path in files}
    files[1].unlink()
    files[2].write_bytes(b"the half of it")
    daf("results", "replays", "one", str(directory))
    assert {path: path.read_bytes() for path in directory.iterdir()} == contents
    assert {path for path in files if path.stat().st_mtime_ns == times[path]} == {*files} - {*files[1:3]}

    daf("results", "export", "one", "--jsonl", str(tmp_path / "one.jsonl"))
    named = {json.loads(line)["replay"] for line in (tmp_path / "one.jsonl").read_text().splitlines()}
    assert named == {path.name for path in (daf.home / "artifacts" / "evaluation").glob("*/*")}
