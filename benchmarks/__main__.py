"""`python -m benchmarks [NAME...]`: runs the named benchmarks, or all."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # it reports every channel that a server closes

BENCHMARKS = {
    "cli": "time and modules of `daf --help`",
    "sweeps": "1,000 whole trials through all services with stand-in compute",
    "comparisons": "how often comparisons are wrong, and what looking early saves, beside the naive ways",
    "scoring": "how often intervals of team scores hold the true value, beside other ways",
    "statistics_scale": "summary and comparison of 100,000 stored episodes beside a plain reading of the same rows",
    "decoding": "one episode with and without the faster observation decoding",
    "evaluation": "episodes per second beside cogames.evaluate",
    "network_evaluation": "episodes of network policies on one core beside cogames' own loop",
    "evaluation_start": "time from a request to the first episode on a warm stack, beside a plain cogames process",
    "sandbox": "episodes of a policy in a sandbox beside those in process",
    "environment_memory": "memory of a training worker by its number of environments",
    "first_step": "time from `daf sweep run` to the first environment step, cold and warm",
    "takeover": "how long nobody leads after the leader of two replicas has ended, was killed or stands still",
    "cluster_start": "time from `daf sweep run` to the first environment step in a pod, beside the embedded stack's",
    "training_overhead": "agent steps per second of one worker beside plain cogames.train",
    "training_scaling": "two workers on two cores beside two independent processes",
    "training_reward": "what two workers learn beside one process in as many agent steps",
}


def main() -> None:
    """Runs benchmarks one after the other."""
    epilog = "\n".join(f"  {name:<18} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; all if none is named")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    print(f"{platform.machine()}, Python {platform.python_version()}\n")
    for name in names:
        print(f"== {name}: {BENCHMARKS[name]}")
        importlib.import_module(f"benchmarks.{name}").main()
        print()


if __name__ == "__main__":
    main()
