"""`daf-runner`: the program of every worker. One verb a process; what to do comes from the service that started it.

Exit codes: 0 the work is done, or is no longer this worker's; 1 it failed, as has been reported; 2 wrong usage; for a
rank of a training job also 75, it lost another rank; where a rank was ended by a signal, 128 and its number.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from types import FrameType

REQUIRED = {
    "train": ("DAF_WORKER_ADDRESS", "DAF_TRAINING_JOB", "DAF_ATTEMPT", "DAF_TOKEN", "DAF_CACHE"),
    "evaluate": ("DAF_WORKER_ADDRESS", "DAF_EVALUATION", "DAF_TOKEN", "DAF_CACHE"),
}
"""What the environment of each verb has to say."""

USAGE_ERROR = 2


def main(argv: list[str] | None = None) -> int:
    """Runs one verb to its end; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1 or arguments[0] not in REQUIRED:
        print(f"usage: daf-runner {'|'.join(REQUIRED)}", file=sys.stderr)
        return USAGE_ERROR
    if missing := [name for name in REQUIRED[arguments[0]] if not os.environ.get(name)]:
        print(f"daf-runner {arguments[0]}: the environment lacks {', '.join(missing)}", file=sys.stderr)
        return USAGE_ERROR
    logging.basicConfig(
        level=os.environ.get("DAF_LOG_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs URLs, which are secrets here
    # CoGames' own missions cause these, on every build, and nobody can do anything about them.
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)
    # Imported here, since each verb costs seconds of imports that the other does not need.
    if arguments[0] == "train":
        from daf_cogames.training.launcher import launch

        return launch(_train)
    from daf_cogames.evaluation.mother import Mother

    with Mother.start() as mother:
        # What it imports starts threads: after the fork.
        from daf_cogames.evaluation.worker import run as evaluate

        return evaluate(os.environ, _terminating(), mother)


def _train() -> int:
    """One rank of a training job. What it imports starts threads: after the fork."""
    from daf_cogames.training.worker import run as train

    return train(os.environ, _terminating())


def _terminating() -> threading.Event:
    """Set when the process is asked to end: workers then finish what they are at."""
    event = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        event.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return event


if __name__ == "__main__":
    sys.exit(main())
