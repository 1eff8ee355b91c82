"""What an installation can run: asked, before anything is started."""

from __future__ import annotations

from dataclasses import dataclass, field

from daf.client import Client
from daf.connection import given_or_connected
from daf_common.errors import InvalidArgument, Unimplemented
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import PolicyClass
from daf_protos.training.v1.catalog_service_pb2 import ListMissionsRequest, ListPoliciesRequest
from daf_protos.training.v1.training_job_pb2 import TrainingSpec
from daf_protos.training.v1.training_service_pb2 import CreateTrainingJobRequest

_BACKENDS = ("torch",)


@dataclass(frozen=True)
class TrainingCluster:
    """Compute that an installation has been found to have. Nothing is reserved: jobs wait in order for what is free."""

    num_nodes: int
    workers_per_node: int
    backend: str
    profile: str = ""
    client: Client | None = field(default=None, repr=False, compare=False)

    @property
    def num_workers(self) -> int:
        """Workers on all nodes together."""
        return self.num_nodes * self.workers_per_node


def daf_create_training_cluster(
    num_nodes: int = 1,
    workers_per_node: int = 1,
    backend: str = "torch",
    *,
    profile: str = "",
    client: Client | None = None,
) -> TrainingCluster:
    """Asks an installation, which is started here if need be, whether it can run so many workers at all.

    Args:
        num_nodes: machines.
        workers_per_node: workers on each.
        backend: `torch`: torch.distributed, started by torchrun.
        profile: compute profile of each worker; the installation's default if not given.
        client: the installation; otherwise the one that the context in use says.

    Raises:
        InvalidArgument: the numbers cannot be, or the profile is not known.
        FailedPrecondition: the installation has not so much compute; says what it has.
        Unimplemented: there is no such backend.
    """
    for name, count in (("num_nodes", num_nodes), ("workers_per_node", workers_per_node)):
        if count < 1:
            raise InvalidArgument.field(name, f"must be at least 1, not {count}")
    if backend not in _BACKENDS:
        raise Unimplemented(f"there is no backend {backend[:80]!r}: use {' or '.join(_BACKENDS)}")
    cluster = TrainingCluster(num_nodes, workers_per_node, backend, profile, client)
    with given_or_connected(client) as connected:
        missions = connected.catalog.ListMissions(ListMissionsRequest()).missions
        policies = connected.catalog.ListPolicies(ListPoliciesRequest()).policies
        smallest = TrainingSpec(
            policy_class=PolicyClass(class_path=next(policy.name for policy in policies if policy.trainable)),
            missions=[Mission(name=next(mission.name for mission in missions if not mission.problem))],
            agent_steps=1,
            profile=profile,
            workers=cluster.num_workers,
        )
        connected.training.CreateTrainingJob(CreateTrainingJobRequest(spec=smallest, validate_only=True))
    return cluster
