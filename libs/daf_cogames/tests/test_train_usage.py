import multiprocessing
import time

import torch

from daf_cogames.training.usage import UsageMeter

CPU = torch.device("cpu")


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_processor_time_and_the_steps_since_the_reading_before_are_counted():
    begin, used_before = time.monotonic(), time.process_time()
    meter = UsageMeter(rank=3, device=CPU)
    start = time.monotonic()
    burn(0.3)

    shortest = time.monotonic() - start
    first = meter.read(agent_steps=1000)
    longest, used = time.monotonic() - begin, time.process_time() - used_before
    second = meter.read(agent_steps=0)

    assert first.rank == 3
    assert 1000 / longest <= first.agent_steps_per_second <= 1000 / shortest
    unit = 0.02  # in which the system counts
    assert (0.3 - unit) / longest <= first.cpu_cores <= (used + unit) / shortest
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
