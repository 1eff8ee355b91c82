"""Workloads on Kubernetes: what the backends of training and of evaluation have in common."""
