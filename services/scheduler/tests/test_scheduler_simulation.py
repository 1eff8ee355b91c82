"""A seeded simulation of the scheduler's decisions: the very `decide` functions, in a world where anything may fail.

Between any two steps the scheduler may be killed, which loses all that it has not stored; an action may take effect
although its caller saw an error; children end when they please, some badly. A failing run names its seed.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from daf_scheduler import slots, sweeps, trials
from daf_scheduler.children import Child, ChildState, Reason
from daf_scheduler.sweeps import Counts, Propose, Sweep, SweepState
from daf_scheduler.trials import Action, Measured, Trial, TrialState

START = datetime(2026, 1, 1, tzinfo=UTC)
ENDS = [ChildState.SUCCEEDED] * 6 + [ChildState.FAILED, ChildState.CANCELLED]


class World:
    """The stored rows, the children as their services know them, and what the scheduler remembers of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = START
        self.planned = self.random.randint(1, 30)
        self.cancel_at = self.random.choice([None, self.random.randint(1, 300)])
        self.sweep = Sweep(
            id="s",
            spec=b"",
            state=SweepState.PENDING,
            planned=self.planned,
            create_time=START,
            slots=self.random.randint(1, 5),
            max_failed=self.random.choice([None, None, 3]),
            maximize=self.random.random() < 0.5,
            learns=self.random.random() < 0.5,
            has_held_out=self.random.random() < 0.5,
        )
        self.trials: dict[str, Trial] = {}
        self.children: dict[str, Child] = {}
        self.created: Counter[str] = Counter()
        self.refused: dict[str, Child] = {}
        self.remembered: dict[str, Child] = {}
        self.ends: Counter[str] = Counter()

    def run(self) -> None:
        for step in range(20_000):
            self.now += timedelta(seconds=self.random.choice([1, 1, 1, -3600, 3600]))  # the clock may jump
            if step == self.cancel_at:
                self.sweep = replace(self.sweep, cancel_requested=not self.sweep.terminal)
            if self.random.random() < 0.02:
                self.remembered.clear()  # killed
            self.random.choice([self.end_a_child, self.step_sweep, self.step_trial, self.step_trial])()
            self.check()
            if self.sweep.terminal:
                return
        raise AssertionError("the sweep does not end")

    def end_a_child(self) -> None:
        live = [child for child in self.children.values() if child.live]
        if not live:
            return
        child = self.random.choice(live)
        state = self.random.choice(ENDS)
        checkpoint = b"weights" if state is ChildState.SUCCEEDED else b""
        self.children[child.name] = replace(child, state=state, checkpoint=checkpoint, revision=child.revision + 1)

    def look(self, name: str, thorough: bool) -> Child | None:
        """As the cache of children does: the newest sight, or none until a creation or a thorough look finds it."""
        if name in self.remembered or thorough:
            found = self.children.get(name) or self.refused.get(name)
            if found:
                self.remembered[name] = found
        return self.remembered.get(name)

    def create(self, name: str) -> None:
        if self.random.random() < 0.05:
            return  # the call got lost
        if name not in self.children and name not in self.refused:
            if self.random.random() < 0.1:
                self.refused[name] = Child(name, ChildState.INFEASIBLE, Reason("INVALID_ARGUMENT"))
            else:
                self.children[name] = Child(name, ChildState.LIVE)
                self.created[name] += 1
        if self.random.random() < 0.9:  # else it took effect, but the answer got lost
            self.remembered[name] = self.children.get(name) or self.refused[name]

    def cancel(self, name: str) -> None:
        if self.random.random() < 0.8 and self.children[name].live:
            self.children[name] = replace(self.children[name], state=ChildState.CANCELLED)

    def step_sweep(self) -> None:
        seen = sweeps.Seen()
        if self.sweep.state is SweepState.FINALIZING:
            child = self.look("held-out", self.sweep.stopping)
            done = child is not None and child.state is ChildState.SUCCEEDED
            seen = sweeps.Seen(child, sweeps.HeldOut(1.0, b"result") if done else None)
        new, actions = sweeps.decide(self.sweep, seen, self.now)
        if new != self.sweep:
            assert new.state in sweeps.TRANSITIONS[self.sweep.state]
            self.sweep = new
            return
        for action in actions:
            if isinstance(action, Propose):
                self.propose(action.trials)
            elif isinstance(action, sweeps.CreateHeldOut):
                self.create("held-out")
            else:
                self.cancel("held-out")

    def propose(self, wanted: int) -> None:
        first = len(self.trials) + 1
        last = min(first + wanted - 1, self.planned)
        for number in range(first, last + 1):
            trial = Trial(trials.trial_id("s", number), "s", number, b"", TrialState.PENDING, self.now)
            self.trials[trial.id] = trial
        counts = replace(self.sweep.counts, pending=self.sweep.counts.pending + last + 1 - first)
        self.sweep = replace(self.sweep, counts=counts, searched=last >= self.planned)

    def step_trial(self) -> None:
        live = [trial for trial in self.trials.values() if not trial.terminal]
        if not live:
            return
        trial = self.random.choice(live)
        job, evaluation = f"job-{trial.child_id}", f"evaluation-{trial.child_id}"
        waiting = sorted(t.number for t in live if t.state is TrialState.PENDING)
        granted = waiting[: slots.free(self.sweep.slots, self.sweep.counts.running)]
        stopping = self.sweep.stopping
        seen = trials.Seen(stopping=stopping, slot=trial.number in granted)
        if trial.state is TrialState.TRAINING:
            seen = replace(seen, job=self.look(job, stopping))
        elif trial.state is TrialState.EVALUATING:
            child = self.look(evaluation, stopping)
            value = self.random.choice([float("nan"), *map(float, range(5))])
            done = child is not None and child.state is ChildState.SUCCEEDED
            seen = replace(seen, evaluation=child, objective=Measured(value, b"score") if done else None)
        new, actions = trials.decide(trial, seen, self.now)
        if new != trial:
            self.save(trial, new)
            return
        for action in actions:
            name = job if action in (Action.CREATE_JOB, Action.CANCEL_JOB) else evaluation
            if action in (Action.CREATE_JOB, Action.CREATE_EVALUATION):
                self.create(name)
            else:
                self.cancel(name)

    def save(self, old: Trial, new: Trial) -> None:
        assert new.state in trials.TRANSITIONS[old.state]
        assert self.trials[old.id] == old
        self.trials[old.id] = new
        self.ends[old.id] += new.terminal
        moved = {kind: getattr(self.sweep.counts, kind) for kind in Counts.__dataclass_fields__}
        moved[sweeps.kind(old.state)] -= 1
        moved[sweeps.kind(new.state)] += 1
        if new.state is TrialState.SUCCEEDED and sweeps.better(self.sweep, new):
            self.sweep = replace(self.sweep, best_number=new.number, best_objective=new.objective)
        self.sweep = replace(self.sweep, counts=Counts(**moved))

    def check(self) -> None:
        assert self.sweep.counts.running <= self.sweep.slots
        assert len(self.trials) <= self.planned
        assert max(self.created.values(), default=1) == 1
        for trial in self.trials.values():
            assert trial.end_time is None or trial.end_time >= (trial.start_time or trial.create_time)


@pytest.mark.parametrize("first_seed", range(0, 400, 100))
def test_whatever_happens_every_trial_ends_once_and_the_best_is_the_best(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 100):
        world = World(seed)
        try:
            world.run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        sweep, ended = world.sweep, world.trials.values()

        assert world.ends == {trial.id: 1 for trial in ended}, f"seed {seed}"
        assert not any(child.live for child in world.children.values()), f"seed {seed}: a child was left behind"
        assert sweep.counts.total == len(ended), f"seed {seed}"
        scored = [trial for trial in ended if trial.state is TrialState.SUCCEEDED]
        sign = 1 if sweep.maximize else -1
        best = max(scored, key=lambda trial: (sign * (trial.objective or 0.0), -trial.number), default=None)
        assert sweep.best_number == (best.number if best else None), f"seed {seed}"
        if sweep.state is SweepState.SUCCEEDED:
            assert len(ended) == world.planned, f"seed {seed}"
            assert bool(sweep.held_out) is sweep.has_held_out, f"seed {seed}"
