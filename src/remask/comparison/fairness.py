"""What makes a comparison of two setups less than fair, in words: budgets, code, health, how figures were come by."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remask.comparison.arms import Arm
from remask.comparison.comparable import Figure, differing_ways
from remask.comparison.selection import Column
from remask.runs.record import RunRecord

EQUAL = 0.01
"""Share by which budgets may differ and still be called equal."""

_SAME_TIME = 0.1  # of a training's wall time, which differs from run to run
_BUDGETS: Mapping[str, str] = {
    "parameters": "parameters",
    "active_parameters": "parameters used for a token",
    "tokens_seen": "tokens trained on",
    "epochs": "epochs",
    "flops": "floating-point operations of training",
}
_UNLEARNED = ("has not learned", "broken", "worse than uniform", "cannot be judged")


@dataclass(frozen=True, kw_only=True)
class Flag:
    """Something that makes a comparison less than fair.

    Attributes:
        words: what it is.
        differs: whether the setups differ in it, so that a strict comparison is refused; else it is a caution.
    """

    words: str
    differs: bool = True


def flags(arms: Sequence[Arm], columns: Sequence[Column], *, alarms: Mapping[str, Sequence[str]]) -> list[Flag]:
    """All that is to be said of the arms and of the figures that are compared, each once.

    Args:
        arms: at least two.
        columns: the figures that are compared.
        alarms: by run id, the names of the alarms that its training raised.
    """
    found = [*_budgets(arms), *_times(arms), *_texts(arms), *_code(arms)]
    for column in columns:
        found += [*of_column(column), *_missing(arms, column)]
        found += _judging([figure for figures in column.figures.values() for figure in figures])
    found += [flag for arm in arms for run in arm.runs for flag in _of_run(run, alarms.get(run.id, ()))]
    found += _seeds(arms)
    return list({flag.words: flag for flag in found}.values())


def ratio_of(first: float, second: float) -> float:
    """The first number as a multiple of the second; 1 where both are 0."""
    if second == 0:
        return 1.0 if first == 0 else float("inf")
    return first / second


def equal_budgets(arms: Sequence[Arm]) -> list[str]:
    """Which of parameters, tokens and floating-point operations are known and equal within 1 %."""
    named = {"parameters": "parameters", "tokens_seen": "tokens", "flops": "FLOPs"}
    found = []
    for fact, word in named.items():
        values = [arm.number(fact) for arm in arms]
        known = [value for value in values if value is not None]
        if len(known) == len(values) and _spread(known) <= 1 + EQUAL:
            found.append(word)
    return found


def _budgets(arms: Sequence[Arm]) -> list[Flag]:
    found = []
    dense = all(arm.number("active_parameters") in (None, arm.number("parameters")) for arm in arms)
    one_epoch = len({arm.number("train_tokens") for arm in arms}) == 1
    for fact, word in _BUDGETS.items():
        if (fact == "active_parameters" and dense) or (fact == "epochs" and one_epoch):
            continue  # told by parameters, by tokens
        values = {arm.name: arm.number(fact) for arm in arms}
        found += _number_flag(word, values, tolerance=EQUAL)
    return found


def _number_flag(word: str, values: Mapping[str, float | None], *, tolerance: float) -> list[Flag]:
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return []
    if len(known) < len(values):
        missing = ", ".join(name for name in values if name not in known)
        return [Flag(words=f"{word}: not known of {missing}")]
    if _spread(list(known.values())) <= 1 + tolerance:
        return []
    said = ", ".join(f"{name} {amount(value)}" for name, value in known.items())
    return [Flag(words=f"{word} differ: {said} ({_spread(list(known.values())):.3g} times)")]


def _times(arms: Sequence[Arm]) -> list[Flag]:
    """Wall time is an outcome, and no budget unless somebody made it one."""
    values = {arm.name: arm.number("seconds") for arm in arms}
    if any(value is None for value in values.values()):
        return []
    found = _number_flag("training time", values, tolerance=_SAME_TIME)
    machines = {(arm.text("machine"), arm.text("device")) for arm in arms}
    other = "; they ran on different machines" if len(machines) > 1 else ""
    return [
        Flag(words=f"{flag.words.replace(' differ:', ' differs (seconds):')}{other}", differs=False) for flag in found
    ]


def _texts(arms: Sequence[Arm]) -> list[Flag]:
    found = []
    for fact, word in {"data": "trained on different text", "tokenizer": "different tokenizers"}.items():
        hashes = {arm.name: arm.text(f"{fact}_hash") for arm in arms}
        if None in hashes.values():
            missing = ", ".join(name for name, value in hashes.items() if value is None)
            found.append(Flag(words=f"the {'text' if fact == 'data' else 'tokenizer'} is not known of {missing}"))
        elif len(set(hashes.values())) > 1:
            said = ", ".join(f"{arm.name} {arm.text(fact) or hashes[arm.name]}" for arm in arms)
            found.append(Flag(words=f"{word}: {said}"))
    return found


def _code(arms: Sequence[Arm]) -> list[Flag]:
    commits = {arm.name: arm.text("git_commit") for arm in arms}
    found = []
    unknown = [name for name, commit in commits.items() if commit is None]
    if unknown:
        found.append(Flag(words=f"the commit of the code is not known of {', '.join(unknown)}"))
    known = [run.git_commit for arm in arms for run in arm.runs if run.git_commit is not None]
    if len(set(known)) > 1:
        said = ", ".join(f"{name} {_short(commit)}" for name, commit in commits.items() if commit is not None)
        found.append(Flag(words=f"trained by different commits of the code: {said}"))
    dirty = [arm.name for arm in arms if any(run.git_dirty for run in arm.runs)]
    if dirty:
        found.append(Flag(words=f"trained with uncommitted changes to the code: {', '.join(dirty)}"))
    return found


def _short(commits: str) -> str:
    return ", ".join(commit[:7] for commit in commits.split(", "))


def of_column(column: Column) -> list[Flag]:
    """How the figures of one quantity were come by, where that differs."""
    found = [Flag(words=difference.of(list(column.figures))) for difference in differing_ways(column.first)]
    kinds = {figure.is_bound for figure in column.first}
    if len(kinds) > 1:
        found.append(
            Flag(words="an upper bound that is lower than an exact figure decides; one that is higher does not")
        )
    return found


def _of_run(run: RunRecord, alarms: Sequence[str]) -> list[Flag]:
    found = []
    if run.status != "finished":
        done = f" at step {run.step} of {run.steps}" if run.steps else ""
        found.append(Flag(words=f"{run.id} is not finished: {run.status}{done}"))
    if run.verdict and run.verdict.startswith(_UNLEARNED):
        found.append(Flag(words=f"{run.id}: {run.verdict}", differs=False))
    if alarms:
        counted = ", ".join(f"{name} ×{count}" for name, count in Counter(alarms).items())
        found.append(Flag(words=f"{run.id} raised alarms in training: {counted}", differs=False))
    return found


def _judging(figures: Sequence[Figure]) -> list[Flag]:
    """Figures of weights that are not the run's last, or that were judged by different code."""
    commits = {figure.evaluation.git_commit for figure in figures if figure.evaluation} - {None}
    found = [Flag(words="judged by different commits of the code")] if len(commits) > 1 else []
    for figure in figures:
        step = figure.evaluation.step if figure.evaluation else None
        if step is not None and step != figure.run.step:
            found.append(Flag(words=f"{figure.run.id} was judged at step {step}, and was trained to {figure.run.step}"))
    return found


def _missing(arms: Sequence[Arm], column: Column) -> list[Flag]:
    """Runs that an arm's mean is without: those that came to nothing may be just these."""
    name, found = column.first[0].name, []
    for arm in (arm for arm in arms if arm.name in column.figures):
        having = {figure.run.id for figure in column.figures[arm.name]}
        lacking = [run.id for run in arm.runs if run.id not in having]
        if lacking:
            found.append(Flag(words=f"{name} of {arm.name} is without {', '.join(lacking)}", differs=False))
    return found


def _seeds(arms: Sequence[Arm]) -> list[Flag]:
    counts = {arm.name: len(arm.runs) for arm in arms}
    if max(counts.values()) == 1:
        return [Flag(words="one seed each: intervals are over examples, not over trainings", differs=False)]
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        return [Flag(words=f"unequal numbers of seeds: {said}", differs=False)]
    return []


def amount(value: Any) -> str:
    """A count or a time: whole numbers with commas, large and small ones in powers of ten."""
    if value >= 1e12 or 0 < value < 0.01:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _spread(values: Sequence[float]) -> float:
    return ratio_of(max(values), min(values))
