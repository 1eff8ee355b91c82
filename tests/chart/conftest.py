"""A cluster for the tests that need one; see `tests.cluster`."""

from tests.cluster import cluster, namespace

__all__ = ["cluster", "namespace"]
