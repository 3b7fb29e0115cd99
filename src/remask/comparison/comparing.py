"""`compare_runs`: the fair comparison of runs, from records alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remask.comparison import fairness, words
from remask.comparison.arms import Arm, arms_of
from remask.comparison.comparable import Figure, differences
from remask.comparison.contrasts import ExamplesOf, Pair, pairs_of
from remask.comparison.directions import Better, better, is_better
from remask.comparison.selection import Column, columns, newest
from remask.comparison.statistics import Contrast, mean_and_error
from remask.errors import UserError, did_you_mean
from remask.runs.record import RunRecord

if TYPE_CHECKING:
    from remask.runs.registry import Registry

_FIRST = ("bits_per_byte", "answers_right", "accuracy", "mauve", "nats_per_token", "exact_bits_per_byte")
"""Figures that a verdict is about, the first that is there."""
_MADE_OF = {"perplexity": "nats_per_token", "exact_perplexity": "exact_nats_per_token"}
"""Figures whose examples are those of another one."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One column of the comparison with its differences.

    Attributes:
        column: the figures.
        pairs: the differences of its arms; none where the figures are not comparable.
        verdicts: one a pair.
    """

    column: Column
    pairs: Sequence[Pair]
    verdicts: Sequence[words.Verdict]

    @property
    def shown(self) -> Figure:
        """A figure that tells name, task and unit of all of them."""
        return self.column.first[0]

    @property
    def way(self) -> Better | None:
        """Which way is better."""
        return better(self.shown.name)

    def value(self, arm: str) -> tuple[float, float | None]:
        """An arm's mean and its standard error, over seeds where it has several, else over examples."""
        figures = self.column.figures[arm]
        mean, error = mean_and_error([figure.value for figure in figures if figure.value is not None])
        return (mean, figures[0].stderr) if len(figures) == 1 else (mean, error)

    @property
    def best(self) -> str | None:
        """The arm with the best mean, where there is a best and the figures are comparable."""
        if not self.column.comparable or self.way is None:
            return None
        best, *others = self.column.figures
        for other in others:
            if is_better(self.value(other)[0], self.value(best)[0], way=self.way):
                best = other
        return best


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs beside each other.

    Attributes:
        arms: in the order given.
        compared: what all or several arms have, comparable or not.
        flags: what makes the comparison less than fair.
        said: what is to be said of the arms themselves, in words.
        verdict: what it comes to.
        level: of all intervals.
    """

    arms: Sequence[Arm]
    compared: Sequence[Compared]
    flags: Sequence[fairness.Flag]
    said: Sequence[str]
    verdict: str
    level: float

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain JSON values; docs/laboratory.md describes the keys."""
        return {
            "level": self.level,
            "verdict": self.verdict,
            "arms": [arm.to_json() for arm in self.arms],
            "figures": [_figure_json(each, self.arms, self.level) for each in self.compared],
            "flags": [*self.said, *(flag.words for flag in self.flags)],
        }


def compare_runs(
    registry: "Registry",
    records: Sequence[RunRecord],
    *,
    metrics: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    level: float = 0.95,
    names: Mapping[str, str] | None = None,
) -> Comparison:
    """Compares runs by their newest measurements.

    Args:
        registry: holds them.
        records: two or more runs, each once.
        metrics: names of the figures to compare; None: all that there are.
        tasks: tasks whose figures to compare; None: all.
        level: of the intervals, above 0 and below 1.
        names: what to call the arms, by the id of one of their runs.

    Raises:
        UserError: fewer than two runs, or than two with evaluations, one given twice, an unknown metric or task, or
            nothing that can be compared, naming what differs.
    """
    if not 0 < level < 1:
        raise UserError(f"--level {level}: give a share above 0 and below 1, e.g. 0.95")
    arms, said = arms_of(records, names=names)
    measured = _figures(registry, records)
    said += _left_out(records, measured)
    figures = newest(_wanted(measured, metrics=metrics, tasks=tasks))
    said += [f"{figure.name} of {figure.run.id} is not finite" for figure in figures if figure.value is None]
    found = columns(arms, figures)
    by_name = {arm.name: arm for arm in arms}
    look_up = _examples(registry)
    compared = [_compared(column, by_name, examples_of=look_up, level=level) for column in found]
    compared.sort(key=_importance)
    if not any(each.column.comparable for each in compared):
        raise UserError("; ".join([_refusal(arms, compared), *said]))
    comparable = [each.column for each in compared if each.column.comparable]
    flags = fairness.flags(arms, comparable, alarms=_alarms(registry, records))
    verdict = _verdict(compared, arms, level=level)
    return Comparison(arms=arms, compared=compared, flags=flags, said=said, verdict=verdict, level=level)


