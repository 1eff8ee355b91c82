"""Evaluation throughput beside `cogames.evaluate` on the same policy, mission and seeds, in the same run.

The peer is one process that plays the episodes one after the other, as `cogames.evaluate` does. Ours goes through the
services: plan, shards, leases, worker processes, statistics. Both are timed in turn, several times, and the ratio of each
pair is what counts, since the machine is noisy.
"""
