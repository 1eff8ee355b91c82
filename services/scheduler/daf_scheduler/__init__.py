"""Sweeps, trials and pipelines: what runs next."""
