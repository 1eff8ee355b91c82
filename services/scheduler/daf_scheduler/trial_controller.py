"""How trials are brought forward: see `daf_common.reconciler.Controller`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from daf_common.clock import Clock
from daf_common.errors import DafError
from daf_common.leases import Leader
from daf_common.metrics import STATE_CHANGES
from daf_common.store import Store
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_protos.training.v1.training_job_pb2 import TrainingSpec
from daf_scheduler import plans, trial_store
from daf_scheduler.child_cache import ChildCache
from daf_scheduler.children import ChildState
from daf_scheduler.peers import Numbers
from daf_scheduler.sweeps import Sweep
from daf_scheduler.trials import Action, Seen, Trial, TrialState, decide


class TrialController:
    """Observes and acts for trials, many at a time."""

    def __init__(
        self,
        store: Store,
        leader: Leader,
        jobs: ChildCache[TrainingSpec],
        evaluations: ChildCache[EvaluationSpec],
        numbers: Numbers,
        clock: Clock,
        enqueue_trials: Callable[..., None],
        enqueue_sweeps: Callable[..., None],
    ) -> None:
        self._store, self._leader, self._clock = store, leader, clock
        self._jobs, self._evaluations, self._numbers = jobs, evaluations, numbers
        self._enqueue_trials, self._enqueue_sweeps = enqueue_trials, enqueue_sweeps
        self._sweeps: Mapping[str, Sweep] = {}  # of the batch at hand
        self._granted: frozenset[str] = frozenset()
        self._fence: int | None = None

    async def live(self) -> Sequence[str]:
        """See `Controller.live`. Waits until this replica leads."""
        await self._leader.elected()
        return await self._store.read(trial_store.live_trials)

    async def load(self, keys: Sequence[str]) -> Mapping[str, Trial]:
        """See `Controller.load`."""
        self._fence = await self._leader.lead()
        if self._fence is None:
            return {}
        batch = await self._store.read(trial_store.load_trials, keys)
        self._sweeps, self._granted = batch.sweeps, batch.granted
        return batch.trials

    async def observe(self, rows: Mapping[str, Trial]) -> Mapping[str, Seen]:
        """See `Controller.observe`."""
        seen = await asyncio.gather(*(self._observe(trial) for trial in rows.values()))
        return {key: sight for key, sight in zip(rows, seen, strict=True) if sight is not None}

    async def _observe(self, trial: Trial) -> Seen | None:
        try:
            return await self._look(trial)
        except DafError as error:
            logging.getLogger(__name__).info("%s cannot be looked at now: %s", trial.id, error)
            return None

    async def _look(self, trial: Trial) -> Seen:
        sweep, id = self._sweeps[trial.sweep], trial.child_id
        # A trial that is to stop must not overlook a child whose creation was never heard of.
        thorough = sweep.stopping
        match trial.state:
            case TrialState.TRAINING:
                self._jobs.expect(id, lambda: self._enqueue_trials(trial.id))
                return Seen(stopping=sweep.stopping, job=await self._jobs.look(id, thorough=thorough))
            case TrialState.EVALUATING:
                self._evaluations.expect(id, lambda: self._enqueue_trials(trial.id))
                evaluation = await self._evaluations.look(id, thorough=thorough)
                objective = None
                if evaluation and evaluation.state is ChildState.SUCCEEDED and not sweep.stopping:
                    metric = plans.spec_of(sweep.spec).objective.metric
                    objective = await self._numbers.objective(evaluation.name, metric)
                return Seen(stopping=sweep.stopping, evaluation=evaluation, objective=objective)
            case _:
                return Seen(stopping=sweep.stopping, slot=trial.id in self._granted)

    def decide(self, row: Trial, seen: Seen, now: datetime) -> tuple[Trial, Sequence[Action]]:
        """See `Controller.decide`."""
        return decide(row, seen, now)

    async def save(self, changes: Mapping[str, tuple[Trial, Trial]]) -> None:
        """See `Controller.save`."""
        fence = self._leader.check(self._fence)
        saved = await self._store.run(trial_store.save_trials, list(changes.values()), fence, self._clock.now())
        for id in saved.trials:
            old, new = changes[id]
            if old.state is TrialState.TRAINING:
                self._jobs.forget(old.child_id)
            elif old.state is TrialState.EVALUATING:
                self._evaluations.forget(old.child_id)
            STATE_CHANGES.labels("trial", new.state.value).inc()
        self._enqueue_trials(*saved.due)
        self._enqueue_sweeps(*saved.sweeps)

    async def perform(self, key: str, row: Trial, action: Action) -> None:
        """See `Controller.perform`."""
        self._leader.check(self._fence)
        sweep = self._sweeps[row.sweep]
        spec = plans.spec_of(sweep.spec)
        match action:
            case Action.CREATE_JOB:
                await self._jobs.create(row.child_id, plans.training_spec(spec, row), sweep.creator)
            case Action.CREATE_EVALUATION:
                await self._evaluations.create(row.child_id, plans.evaluation_spec(spec, row), sweep.creator)
            case Action.CANCEL_JOB:
                await self._jobs.cancel(row.child_id)
            case Action.CANCEL_EVALUATION:
                await self._evaluations.cancel(row.child_id)
