"""`daf job params`: what can be set for a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daf.cli.catalog import policies, print_hyperparameters
from daf.cli.session import JsonFlag, notice, open_client, print_json
from daf.user_code import UserCode
from daf_common.errors import InvalidArgument
from daf_common.values import to_value
from daf_protos.training.v1.catalog_service_pb2 import HyperparameterInfo, ListHyperparametersRequest


def params(
    policy: Annotated[str, typer.Argument(help="Short name or class path of the policy.")],
    code: Annotated[
        list[str] | None, typer.Option(help="Your own file or folder with its class; may be repeated.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """List every hyperparameter of a policy: its default, where it lands, and what is known about it."""
    if not code:
        policies(policy, json)
        return
    own = UserCode.of(Path(path).expanduser() for path in code)
    if not own.has(policy):
        module = policy.rpartition(".")[0] or policy
        raise InvalidArgument.field("policy", f"{policy[:80]}: the code that comes along has no module {module[:80]}")
    arguments, defaults = own.constructor_arguments(policy), own.constructor_defaults(policy)
    with open_client() as client:
        known = list(client.catalog.ListHyperparameters(ListHyperparametersRequest()).hyperparameters)
    for name in arguments or ():
        default = to_value(defaults[name]) if name in defaults else None
        description = "an argument of your policy's constructor"
        known.append(HyperparameterInfo(name=f"policy.{name}", default_value=default, description=description))
    if json:
        print_json({"hyperparameters": known})
        return
    print_hyperparameters(known, Console())
    if arguments is None:
        notice(f"the source of {policy} does not say what its constructor takes: any policy.NAME is passed on")
