"""Evaluations: shards of episodes, leases and workers."""
