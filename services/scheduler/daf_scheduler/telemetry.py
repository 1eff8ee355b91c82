"""What the scheduler service tells Prometheus, beside what every service does."""

from __future__ import annotations

from daf_common.state_counts import Kind, StateCounts
from daf_common.store import Store
from daf_scheduler.sweeps import SweepState
from daf_scheduler.tables import SWEEPS, TRIALS
from daf_scheduler.trials import TrialState


def sweep_and_trial_counts(store: Store) -> StateCounts:
    """Sweeps and trials by state."""
    return StateCounts(
        store,
        [
            Kind("sweep", SWEEPS.c.state, [state.value for state in SweepState]),
            Kind("trial", TRIALS.c.state, [state.value for state in TrialState]),
        ],
    )
