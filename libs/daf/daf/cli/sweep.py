"""`daf sweep`: hyperparameter sweeps."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daf.cli.job_display import mission_options
from daf.cli.session import JsonFlag, notice, open_client, print_json, print_json_line, resource_name
from daf.cli.sweep_display import show
from daf.client import Client, all_pages
from daf.config import DAFSweepConfig
from daf.convert import sweep_config
from daf.follow import ENDED, SweepView, follow_sweep, read_sweep, watch_sweep
from daf.render import headline, number, print_result, print_where, state_text
from daf.results import sweep_result
from daf.sweeps import create_sweep
from daf.tables import print_table, table
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.scheduler.v1.scheduler_service_pb2 import (
    CancelSweepRequest,
    GetSweepRequest,
    ListSweepsRequest,
    WatchSweepsResponse,
)
from daf_protos.scheduler.v1.sweep_pb2 import Sweep

app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, add_completion=False, help="Search over hyperparameters."
)

Name = Annotated[str, typer.Argument(help="The sweep, by its id or its name sweeps/ID.")]


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="The sweep, as YAML or JSON.")],
    name: Annotated[
        str, typer.Option(help="Id of the sweep: a-z, 0-9 and -. One is made from its name otherwise.")
    ] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as it is started.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and start nothing.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the results to this JSON file at the end.")] = None,
    json: JsonFlag = False,
) -> None:
    """Start a sweep and follow it to its end."""
    config = DAFSweepConfig.from_yaml(file)
    with open_client() as client:
        sweep = create_sweep(client, config, name, validate_only=dry_run)
        if dry_run:
            _dry_run(sweep, json)
        elif detach:
            _detached(sweep, json)
        else:
            _finish(_follow(client, sweep.name, quiet=json), json, output)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest.")] = 20,
    json: JsonFlag = False,
) -> None:
    """List sweeps, newest first."""

    def read(token: str) -> tuple[list[Sweep], str]:
        answer = client.scheduler.ListSweeps(ListSweepsRequest(page_token=token, page_size=min(limit, 100)))
        return list(answer.sweeps), answer.next_page_token

    with open_client() as client:
        sweeps = list(itertools.islice(all_pages(read), limit))
    if json:
        print_json({"sweeps": sweeps})
        return
    if not sweeps:
        print("There are no sweeps yet: start one with `daf sweep run FILE`.")
        return
    rows = table("sweep", "state", "trials", "failed", "created (UTC)")
    for sweep in sweeps:
        state = sweep_pb2.SweepState.Name(sweep.state).removeprefix("SWEEP_STATE_").lower()
        done = f"{sweep.trials.succeeded}/{sweep.planned_trials}"
        created = sweep.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
        rows.add_row(sweep.name.partition("/")[2], state_text(state), done, number(sweep.trials.failed), created)
    print_table(rows)


@app.command()
def get(
    name: Name,
    yaml: Annotated[bool, typer.Option("--yaml", help="Print the document that starts it again.")] = False,
    json: JsonFlag = False,
) -> None:
    """Show a sweep with its trials and results."""
    with open_client() as client:
        view = read_sweep(client, resource_name("sweeps", name))
    if yaml:
        config = sweep_config(view.sweep.spec, view.sweep.name.partition("/")[2])
        print(config.yaml_text(), end="")
    elif json:
        _print_view(view)
    else:
        console = Console()
        console.print(headline(view))
        if view.sweep.failure.message:
            console.print(f"{view.sweep.failure.reason}: {view.sweep.failure.message}", style="red", markup=False)
        _print_summary(view, console)


@app.command()
def watch(name: Name, json: JsonFlag = False) -> None:
    """Follow a sweep to its end."""
    full = resource_name("sweeps", name)
    with open_client() as client:
        client.scheduler.GetSweep(GetSweepRequest(name=full))  # one that is not there is an error, not a long wait
        if not json:
            _finish(_follow(client, full, quiet=False), json, None)
            return
        try:
            for change in watch_sweep(client, full):
                if isinstance(change, WatchSweepsResponse):
                    print_json_line(change)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


@app.command()
def cancel(name: Name, json: JsonFlag = False) -> None:
    """Ask a sweep to stop, with its trials."""
    full = resource_name("sweeps", name)
    with open_client() as client:
        sweep = client.scheduler.CancelSweep(CancelSweepRequest(name=full)).sweep
    if json:
        print_json({"sweep": sweep})
    else:
        state = sweep_pb2.SweepState.Name(sweep.state).removeprefix("SWEEP_STATE_").lower()
        print(f"{full} has ended already: {state}" if sweep.state in ENDED else f"{full} is being cancelled")


def _follow(client: Client, name: str, quiet: bool) -> SweepView:
    """Shows a sweep until it has ended; Ctrl-C leaves it running."""
    try:
        if quiet:
            *_, view = follow_sweep(client, name)
            return view
        return show(follow_sweep(client, name))
    except KeyboardInterrupt:
        identifier = name.partition("/")[2]
        notice(f"{name} goes on: `daf sweep watch {identifier}` follows it, `daf sweep cancel {identifier}` stops it")
        raise typer.Exit(130) from None


def _finish(view: SweepView, json: bool, output: Path | None) -> None:
    result = sweep_result(view)
    if output is not None:
        result.save_json(output)
    if json:
        _print_view(view)
    else:
        console = Console()
        console.print()
        _print_summary(view, console)
        if output is not None:
            console.print(f"  everything as JSON           {output}", markup=False, soft_wrap=True)
    if view.sweep.state != sweep_pb2.SWEEP_STATE_SUCCEEDED:
        reason = view.sweep.failure.message
        notice(f"{result.name} {result.state}{': ' if reason else ''}{reason}")
        raise typer.Exit(1)


def _print_summary(view: SweepView, console: Console) -> None:
    result = sweep_result(view)
    print_result(result, console)
    print_where(result, mission_options(view.sweep.spec.training.missions[0]), console)


def _print_view(view: SweepView) -> None:
    print_json({"sweep": view.sweep, "trials": [trial for _, trial in sorted(view.trials.items())]})


def _dry_run(sweep: Sweep, json: bool) -> None:
    if json:
        print_json({"sweep": sweep})
    else:
        print(f"This sweep can be started: at most {sweep.planned_trials} trials.")


def _detached(sweep: Sweep, json: bool) -> None:
    if json:
        print_json({"sweep": sweep})
    else:
        print(f"Started {sweep.name}: `daf sweep watch {sweep.name.partition('/')[2]}` follows it.")
