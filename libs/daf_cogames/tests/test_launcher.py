"""The launcher: ranks find each other, and the end of one is the end of all. Each case is a process of its own, since
what forks must not have threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

PROGRAM = """
import datetime, os, signal, sys, time
import torch, torch.distributed as dist
from daf_cogames.training.launcher import launch

def rank_main():
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=150))
    number = torch.tensor([dist.get_rank() + 1.0])
    dist.all_reduce(number)
    print(f"rank {dist.get_rank()} of {dist.get_world_size()}: {number.item():g}", flush=True)
    return CASE(dist.get_rank())

def well(rank): return 0

def code(rank):
    if rank == 1: return 7
    time.sleep(1000)

def killed(rank):
    if rank == 1: os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1000)

def waits(rank):
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    print("waiting", flush=True)
    while not ended: time.sleep(0.01)
    time.sleep(0.5)
    print(f"rank {rank} saved", flush=True)
    return 0

CASE = globals()[sys.argv[1]]
sys.exit(launch(rank_main))
"""


def start(case: str, directory: Path, ranks: int = 2) -> subprocess.Popen[str]:
    environment = {**os.environ, "PET_NPROC_PER_NODE": str(ranks), "PET_NNODES": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, case]
    return subprocess.Popen(
        command, env=environment, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(case: str, directory: Path) -> tuple[int, str]:
    process = start(case, directory)
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


def test_jobs_of_one_machine_at_once_do_not_meet_in_each_others_rendezvous(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda _: run("well", tmp_path), range(2)))

    for code, output in results:
        assert code == 0, output
        assert "rank 0 of 2: 3" in output
        assert "rank 1 of 2: 3" in output


@pytest.mark.parametrize(("case", "code", "said"), [("code", 7, "exit code 7"), ("killed", 128 + 9, "SIGKILL")])
def test_the_end_of_one_rank_ends_the_other_and_is_named(case: str, code: int, said: str, tmp_path: Path) -> None:
    ended, output = run(case, tmp_path)

    assert (ended, said in output) == (code, True), output
    assert "rank 1" in output  # and not after the other's sleep, which is longer than `run` waits


def test_requests_to_end_reach_every_rank_and_are_waited_for(tmp_path: Path) -> None:
    process = start("waits", tmp_path)
    assert process.stdout is not None
    lines = []
    while sum("waiting" in line for line in lines) < 2:
        lines.append(process.stdout.readline())
        assert lines[-1], lines
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=200)

    assert "rank 0 saved" in output
    assert "rank 1 saved" in output
    assert process.returncode == 0
