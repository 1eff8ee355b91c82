import multiprocessing
import time

import pytest
import torch

from daf_cogames.training.usage import UsageMeter

CPU = torch.device("cpu")


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_processor_time_and_the_steps_since_the_reading_before_are_counted():
    meter = UsageMeter(rank=3, device=CPU)
    start = time.monotonic()
    burn(0.3)

    first = meter.read(agent_steps=1000)
    seconds = time.monotonic() - start
    second = meter.read(agent_steps=0)

    assert first.rank == 3
    assert first.agent_steps_per_second == pytest.approx(1000 / seconds, rel=0.2)
    assert first.cpu_cores == pytest.approx(0.3 / seconds, rel=0.2)
    assert second.agent_steps_per_second == 0


def test_the_memory_of_the_environments_processes_is_counted():
    meter = UsageMeter(rank=0, device=CPU)
    alone = meter.read(0).memory_bytes
    process = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(60,))
    process.start()
    try:
        together = meter.read(0).memory_bytes
    finally:
        process.kill()
        process.join()

    assert together - alone > 5_000_000
    assert meter.read(0).memory_bytes < together


def test_without_a_gpu_nothing_is_said_of_one():
    usage = UsageMeter(rank=0, device=CPU).read(0)

    assert (usage.gpu_utilization, usage.gpu_memory_bytes) == (None, None)
