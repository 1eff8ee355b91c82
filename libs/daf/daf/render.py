"""Sweeps as people read them: tables while they run and when they have ended."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from daf.follow import SweepView
from daf.results import ScoreResult, SweepResult, SweepTrialResult
from daf.tables import print_table, table
from daf_common.values import Scalar, scalars
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.scheduler.v1.sweep_pb2 import Trial
from daf_protos.training.v1.training_job_pb2 import TrainingJob

_STYLES = {
    "succeeded": "green",
    "failed": "red",
    "infeasible": "red",
    "cancelled": "yellow",
    "pruned": "yellow",
    "training": "cyan",
    "evaluating": "blue",
    "finalizing": "blue",
    "running": "cyan",
}
_MAX_FINAL_ROWS = 50
_MAX_FAILURES = 3
_SCORES = "mean and 95 % interval"
_LIVE_ORDER = (
    sweep_pb2.TRIAL_STATE_TRAINING,
    sweep_pb2.TRIAL_STATE_EVALUATING,
    sweep_pb2.TRIAL_STATE_PAUSED,
)


def number(value: float | None, digits: int = 4) -> str:
    """A number with its significant digits, or a dash."""
    if value is None:
        return "-"
    if isinstance(value, int) or value == 0:
        return str(value) if isinstance(value, int) else "0"
    return f"{value:.{digits}g}"


def speed(value: float | None) -> str:
    """Steps per second, or a dash: whole numbers with separators, but for slow runs."""
    return f"{value:,.0f}" if value is not None and value >= 100 else number(value, 3)


def size(count: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def scalar_text(value: Scalar) -> str:
    """A parameter's value as YAML has it."""
    return (
        str(value).lower() if isinstance(value, bool) else number(value, 6) if isinstance(value, float) else str(value)
    )


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Names without their places, where that leaves them different."""
    known = sorted(set(names))
    last = [name.rpartition(".")[2] for name in known]
    return {name: short if last.count(short) == 1 else name for name, short in zip(known, last, strict=True)}


def state_text(state: str) -> Text:
    """A state in its colour."""
    return Text(state, style=_STYLES.get(state, ""))


def trial_state(trial: Trial) -> str:
    """A trial's state as one word."""
    return sweep_pb2.TrialState.Name(trial.state).removeprefix("TRIAL_STATE_").lower()


def sweep_state(view: SweepView) -> str:
    """A sweep's state as one word."""
    return sweep_pb2.SweepState.Name(view.sweep.state).removeprefix("SWEEP_STATE_").lower()


def headline(view: SweepView) -> Text:
    """One line about a sweep: its state, its trials by state, its age, and whose it is where that is known."""
    counts = view.sweep.trials
    parts = [f"{counts.succeeded} of {view.sweep.planned_trials} trials done"]
    parts += [f"{count} {name}" for name, count in (("running", counts.running), ("failed", counts.failed)) if count]
    if view.sweep.cancel_requested and not view.ended:
        parts.append("being cancelled")
    if view.sweep.HasField("create_time"):
        end = view.sweep.end_time.seconds if view.sweep.HasField("end_time") else time.time()
        parts.append(duration(max(0.0, end - view.sweep.create_time.seconds)))
    if view.sweep.creator:
        parts.append(f"by {view.sweep.creator}")
    line = Text.assemble((view.sweep.name, "bold"), "  ", state_text(sweep_state(view)), "  ", ", ".join(parts))
    return line.append(f"  ({view.trouble})", style="yellow") if view.trouble else line


def live(view: SweepView, height: int) -> RenderableType:
    """A sweep that runs: the headline and the trials, running ones first, as many as a terminal holds."""
    room = max(3, height - 6 - _MAX_FAILURES)
    trials = sorted(view.trials.values(), key=lambda trial: (_urgency(trial), -trial.number))
    shown = sorted(trials[:room], key=lambda trial: trial.number)
    names = short_names(name for trial in shown for name in trial.parameters)
    rows = table("#", "state", *names.values(), "done", "steps/s", Column("training reward"), "score")
    for trial in shown:
        parameters = scalars(trial.parameters)
        job = view.jobs.get(trial.training_job)
        state = trial_state(trial)
        best = " *" if trial.name == view.sweep.best_trial else ""
        rows.add_row(
            f"{trial.number}{best}",
            state_text(state),
            *(scalar_text(parameters[name]) if name in parameters else "-" for name in names),
            progress(view, trial).partition(" ")[0],
            speed(job.progress.steps_per_second) if job and state == "training" else "",
            number(job.progress.reward, 3) if job and job.progress.HasField("reward") else "",
            number(trial.score.mean) if trial.HasField("score") else "",
        )
    hidden = len(trials) - len(shown)
    lines: list[RenderableType] = [headline(view), rows]
    if hidden:
        lines.append(Text(f"and {hidden} more trials", style="dim"))
    lines += _failures((str(trial.number), trial.failure.message) for trial in trials)
    if sweep_state(view) == "finalizing":
        lines.append(Text("scoring the best trial and the baselines on the held-out episodes", style="blue"))
    return Group(*lines)


def progress(view: SweepView, trial: Trial) -> str:
    """How far a trial's present step is: a share of its agent steps, or its episodes."""
    match trial_state(trial):
        case "training":
            job = view.jobs.get(trial.training_job)
            return training_progress(job) if job else "starting"
        case "evaluating":
            evaluation = view.evaluations.get(trial.evaluation)
            return f"{evaluation.done_episodes}/{evaluation.total_episodes} episodes" if evaluation else ""
    return ""