def refuse_unfair(comparison: Comparison) -> None:
    """Takes every flagged difference for a reason to refuse.

    Raises:
        UserError: the setups differ in something other than what they are compared in, naming all of it.
    """
    differing = [flag.words for flag in comparison.flags if flag.differs]
    if differing:
        raise UserError(f"not a fair comparison: {'; '.join(differing)}")


# -- what there is ------------------------------------------------------------------------------------


def _figures(registry: "Registry", records: Sequence[RunRecord]) -> list[Figure]:
    """All measurements of the runs, oldest first within a run."""
    found = []
    for run in records:
        rows, evaluations = registry.figures(run.id)
        known = {record.id: record for record in evaluations}
        found += [Figure(run=run, row=row, evaluation=known.get(str(row.get("evaluation")))) for row in rows]
    return found


def _left_out(records: Sequence[RunRecord], figures: Sequence[Figure]) -> list[str]:
    """What is said of runs without a figure, where two others have some."""
    evaluated = {figure.run.id for figure in figures}
    bare = [run.id for run in records if run.id not in evaluated]
    if bare and len(evaluated) < 2:
        raise UserError(f"run {bare[0]} has no evaluations to compare: run `remask evaluate {bare[0]}` first")
    return [f"{run} is left out: it has no evaluations (`remask evaluate {run}`)" for run in bare]


def _wanted(figures: Sequence[Figure], *, metrics: Sequence[str] | None, tasks: Sequence[str] | None) -> list[Figure]:
    for word, given, valid in (
        ("--metric", metrics, {figure.name for figure in figures}),
        ("--task", tasks, {figure.task for figure in figures}),
    ):
        for name in given or ():
            if name not in valid:
                raise UserError(f"{word} {name}: none of these runs has it; {did_you_mean(name, valid)}")
    return [
        figure for figure in figures if (not metrics or figure.name in metrics) and (not tasks or figure.task in tasks)
    ]


def _examples(registry: "Registry") -> ExamplesOf:
    """Looks up what each example added to a figure; a perplexity is made of the nats a token of the same evaluation."""
    kept: dict[tuple[str, str], Mapping[str, Any]] = {}

    def look_up(figure: Figure) -> Mapping[str, Any] | None:
        evaluation = figure.row.get("evaluation")
        if evaluation is None:
            return None
        key = (figure.run.id, str(evaluation))
        if key not in kept:
            kept[key] = registry.examples(*key)
        return kept[key].get(_MADE_OF.get(figure.name, figure.name))

    return look_up


def _alarms(registry: "Registry", records: Iterable[RunRecord]) -> dict[str, list[str]]:
    return {
        run.id: [str(line.get("name")) for line in registry.folder_of(run).metrics() if line.get("kind") == "alarm"]
        for run in records
    }


# -- what it comes to ---------------------------------------------------------------------------------


def _compared(column: Column, arms: Mapping[str, Arm], *, examples_of: ExamplesOf, level: float) -> Compared:
    if not column.comparable:
        return Compared(column=column, pairs=(), verdicts=())
    pairs = pairs_of(column.figures, examples_of=examples_of)
    shown = {name: figures[0] for name, figures in column.figures.items()}
    way = better(column.first[0].name)
    verdicts = [words.verdict_of_pair(pair, figures=shown, way=way, level=level, arms=arms) for pair in pairs]
    return Compared(column=column, pairs=pairs, verdicts=verdicts)


def _importance(each: Compared) -> tuple[bool, int, bool, int]:
    """Comparable figures first, of those the ones that a verdict is about, and of one name those of most arms."""
    name = each.shown.name
    rank = _FIRST.index(name) if name in _FIRST else len(_FIRST)
    return (not each.column.comparable, rank, each.way is None, -len(each.column.figures))


