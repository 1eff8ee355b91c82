"""The catalogue of what can be trained, over RPC."""

from __future__ import annotations

import math
import platform
from typing import Any

import grpc

from daf_cogames import catalog
from daf_cogames.arguments import HARD_CODED
from daf_cogames.arguments import Parameter as PolicyParameter
from daf_cogames.parameter_table import ENVIRONMENT_PARAMETERS, REFUSED, TRAINER_PARAMETERS
from daf_cogames.parameter_table import Parameter as TrainerParameter
from daf_common.errors import InvalidArgument
from daf_common.values import to_value
from daf_protos.training.v1 import catalog_service_pb2 as pb
from daf_protos.training.v1.catalog_service_pb2_grpc import CatalogServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

WHEEL_PLATFORM = "manylinux_2_28"
"""What torch's own wheels need, so that every runner has it."""


class CatalogServicer(CatalogServiceServicer):
    """See `catalog_service.proto`."""

    async def ListMissions(self, request: pb.ListMissionsRequest, context: Context) -> pb.ListMissionsResponse:
        """See the proto."""
        found = catalog.catalog()
        missions = [
            pb.MissionInfo(
                name=entry.name,
                description=entry.description,
                variants=[name for name in found.variants if name not in entry.refused_variants],
                cogs=entry.builds_with,
                max_steps=entry.max_steps,
                problem=entry.problem,
                sets=entry.sets,
            )
            for entry in found.missions.values()
        ]
        return pb.ListMissionsResponse(missions=missions)

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Context) -> pb.ListPoliciesResponse:
        """See the proto."""
        policies = [
            pb.PolicyInfo(
                name=entry.name,
                class_path=entry.class_path,
                trainable=entry.trainable,
                recurrent=entry.recurrent,
                warnings=[*entry.warnings, *([f"cannot play an episode: {entry.problem}"] if entry.problem else [])],
                aliases=entry.aliases,
                sources=catalog.policy_sources(entry),
            )
            for entry in catalog.catalog().policies.values()
        ]
        return pb.ListPoliciesResponse(policies=policies)

    async def ListHyperparameters(
        self, request: pb.ListHyperparametersRequest, context: Context
    ) -> pb.ListHyperparametersResponse:
        """See the proto."""
        found = [_trainer_parameter(parameter) for parameter in (*TRAINER_PARAMETERS, *ENVIRONMENT_PARAMETERS)]
        refused = dict(REFUSED)
        if request.policy:
            try:
                catalog.resolve_policy(request.policy)
            except LookupError as error:
                raise InvalidArgument.field("policy", str(error.args[0])) from error
            entry = catalog.find_policy(request.policy)
            if entry is not None:
                found += [_policy_parameter(parameter) for parameter in entry.parameters]
                hard_coded = HARD_CODED.get(entry.class_path, {})
                refused |= {f"policy.{name}": reason for name, reason in hard_coded.items()}
        hyperparameters = sorted(found, key=lambda info: info.name)
        return pb.ListHyperparametersResponse(hyperparameters=hyperparameters, refused=refused)

    async def GetRunner(self, request: pb.GetRunnerRequest, context: Context) -> pb.GetRunnerResponse:
        """See the proto."""
        runner = catalog.catalog().runner
        return pb.GetRunnerResponse(
            python_version=runner.python_version,
            packages=runner.packages,
            modules=runner.modules,
            platform=f"{WHEEL_PLATFORM}_{platform.machine()}",
        )


def _trainer_parameter(parameter: TrainerParameter) -> pb.HyperparameterInfo:
    info = pb.HyperparameterInfo(name=parameter.name, description=parameter.note)
    if parameter.default is not None:
        info.default_value.CopyFrom(to_value(parameter.default))
    if math.isfinite(parameter.minimum):
        info.minimum = parameter.minimum
    if math.isfinite(parameter.maximum):
        info.maximum = parameter.maximum
    return info


def _policy_parameter(parameter: PolicyParameter) -> pb.HyperparameterInfo:
    required = ", which has to be given" if parameter.required else ""
    description = f"an argument of the policy's constructor{required}: {parameter.type or 'of any type'}"
    info = pb.HyperparameterInfo(name=f"policy.{parameter.name}", description=description)
    if parameter.default is not None:
        info.default_value.CopyFrom(to_value(parameter.default))
    return info