def training_progress(job: TrainingJob) -> str:
    """How far a training job is."""
    done, total = job.progress.agent_steps, job.progress.total_agent_steps or job.spec.agent_steps
    return f"{min(done / total, 1):.0%} of {total:,} steps" if done and total else "starting"


def duration(seconds: float) -> str:
    """A time span in the unit that suits it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def plus_minus(score: ScoreResult) -> str:
    """A mean with its standard error."""
    error = "" if score.standard_error is None else f" ± {number(score.standard_error, 2)}"
    return f"{number(score.mean)}{error}"


def interval(score: ScoreResult) -> str:
    """The 95 % interval of a mean."""
    if score.interval_low is None or score.interval_high is None:
        return "-"
    return f"[{number(score.interval_low)}, {number(score.interval_high)}]"


def mean_interval(score: ScoreResult) -> str:
    """A mean with its 95 % interval."""
    return number(score.mean) + (f" {interval(score)}" if score.interval_low is not None else "")


def print_result(result: SweepResult, console: Console | None = None) -> None:
    """Prints what a sweep came to: trials, best configuration, and the scores on the held-out episodes."""
    console = console or Console()
    ranked = result.top_trials(len(result.trials))
    ranks = {id(trial) for trial in ranked}
    trials = [*ranked, *(trial for trial in result.trials if id(trial) not in ranks)]
    console.print(Text(f"Trials of {result.name}, best first ({_SCORES})", style="italic"))
    print_table(_final_trials(result, trials[:_MAX_FINAL_ROWS]), console)
    if len(trials) > _MAX_FINAL_ROWS:
        console.print(Text(f"and {len(trials) - _MAX_FINAL_ROWS} more trials", style="dim"))
    for line in _failures((_trial_number(trial), trial.message) for trial in result.trials):
        console.print(line, soft_wrap=True)
    best = result.get_best_trial()
    if best is None:
        console.print(Text(f"No trial has a score{': ' if result.message else '.'}{result.message}", style="red"))
        return
    console.print()
    console.print(Text(f"Best configuration ({best.trial_id})", style="bold"))
    for name, value in best.hyperparameters.items():
        console.print(Text(f"  {name}: {scalar_text(value)}"))
    if result.held_out is not None:
        console.print()
        console.print(Text(f"On held-out episodes ({_SCORES})", style="italic"))
        print_table(_held_out_table(result, result.held_out), console)


def print_where(result: SweepResult, mission: str, console: Console) -> None:
    """Prints how to get at all of it again, and how to let the best play the mission that these options name."""
    identifier = result.name.partition("/")[2]
    rows = [("everything about the sweep", f"daf sweep get {identifier} --json")]
    if best := result.get_best_trial():
        rows.append(("what the best trial printed", f"daf logs {best.trial_id}"))
        if best.checkpoint:
            rows.append(("its weights", best.checkpoint))
        rows.append(("play it again", f"daf evaluate -p {best.trial_id} {mission}"))
    console.print()
    console.print(Text("Where the results are", style="bold"))
    width = max(len(what) for what, _ in rows)
    for what, how in rows:
        console.print(Text(f"  {what:<{width}}  {how}"), soft_wrap=True)


def _final_trials(result: SweepResult, trials: Iterable[SweepTrialResult]) -> Table:
    trials = list(trials)
    names = short_names(name for trial in trials for name in trial.hyperparameters)
    rows = table("trial", "state", *names.values(), result.objective_metric, "episodes")
    for trial in trials:
        values = (scalar_text(trial.hyperparameters[n]) if n in trial.hyperparameters else "-" for n in names)
        score = mean_interval(trial.score) if trial.score else number(trial.primary_metric)
        episodes = str(trial.score.episodes) if trial.score else ""
        rows.add_row(_trial_number(trial), state_text(trial.state), *values, score, episodes)
    return rows


def _held_out_table(result: SweepResult, held_out: ScoreResult) -> Table:
    rows = table("policy", result.objective_metric, "episodes", "best minus it")
    rows.add_row("best trial", mean_interval(held_out), str(held_out.episodes), "", style="bold")
    for baseline in result.baselines:
        score = baseline.score
        rows.add_row(baseline.label, mean_interval(score), str(score.episodes), mean_interval(baseline.difference))
    return rows


def _failures(trials: Iterable[tuple[str, str]]) -> list[Text]:
    """One line for each reason why trials failed.

    Args:
        trials: number and message of each, without a message if it did not fail.
    """
    failed: dict[str, list[str]] = {}
    for trial, message in trials:
        if message:
            failed.setdefault(message, []).append(trial)
    lines = [
        Text(
            f"trial{'s' if len(of) > 1 else ''} {', '.join(of[:10])}{', ...' if of[10:] else ''}: {message}",
            style="red",
        )
        for message, of in failed.items()
    ]
    return lines[:_MAX_FAILURES]


def _trial_number(trial: SweepTrialResult) -> str:
    return trial.trial_id.rpartition("/")[2]


def _urgency(trial: Trial) -> int:
    return _LIVE_ORDER.index(trial.state) if trial.state in _LIVE_ORDER else len(_LIVE_ORDER)
