"""How sweeps are brought forward: see `daf_common.reconciler.Controller`."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from daf_common.clock import Clock
from daf_common.errors import DafError
from daf_common.leases import Leader
from daf_common.metrics import STATE_CHANGES
from daf_common.store import Store
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_scheduler import plans, store
from daf_scheduler.child_cache import ChildCache
from daf_scheduler.children import ChildState
from daf_scheduler.convert import new_trial
from daf_scheduler.peers import Numbers
from daf_scheduler.search.strategy import History, Outcome, Strategy, Tried, create_strategy
from daf_scheduler.sweeps import Action, CancelHeldOut, CreateHeldOut, Propose, Seen, Sweep, SweepState, decide
from daf_scheduler.trials import Trial, TrialState


class SweepController:
    """Observes and acts for sweeps."""

    def __init__(
        self,
        database: Store,
        leader: Leader,
        evaluations: ChildCache[EvaluationSpec],
        numbers: Numbers,
        clock: Clock,
        enqueue_trials: Callable[..., None],
        enqueue_sweeps: Callable[..., None],
    ) -> None:
        self._store, self._leader, self._clock = database, leader, clock
        self._evaluations, self._numbers = evaluations, numbers
        self._enqueue_trials, self._enqueue_sweeps = enqueue_trials, enqueue_sweeps
        self._fence: int | None = None  # of the batch at hand

    async def live(self) -> Sequence[str]:
        """See `Controller.live`. Waits until this replica leads."""
        await self._leader.elected()
        return await self._store.read(store.live_sweeps)

    async def load(self, keys: Sequence[str]) -> Mapping[str, Sweep]:
        """See `Controller.load`."""
        self._fence = await self._leader.lead()
        if self._fence is None:
            return {}
        return await self._store.read(store.load_sweeps, keys)

    async def observe(self, rows: Mapping[str, Sweep]) -> Mapping[str, Seen]:
        """See `Controller.observe`."""
        seen = await asyncio.gather(*(self._observe(sweep) for sweep in rows.values()))
        return {key: sight for key, sight in zip(rows, seen, strict=True) if sight is not None}

    async def _observe(self, sweep: Sweep) -> Seen | None:
        if sweep.state is not SweepState.FINALIZING:
            return Seen()
        try:
            self._evaluations.expect(sweep.evaluation_id, lambda: self._enqueue_sweeps(sweep.id))
            evaluation = await self._evaluations.look(sweep.evaluation_id, thorough=sweep.stopping)
            held_out = None
            if evaluation and evaluation.state is ChildState.SUCCEEDED and not sweep.stopping:
                held_out = await self._numbers.held_out(evaluation.name, plans.spec_of(sweep.spec), sweep.creator)
            return Seen(evaluation, held_out)
        except DafError as error:
            logging.getLogger(__name__).info("%s cannot be looked at now: %s", sweep.id, error)
            return None

    def decide(self, row: Sweep, seen: Seen, now: datetime) -> tuple[Sweep, Sequence[Action]]:
        """See `Controller.decide`."""
        return decide(row, seen, now)

    async def save(self, changes: Mapping[str, tuple[Sweep, Sweep]]) -> None:
        """See `Controller.save`."""
        fence = self._leader.check(self._fence)
        saved = await self._store.run(store.save_sweeps, list(changes.values()), fence, self._clock.now())
        for id in saved:
            old, new = changes[id]
            if old.state is SweepState.FINALIZING:
                self._evaluations.forget(old.evaluation_id)
            STATE_CHANGES.labels("sweep", new.state.value).inc()

    async def perform(self, key: str, row: Sweep, action: Action) -> None:
        """See `Controller.perform`."""
        self._leader.check(self._fence)
        match action:
            case Propose(trials):
                await self._propose(row, trials)
            case CreateHeldOut():
                assert row.best_number is not None  # a sweep without a best trial is never finalized
                best = await self._store.read(store.get_trial, row.id, row.best_number)
                spec = plans.held_out_spec(plans.spec_of(row.spec), best)
                await self._evaluations.create(row.evaluation_id, spec, row.creator)
            case CancelHeldOut():
                await self._evaluations.cancel(row.evaluation_id)

    async def _propose(self, sweep: Sweep, trials: int) -> None:
        strategy, count = _strategy(sweep.spec), sweep.counts.total
        if strategy.learns:
            rows = await self._store.read(store.history, sweep.id)
            history = History(len(rows), [_tried(trial) for trial in rows])
            proposals = await asyncio.to_thread(strategy.ask, history, trials)
        else:
            proposals = strategy.ask(History(count), trials)
        now, fence = self._clock.now(), self._leader.check(self._fence)
        new = [new_trial(sweep.id, count + index, parameters, now) for index, parameters in enumerate(proposals, 1)]
        searched = len(new) < trials or count + len(new) >= strategy.planned
        if await self._store.run(store.add_trials, sweep, new, searched, fence, now):
            self._enqueue_trials(*(trial.id for trial in new))
        self._enqueue_sweeps(sweep.id)


@functools.lru_cache(maxsize=64)
def _strategy(spec: bytes) -> Strategy:
    return create_strategy(plans.spec_of(spec))


def _tried(trial: Trial) -> Tried:
    parameters = plans.parameters_of(trial)
    if trial.state is TrialState.SUCCEEDED:
        return Tried(trial.number, parameters, Outcome.SUCCEEDED, trial.objective)
    return Tried(trial.number, parameters, Outcome.FAILED if trial.terminal else Outcome.LIVE)
