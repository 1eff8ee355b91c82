"""How long `daf --help` takes and how much it imports, beside the same for an empty Python and for `cogames --help`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

TARGET_SECONDS = 0.25
_BINARIES = Path(sys.executable).parent


def wall_seconds(command: list[str], runs: int) -> list[float]:
    """Wall time of whole processes, the first one (cold caches) left out."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return times[1:]


def imported_modules() -> int:
    """How many modules are loaded once `daf --help` has been printed."""
    code = (
        "import contextlib, sys\n"
        "sys.argv = ['daf', '--help']\n"
        "from daf.cli.main import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "print(len(sys.modules), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(result.stderr)


def main() -> None:
    """Prints the figures."""
    commands = {
        "python -c pass": ([sys.executable, "-c", "pass"], 10),
        "daf --help": ([str(_BINARIES / "daf"), "--help"], 10),
        "cogames --help": ([str(_BINARIES / "cogames"), "--help"], 2),
    }
    for name, (command, runs) in commands.items():
        times = wall_seconds(command, runs)
        print(f"{name:<16} median {statistics.median(times):.3f} s, range {min(times):.3f} to {max(times):.3f}")
    print(f"target           daf --help under {TARGET_SECONDS} s")
    print(f"modules imported {imported_modules()}")


if __name__ == "__main__":
    main()
