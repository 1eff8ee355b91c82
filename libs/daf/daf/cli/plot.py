"""`daf job plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daf.cli.session import JsonFlag, open_client, print_json, resource_name
from daf.visualization import write_plot
from daf_common.errors import InvalidArgument


def plot(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="The jobs, by id or name trainingJobs/ID; each is a line.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write, a PNG.")] = Path("curve.png"),
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Metric to draw, for example env/reward_per_agent; may be repeated."),
    ] = None,
    title: Annotated[str, typer.Option(help="Title; otherwise the name of the job.")] = "",
    json: JsonFlag = False,
) -> None:
    """Draw training curves: reward, losses, learning rate and speed, or the metrics that you name."""
    if output.suffix.lower() != ".png":
        raise InvalidArgument.field("--output", f"{output} does not end in .png, and a PNG is what is written")
    jobs = [resource_name("trainingJobs", name) for name in names]
    with open_client() as client:
        width, height = write_plot(client, jobs, output, metric or (), title)
    if json:
        print_json({"output": str(output), "width": width, "height": height})
    else:
        print(f"Wrote {output}: {width} x {height} pixels.")
