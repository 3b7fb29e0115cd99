"""A sweep: one recipe, many values of some of its keys, and which of them did best."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remask.comparison.directions import beats, is_better, to_be_beaten
from remask.comparison.words import FLOORS, spoken
from remask.config.schema import Recipe
from remask.laboratory.results import kept_runs
from remask.laboratory.search import Search
from remask.laboratory.space import Varied
from remask.laboratory.study import Metric, Study, Trial, new_facts
from remask.runs import Registry


def new_sweep(
    home: Path,
    name: str,
    *,
    recipe: Recipe,
    source: str,
    overrides: Sequence[str],
    over: Sequence[Varied],
    metric: Metric,
    sampler: str,
    trials: int,
    prune: str,
    seed: int,
    **more: Any,
) -> Study:
    """Makes a sweep's folder; nothing is trained yet.

    Args:
        home: of runs.
        name: of the study.
        recipe: what is swept.
        source: its YAML text.
        overrides: keys that are the same in all trials.
        over: what is varied.
        metric: what trials are judged by.
        sampler: of `search.SAMPLERS`.
        trials: how many.
        prune: of `search.PRUNERS`.
        seed: of the search.
        **more: further facts: the command, jobs at once, the cluster.

    Raises:
        UserError: the name is taken.
    """
    facts = new_facts(
        kind="sweep",
        title=f"sweep of {recipe.name} over {', '.join(each.key for each in over)}",
        recipe=recipe.name,
        metric=metric,
        **{"over": [each.to_json() for each in over], "sampler": sampler, "prune": prune, "seed": seed},
        overrides=list(overrides),
        trials_planned=trials,
        first_validation=min(recipe.training.evaluate_every, recipe.training.steps),
        **more,
    )
    return Study.create(home, name, recipes={"recipe.yaml": source}, **facts)


def conclude_sweep(study: Study, registry: Registry) -> dict[str, Any]:
    """What a sweep has found, as facts of study.json."""
    finished = ranked(study)
    if not finished:
        return {"best": None, "says": [f"none of {len(study.trials)} trials gave a figure", *_endings(study)]}
    best = finished[0]
    importances = Search(study).importances()
    says = [best_in_words(study, finished), *_endings(study), *_cautions(study, registry, finished)]
    if importances:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in importances.items())
        says.append(f"of the differences between finished trials, {shares} (functional analysis of variance)")
    return {
        "best": {"trial": best.number, "run": best.run, "sentence": says[0]},
        "importances": importances,
        "says": [*says, *(_next_steps(study, best) if kept_runs(registry, [best]) else [])],
    }


def ranked(study: Study) -> list[Trial]:
    """Finished trials, the best first; of equal ones the earlier."""
    sign = 1 if study.metric.better == "lower" else -1
    finished = [trial for trial in study.trials if trial.state == "finished" and not trial.calibration]
    return sorted(finished, key=lambda trial: (sign * (trial.value or 0.0), trial.number))


def best_trivial(trial: Trial, metric: Metric) -> tuple[str, float] | None:
    """The trivial predictor that does best, and its value; None where there is none."""
    known = to_be_beaten(trial.trivial)
    names = list(known)
    for name in names:
        if not any(is_better(known[other], known[name], way=metric.better) for other in names):
            return name, known[name]
    return None


def figure_words(value: float | None, stderr: float | None, unit: str = "") -> str:
    """A figure with its standard error and unit; a dash for none."""
    if value is None:
        return "–"
    error = "" if stderr is None else f" ± {stderr:.3f}"
    return f"{value:.3f}{error}{' ' if unit else ''}{unit}"


def best_in_words(study: Study, finished: Sequence[Trial]) -> str:
    """The best trial, what trivial predictors get beside it, and how far the second is behind.

    Args:
        study: says what is ranked.
        finished: trials with a value, the best first; at least one.
    """
    metric, best = study.metric, finished[0]
    said = f"best of {len(finished)}: trial {best.number}, {metric.name} "
    said += f"{figure_words(best.value, best.stderr, metric.unit)} at {best.arm}"
    said += "".join(f"; {words}" for words in _against_trivial(best, metric))
    if len(finished) > 1:
        said += f". {_against_the_second(best, finished[1])}"
    return said


def _against_trivial(best: Trial, metric: Metric) -> list[str]:
    """Between which trivial predictors the best trial stands; none where no value stands beside it."""
    assert best.value is not None, "a finished trial has a value"
    known = to_be_beaten(best.trivial)
    easiest_first = sorted(known, key=known.__getitem__, reverse=metric.better == "lower")
    unbeaten = [n for n in easiest_first if not beats(best.value, best.stderr, known[n], way=metric.better)]
    floors = [name for name in unbeaten if name in FLOORS]
    if floors:
        return [f"it has not learned: not better than {spoken(floors[-1], known[floors[-1]])}"]
    beaten = [spoken(name, known[name]) for name in easiest_first if name not in unbeaten][-1:]
    others = [spoken(name, known[name]) for name in unbeaten][:1]
    if beaten:
        return [f"it beats {', but not '.join(beaten + others)}"]
    return [f"it does not beat {other}" for other in others]


def _against_the_second(best: Trial, second: Trial) -> str:
    assert best.value is not None, "a finished trial has a value"
    assert second.value is not None, "a finished trial has a value"
    gap = abs(best.value - second.value)
    said = f"The second, trial {second.number}, is {gap:.3f} behind"
    if best.stderr is None or second.stderr is None:
        return said
    error = math.hypot(best.stderr, second.stderr)
    if gap < 2 * error:
        return f"{said}, less than two standard errors of a difference ({2 * error:.3f}): they may well be equal"
    return f"{said}, more than two standard errors of a difference ({2 * error:.3f})"


def _endings(study: Study) -> list[str]:
    said = []
    failed = [trial for trial in study.trials if trial.state == "failed"]
    pruned = [trial for trial in study.trials if trial.state == "pruned"]
    if failed:
        numbers = ", ".join(str(trial.number) for trial in failed)
        said.append(f"{len(failed)} of {len(study.trials)} trials failed ({numbers}), and can be none of the best")
    if pruned:
        said.append(
            f"{len(pruned)} of {len(study.trials)} trials were stopped early, because others were better by then"
        )
    return said


def _cautions(study: Study, registry: Registry, finished: Sequence[Trial]) -> list[str]:
    metric, said = study.metric, []
    if len(finished) > 1:
        where = "the validation text" if metric.task in (None, "likelihood") else "these examples"
        said.append(
            f"the best of {len(finished)} on {where} looks better than it is, because it was chosen by them: "
            "judge it on text that chose nothing"
        )
    records = kept_runs(registry, finished).values()
    if len({record.data_hash for record in records}) > 1:
        said.append("the trials were trained and judged on different texts, so their figures do not compare")
    if metric.name == "nats_per_token" and len({record.tokenizer_hash for record in records}) > 1:
        said.append("the trials' tokenizers differ, so nats a token do not compare; bits_per_byte does")
    return said


def _next_steps(study: Study, best: Trial) -> list[str]:
    task = study.metric.task or "likelihood"
    return [f"next: remask evaluate {best.run} --task {task} --split test · remask report {best.run}"]
