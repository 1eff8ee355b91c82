"""`daf missions` and `daf policies`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column
from rich.text import Text

from daf.cli.session import JsonFlag, open_client, print_json
from daf.render import number, scalar_text
from daf.tables import print_table, table
from daf_common.errors import NotFound
from daf_common.values import from_value
from daf_protos.training.v1.catalog_service_pb2 import (
    HyperparameterInfo,
    ListHyperparametersRequest,
    ListMissionsRequest,
    ListPoliciesRequest,
    MissionInfo,
)


def missions(
    name: Annotated[str, typer.Argument(help="Show this mission alone, with its variants.")] = "",
    all_: Annotated[bool, typer.Option("--all", help="List those that do not build, too.")] = False,
    json: JsonFlag = False,
) -> None:
    """List the missions that policies can be trained and scored on."""
    with open_client() as client:
        known = list(client.catalog.ListMissions(ListMissionsRequest()).missions)
    if name:
        mission = next((mission for mission in known if mission.name == name), None)
        if mission is None:
            raise NotFound(f"there is no mission {name!r}{_like(name, (m.name for m in known))}")
        print_json({"mission": mission}) if json else _print_mission(mission)
        return
    shown = [mission for mission in known if all_ or not mission.problem]
    if json:
        print_json({"missions": shown})
        return
    rows = table("mission", "agents", "steps", Column("about"))
    for mission in shown:
        about = f"does not build: {mission.problem}" if mission.problem else mission.description
        line = Text(about, style="red" if mission.problem else "", no_wrap=True, overflow="ellipsis")
        rows.add_row(mission.name, _ranges(mission.cogs), number(mission.max_steps), line)
    print_table(rows)
    if hidden := len(known) - len(shown):
        print(f"{hidden} more do not build: --all lists them.")


def policies(
    name: Annotated[str, typer.Argument(help="Show this policy alone, with its hyperparameters.")] = "",
    json: JsonFlag = False,
) -> None:
    """List the policies that DAF knows; a policy's hyperparameters with its name."""
    with open_client() as client:
        known = list(client.catalog.ListPolicies(ListPoliciesRequest()).policies)
        if not name:
            if json:
                print_json({"policies": known})
                return
            rows = table("policy", "learns", "class")
            for policy in known:
                rows.add_row(policy.name, "yes" if policy.trainable else "no", policy.class_path)
            print_table(rows)
            return
        policy_found = next((p for p in known if name in (p.name, p.class_path, *p.aliases)), None)
        if policy_found is None:
            raise NotFound(f"there is no policy {name!r}{_like(name, (p.name for p in known))}")
        request = ListHyperparametersRequest(policy=policy_found.name)
        parameters = list(client.catalog.ListHyperparameters(request).hyperparameters)
    if json:
        print_json({"policy": policy_found, "hyperparameters": parameters})
        return
    console = Console()
    console.print(Text(f"{policy_found.name}  {policy_found.class_path}", style="bold"))
    if policy_found.aliases:
        console.print(Text(f"  also {', '.join(policy_found.aliases)}"), soft_wrap=True)
    for warning in policy_found.warnings:
        console.print(Text(f"  {warning}", style="yellow"))
    print_hyperparameters(parameters, console)


def print_hyperparameters(parameters: Iterable[HyperparameterInfo], console: Console) -> None:
    """Prints a table of what can be set; the part of a name before the dot says where the value lands."""
    rows = table("hyperparameter", "default", "range", Column("about"))
    for parameter in parameters:
        default = from_value(parameter.default_value)
        rows.add_row(
            parameter.name, "-" if default is None else scalar_text(default), _range(parameter), parameter.description
        )
    print_table(rows, console)


def _print_mission(mission: MissionInfo) -> None:
    console = Console()
    console.print(Text(mission.name, style="bold"))
    rows = {
        "about": mission.description,
        "agents": _ranges(mission.cogs),
        "steps": number(mission.max_steps),
        "variants": ", ".join(mission.variants) or "none",
        "problem": mission.problem,
    }
    for name, value in rows.items():
        if value:
            console.print(Text(f"  {name:<10}{value}"))


def _range(parameter: HyperparameterInfo) -> str:
    low = number(parameter.minimum, 6) if parameter.HasField("minimum") else ""
    high = number(parameter.maximum, 6) if parameter.HasField("maximum") else ""
    return f"{low} to {high}" if low and high else f"from {low}" if low else f"to {high}" if high else ""


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers with runs joined: `1-4, 8`."""
    runs: list[list[int]] = []
    for value in sorted(numbers):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _like(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name[:100].lower(), list(known), n=3, cutoff=0.5)
    return f"; there is {', '.join(near)}" if near else ""
