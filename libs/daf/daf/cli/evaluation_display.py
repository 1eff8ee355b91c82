"""An evaluation on the screen while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation

_REPORT_SECONDS = 5.0  # between lines about progress where there is no terminal


def show_evaluation(evaluations: Iterator[Evaluation]) -> Evaluation:
    """Shows one line about an evaluation until it has ended; returns how it ended."""
    console = Console(stderr=True)
    evaluation = next(evaluations)
    if console.is_terminal:
        with Live(Text(_line(evaluation)), console=console, transient=True) as display:
            for evaluation in evaluations:
                display.update(Text(_line(evaluation)))
    else:
        print(_line(evaluation), flush=True)
        reported = time.monotonic()
        for evaluation in evaluations:
            if time.monotonic() - reported >= _REPORT_SECONDS:
                reported = time.monotonic()
                print(_line(evaluation), flush=True)
    return evaluation


def evaluation_state(evaluation: Evaluation) -> str:
    """An evaluation's state as one word."""
    return evaluation_pb2.EvaluationState.Name(evaluation.state).removeprefix("EVALUATION_STATE_").lower()


def _line(evaluation: Evaluation) -> str:
    state = evaluation_state(evaluation)
    return f"{evaluation.name} {state}, {evaluation.done_episodes}/{evaluation.total_episodes} episodes"
