"""Tree-structured Parzen estimators (Bergstra et al. 2011), by Optuna."""

from __future__ import annotations

import hashlib
import warnings
from typing import TYPE_CHECKING

import optuna

from daf_common.values import Scalar
from daf_scheduler.search.strategy import History, Outcome, Tried
from daf_scheduler.space import Choices, Domain, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STARTUP_TRIALS = 10

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # constant_liar


class TreeParzenSearch:
    """See `daf_scheduler.search.strategy.Strategy`.

    The study is made anew from the history at every question, with a sampler seeded by the sweep's seed and the
    number of the trial: so nothing but the history decides. Live trials count as bad ones (the constant liar), which
    keeps trials that run side by side apart.
    """

    learns = True

    def __init__(self, space: Space, trials: int, seed: int, maximize: bool, startup_trials: int = 0) -> None:
        self.planned, self._seed = trials, seed
        directions = optuna.study.StudyDirection
        self._direction = directions.MAXIMIZE if maximize else directions.MINIMIZE
        self._startup_trials = startup_trials or STARTUP_TRIALS
        self._distributions = {name: _distribution(space[name]) for name in sorted(space)}

    def ask(self, history: History, trials: int) -> list[dict[str, Scalar]]:
        """See `Strategy.ask`."""
        study = optuna.create_study(direction=self._direction)
        for tried in history.trials:
            study.add_trial(self._frozen(tried))
        last = min(history.count + trials, self.planned)
        return [self._ask(study, number) for number in range(history.count + 1, last + 1)]

    def _ask(self, study: optuna.Study, number: int) -> dict[str, Scalar]:
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=self._startup_trials, constant_liar=True, seed=_sampler_seed(self._seed, number)
        )
        return dict(study.ask(self._distributions).params)

    def _frozen(self, tried: Tried) -> FrozenTrial:
        states = optuna.trial.TrialState
        state = {
            Outcome.LIVE: states.RUNNING,
            Outcome.SUCCEEDED: states.COMPLETE,
            Outcome.FAILED: states.FAIL,
        }[tried.outcome]
        return optuna.trial.create_trial(
            state=state,
            value=tried.objective if state is states.COMPLETE else None,
            params=dict(tried.parameters),
            distributions=self._distributions,
        )


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choices):
        return optuna.distributions.CategoricalDistribution(domain.values)
    if domain.integer:
        low, high = int(domain.minimum), int(domain.maximum)
        step = int(domain.step) or 1
        return optuna.distributions.IntDistribution(low, high - (high - low) % step, domain.logarithmic, step)
    step_real, high_real = domain.step or None, domain.maximum
    if domain.step and domain.size is not None:
        high_real = float(str(domain.at(domain.size - 1)))
    return optuna.distributions.FloatDistribution(domain.minimum, high_real, domain.logarithmic, step_real)


def _sampler_seed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4])