def _verdict(compared: Sequence[Compared], arms: Sequence[Arm], *, level: float) -> str:
    """Who beats nothing first, then who is better in the most telling figure, then what could not be compared."""
    main = compared[0]
    name, sentences = main.shown.name, []
    if main.way is not None:
        values = {arm: main.value(arm) for arm in main.column.figures}
        beside = {arm: figures[0].trivial for arm, figures in main.column.figures.items()}
        sentences += words.against_trivial(values, beside, way=main.way)
    if main.best is None:
        sentences += [verdict.words for verdict in main.verdicts]
    else:
        sentences.append(words.verdict_of_arms(main.pairs, main.verdicts, best=main.best, level=level))
    missing = [arm.name for arm in arms if arm.name not in main.column.figures]
    apart = [each for each in compared if each.column.comparable and each.shown.name == name]
    elsewhere = [arm for arm in missing if any(arm in each.column.figures for each in apart)]
    if nowhere := [arm for arm in missing if arm not in elsewhere]:
        sentences.append(f"{words.listed(nowhere)} cannot be compared in {name}")
    if elsewhere:
        sentences.append(f"{words.listed(elsewhere)} can be compared in {name} of another protocol alone")
    return "; ".join(sentences)


def _refusal(arms: Sequence[Arm], compared: Sequence[Compared]) -> str:
    names = words.listed([arm.name for arm in arms])
    if not compared:
        return (
            f"{names} cannot be compared: they have no figure in common. Run `remask evaluate` on each with one --task"
        )
    reasons: dict[str, list[str]] = {}
    for each in compared:
        said = "; ".join(difference.of(list(each.column.figures)) for difference in differences(each.column.first))
        reasons.setdefault(said, []).append(each.shown.name)
    told = [f"in {', '.join(dict.fromkeys(figures))} they differ in {said}" for said, figures in reasons.items()]
    return f"{names} cannot be compared: {' | '.join(told)}"


# -- as JSON ------------------------------------------------------------------------------------------


def _figure_json(each: Compared, arms: Sequence[Arm], level: float) -> dict[str, Any]:
    column, shown = each.column, each.shown
    differ = [] if column.comparable else [difference.to_json() for difference in differences(column.first)]
    shared = {
        key: value
        for key, value in shown.protocol.items()
        if all(key in figure.protocol and figure.protocol[key] == value for figure in column.first)
    }
    pairs = zip(each.pairs, each.verdicts, strict=True)
    return {
        "task": shown.task,
        "name": shown.name,
        "unit": shown.unit,
        "better": each.way,
        "arms": list(column.figures),
        "values": [_value_json(each, arm.name) for arm in arms],
        "protocol": shared,
        "differences": [_pair_json(pair, verdict, level) for pair, verdict in pairs],
        "differs": differ,
        "flags": [flag.words for flag in fairness.of_column(column)] if column.comparable else [],
        "comparable": column.comparable,
    }


def _value_json(each: Compared, arm: str) -> dict[str, Any] | None:
    if arm not in each.column.figures:
        return None
    figures = each.column.figures[arm]
    mean, error = each.value(arm)
    over = "seeds" if len(figures) > 1 else "examples"
    return {
        "arm": arm,
        "mean": mean,
        "stderr": error,
        "over": None if error is None else over,
        "n": len(figures) if len(figures) > 1 else figures[0].row.get("n"),
        "per_run": [figure.value for figure in figures],
        "runs": [figure.run.id for figure in figures],
        "bound": figures[0].is_bound,
        "trivial": figures[0].trivial,
        "protocol": dict(figures[0].protocol),
        "best": arm == each.best,
    }


def _pair_json(pair: Pair, verdict: words.Verdict, level: float) -> dict[str, Any]:
    return {
        "arm": pair.arm,
        "against": pair.against,
        **_contrast_json(pair.contrast, level),
        "p_adjusted": pair.p_adjusted,
        "paired_by_seed": None if pair.by_seed is None else _contrast_json(pair.by_seed, level),
        "winner": verdict.winner,
        "verdict": verdict.words,
    }


def _contrast_json(contrast: Contrast, level: float) -> dict[str, Any]:
    interval = contrast.interval(level)
    return {
        "difference": contrast.difference,
        "stderr": contrast.stderr,
        "interval": None if interval is None else list(interval),
        "df": contrast.df if contrast.df != float("inf") else None,
        "p": contrast.p,
        "method": contrast.method,
        "covers": contrast.covers,
    }
