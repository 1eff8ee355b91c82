"""`python -m tests.replica SERVICE`: one replica of one service, whose compute `DAF_STANDIN_MACHINE` stands in for."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from daf_common.service import Context, Service, run
from daf_common.settings import ServiceSettings
from tests.standin_machine import StandInMachine


def build(name: str, context: Context) -> Sequence[Service]:
    """The service of a name. Only what it needs is imported, as in its image."""
    machine = Path(os.environ["DAF_STANDIN_MACHINE"])
    match name:
        case "statistics":
            import daf_statistics.main

            return [daf_statistics.main.build(context)]
        case "deployment":
            import daf_deployment.main

            return [daf_deployment.main.build(context)]
        case "evaluation":
            import daf_evaluation.main

            return [daf_evaluation.main.build(context, StandInMachine(machine, "evaluate"))]
        case "training":
            import daf_training.main

            return [daf_training.main.build(context, StandInMachine(machine, "train"))]
        case _:
            import daf_scheduler.main

            return [daf_scheduler.main.build(context)]


def main() -> None:
    """Serves until SIGTERM."""
    settings = ServiceSettings()
    Path(settings.listen.removeprefix("unix:")).unlink(missing_ok=True)  # left by one that was killed
    run(settings, lambda context: build(sys.argv[1], context))


if __name__ == "__main__":
    main()
