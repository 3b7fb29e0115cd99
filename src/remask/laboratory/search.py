"""Where the trials of a sweep come from: a grid, chance, or what Optuna makes of the trials before.

Each draw has a generator of its own, keyed by the sweep's seed and the trial's number: a controller that was killed
draws the same trials as one that was not.
"""

import hashlib
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remask.errors import UserError
from remask.laboratory.space import Choice, Span, Varied, combinations, from_json
from remask.laboratory.study import Study, Trial

if TYPE_CHECKING:
    import optuna

FILE = "optuna.sqlite"
STARTUP = 4
"""Finished trials before the median prunes any."""
REDUCTION = 3
"""Of so many trials successive halving keeps one at each rung."""


def require_optuna() -> None:
    """Looks whether Optuna is there.

    Raises:
        UserError: it is not.
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError("remask sweep needs Optuna: pip install 'remask[sweep]'") from None


class Search:
    """A sweep's trials, drawn one after the other and kept in Optuna's study beside study.json.

    Args:
        study: of kind sweep.

    Raises:
        UserError: what Optuna knew of the study is damaged or gone.
    """

    def __init__(self, study: Study) -> None:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        self._optuna, self._study = optuna, study
        facts = study.facts
        self._over = [from_json(entry) for entry in facts["over"]]
        self._total = int(facts["trials_planned"])
        self._lower = study.metric.better == "lower"
        # validations in training are of bits per byte where the figure itself comes only at the end
        self._sign = 1.0 if study.metric.task is None or self._lower else -1.0
        try:
            with _quiet():
                self._kept = optuna.create_study(
                    study_name=study.name,
                    storage=storage_of(study.path),
                    direction="minimize" if self._lower else "maximize",
                    pruner=_PRUNERS[facts["prune"]](int(facts["first_validation"])),
                    load_if_exists=True,
                )
                self._discard_half_drawn()
        except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            raise UserError(f"{study.path / FILE} cannot be read: {str(error).splitlines()[0]}") from error
        self._live: dict[int, optuna.Trial] = {}

    def _discard_half_drawn(self) -> None:
        """Trials of which the study does not know: the controller was killed while it drew them."""
        known = {trial.drawn for trial in self._study.trials}
        kept = self._kept.get_trials(deepcopy=False)
        if not known <= {trial.number for trial in kept}:
            raise UserError(
                f"{self._study.path / FILE} does not have all trials of this study: it was deleted, or is another's. "
                "Put it back, or begin another study"
            )
        for trial in kept:
            if trial.number not in known and not trial.state.is_finished():
                self._kept.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)

    def following(self) -> Trial | None:
        """Draws the next trial and adds it to the study; None when all have been drawn."""
        waiting = next((trial for trial in self._study.trials if trial.state == "waiting"), None)
        number = len(self._study.trials)
        if waiting is not None or number >= self._total:
            return waiting
        facts = self._study.facts
        with _quiet():
            self._kept.sampler = _SAMPLERS[facts["sampler"]](
                self._over, number=number, seed=_key(int(facts["seed"]), number), at_once=int(facts["jobs"])
            )
            drawn = self._kept.ask({each.key: _distribution(each) for each in self._over})
        self._live[number] = drawn
        values = {
            each.key: drawn.params[each.key] if isinstance(each, Choice) else each.written(drawn.params[each.key])
            for each in self._over
        }
        words = tuple(f"{key}={value}" for key, value in values.items())
        trial = Trial(
            number=number,
            arm=" ".join(f"{each.key}={each.shown(drawn.params[each.key])}" for each in self._over),
            recipe="recipe.yaml",
            overrides=(*facts["overrides"], *words),
            values={each.key: drawn.params[each.key] for each in self._over},
            drawn=drawn.number,
        )
        self._study.add([trial])
        return trial

    def reported(self, trial: Trial, step: int, value: float) -> bool:
        """Tells Optuna of a validation; whether its pruner gives the trial up."""
        if self._study.facts["prune"] == "none":
            return False
        assert trial.drawn is not None, "a sweep's trials are drawn"
        frozen = self._frozen(trial.drawn)
        if frozen.state.is_finished():  # the controller was killed between telling Optuna and writing study.json
            return frozen.state == self._optuna.trial.TrialState.PRUNED
        live = self._alive(trial.number, frozen)
        if step not in frozen.intermediate_values:
            live.report(self._sign * value, step)
        return bool(live.should_prune())  # numpy has a bool of its own

    def told(self, trial: Trial) -> None:
        """Tells Optuna how a trial ended, and which run it was."""
        assert trial.drawn is not None, "a sweep's trials are drawn"
        states = self._optuna.trial.TrialState
        state = {"finished": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[trial.state]
        frozen = self._frozen(trial.drawn)
        if frozen.state.is_finished():
            return
        self._alive(trial.number, frozen).set_user_attr("run", trial.run)
        with _quiet():
            self._kept.tell(
                trial.drawn, trial.value if state == states.COMPLETE else None, state=state, skip_if_finished=True
            )

    def importances(self) -> dict[str, float]:
        """The share of the figure's variance that each key explains, largest first; {} where Optuna cannot tell.

        By functional analysis of variance on a random forest (Hutter et al. 2014, "An efficient approach for assessing
        hyperparameter importance"), over finished trials.
        """
        finished = [trial for trial in self._study.trials if trial.state == "finished"]
        varied = [key for key in (each.key for each in self._over) if len({t.values[key] for t in finished}) > 1]
        if len(varied) < 2 or len({trial.value for trial in finished}) < 2:
            return {}
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        try:
            with _quiet():
                evaluator = FanovaImportanceEvaluator(seed=int(self._study.facts["seed"]))
                found = get_param_importances(self._kept, evaluator=evaluator, params=varied)
        except ImportError:  # scikit-learn is not there
            return {}
        return {key: float(share) for key, share in found.items() if math.isfinite(share)}

    def _alive(self, number: int, frozen: "optuna.trial.FrozenTrial") -> "optuna.Trial":
        """A trial that Optuna takes reports of; one that an earlier controller drew is found by its key."""
        if number not in self._live:
            self._live[number] = self._optuna.trial.Trial(self._kept, frozen._trial_id)
        return self._live[number]

    def _frozen(self, number: int) -> "optuna.trial.FrozenTrial":
        return self._kept.get_trials(deepcopy=False)[number]


def storage_of(folder: Path) -> Any:
    """Where Optuna keeps what it knows of a sweep: a file in the study's folder."""
    return f"sqlite:///{folder / FILE}"


def planned(over: Sequence[Varied], *, sampler: str, trials: int | None) -> int:
    """How many trials a sweep has.

    Args:
        over: what is varied.
        sampler: of `SAMPLERS`.
        trials: asked for; None: all of a grid.

    Raises:
        UserError: a grid with a range in it or a number of trials, or no grid without a number.
    """
    if sampler != "grid":
        if trials is None:
            raise UserError(f"--sampler {sampler} draws as many trials as it is told: give --trials N")
        return trials
    spans = [each.key for each in over if isinstance(each, Span)]
    if spans:
        raise UserError(
            f"--over {spans[0]} is a range, and a grid needs lists: write {spans[0]}=a,b,c, or give --sampler tpe "
            "(or random) and --trials N"
        )
    total = math.prod(len(each.values) for each in over if isinstance(each, Choice))
    if trials not in (None, total):
        raise UserError(
            f"--trials {trials}: the grid has {total} combinations, and takes all of them. Leave --trials out, or give "
            "--sampler random"
        )
    return total


def _distribution(each: Varied) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(each, Choice):
        return CategoricalDistribution(each.values)
    if each.whole:
        return IntDistribution(round(each.low), round(each.high), log=each.log)
    return FloatDistribution(each.low, each.high, log=each.log)


def _key(seed: int, number: int) -> int:
    """32 bits that follow from the sweep's seed and the trial's number."""
    return int.from_bytes(hashlib.blake2b(f"sweep {seed} {number}".encode(), digest_size=4).digest(), "big")


def _grid(over: Sequence[Varied], *, number: int, seed: int, at_once: int) -> Any:
    """Optuna's own grid counts a discarded trial as done, so each trial is told its place."""
    del seed, at_once
    lists = [each for each in over if isinstance(each, Choice)]
    return _fixed(next(islice(combinations(lists), number, None)))


def _random(over: Sequence[Varied], *, number: int, seed: int, at_once: int) -> Any:
    from optuna.samplers import RandomSampler

    del over, number, at_once
    return RandomSampler(seed=seed)


def _tpe(over: Sequence[Varied], *, number: int, seed: int, at_once: int) -> Any:
    """Tree-structured Parzen estimator (Bergstra et al. 2011); of trials in progress it assumes the worst."""
    from optuna.samplers import TPESampler

    del over, number
    return TPESampler(seed=seed, constant_liar=at_once > 1)


def _fixed(values: Mapping[str, str]) -> Any:
    """A sampler that gives these values."""
    from optuna.samplers import BaseSampler

    class Fixed(BaseSampler):
        """One combination of a grid."""

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            del study, trial
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            del study, trial, search_space
            return {}

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            del study, trial, param_distribution
            return values[param_name]

    return Fixed()


def _median(first_validation: int) -> Any:
    from optuna.pruners import MedianPruner

    del first_validation
    return MedianPruner(n_startup_trials=STARTUP)


def _halving(first_validation: int) -> Any:
    """Successive halving (Li et al. 2020, "A system for massively parallel hyperparameter tuning")."""
    from optuna.pruners import SuccessiveHalvingPruner

    return SuccessiveHalvingPruner(min_resource=first_validation, reduction_factor=REDUCTION)


def _none(first_validation: int) -> Any:
    from optuna.pruners import NopPruner

    del first_validation
    return NopPruner()


_SAMPLERS = {"grid": _grid, "random": _random, "tpe": _tpe}
_PRUNERS = {"none": _none, "median": _median, "halving": _halving}
SAMPLERS, PRUNERS = tuple(_SAMPLERS), tuple(_PRUNERS)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's own lines, and its notes on what is experimental."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
