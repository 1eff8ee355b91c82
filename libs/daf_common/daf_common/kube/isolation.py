"""The network of a workload's own: its pods talk to each other, on ports of their choice and without a secret. Pure.

The policy of the chart closes all pods of workloads to each other; policies add up, and none can say "of the same
workload", so each has one of its own. Where the network enforces no policies they change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from daf_common.kube.api import Kind, Object
from daf_common.workloads import Workload

NETWORK_POLICIES = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")


def needs_network(workload: Workload) -> bool:
    """Whether pods of a workload talk to each other."""
    return workload.ranks is not None and workload.ranks.machines > 1


def network_of(metadata: Object, labels: Mapping[str, str]) -> Object:
    """A policy that lets pods with these labels, which are a workload's alone, reach each other."""
    pods = {"podSelector": {"matchLabels": dict(labels)}}
    return {
        "metadata": metadata,
        "spec": {
            **pods,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [pods]}],
            "egress": [{"to": [pods]}],
        },
    }
