"""What `make bench` runs: every figure beside its peer, measured in the same run."""
