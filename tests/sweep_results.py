"""What a sweep found out, to be compared between runs of it."""

from __future__ import annotations

from typing import Any


def results(sweep: dict[str, Any]) -> Any:
    """Of the JSON of `daf sweep get`: all numbers and digests, without the sweep's name, times or revisions."""
    trials = [
        (t["number"], t["parameters"], t["state"], t["score"]["mean"], t["score"]["evaluation_digest"])
        for t in sweep["trials"]
    ]
    held_out = sweep["sweep"]["held_out"]
    baselines = [(b["label"], b["score"]["mean"], b["difference"]["mean"]) for b in held_out["baselines"]]
    best = sweep["sweep"]["best_trial"].rpartition("/")[2]
    return sorted(trials), best, held_out["best"]["mean"], baselines
