"""What a comparison comes to, in sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from remask.comparison.arms import Arm
from remask.comparison.comparable import Figure
from remask.comparison.contrasts import Pair
from remask.comparison.directions import Better, beats, is_better, to_be_beaten
from remask.comparison.fairness import EQUAL, amount, equal_budgets, ratio_of
from remask.health.evidence import FLOORS as PLAIN
from remask.health.evidence import SPOKEN

FLOORS = ("uniform", *PLAIN)
"""Who does not beat all of them has not learned."""


def number(value: float) -> str:
    """Three decimals, or four figures where that would say too little or too much."""
    if value == 0:
        return "0"
    return f"{value:.3f}" if 0.01 <= abs(value) < 1000 else f"{value:.4g}"


def against_trivial(
    values: Mapping[str, tuple[float, float | None]], trivial: Mapping[str, Mapping[str, float]], *, way: Better
) -> list[str]:
    """Who does not beat what, where none or only some do: the easiest value that is not beaten by all.

    Args:
        values: value and standard error by arm.
        trivial: by arm, what trivial predictors get.
        way: which way is better.
    """
    shared = [to_be_beaten(trivial[arm]) for arm in values]
    references = {name: value for name, value in shared[0].items() if all(name in each for each in shared)}
    hardest_last = sorted(references, key=references.__getitem__, reverse=way == "lower")
    losers = {name: _losers(name, values, trivial, way=way) for name in hardest_last}
    floors = [name for name in hardest_last if name in FLOORS and losers[name]]
    found = [_unlearned(losers[floors[-1]], _spoken(floors[-1], losers[floors[-1]], trivial))] if floors else []
    for name in hardest_last:
        if len(losers[name]) == len(values) and name not in floors[-1:]:
            some = "neither" if len(values) == 2 else "none"
            return [*found, f"{some} beats {_spoken(name, losers[name], trivial)}"]
        if losers[name] and name not in FLOORS:
            found.append(f"{listed(losers[name])} {_do(losers[name])} not beat {_spoken(name, losers[name], trivial)}")
    return found


def spoken(name: str, *values: float) -> str:
    """A trivial predictor with its value, or with all that differ: `the byte trigram (2.965)`."""
    return f"{SPOKEN.get(name, f'the {name}')} ({listed(list(dict.fromkeys(map(number, values))))})"


def _spoken(name: str, arms: Sequence[str], trivial: Mapping[str, Mapping[str, float]]) -> str:
    return spoken(name, *(trivial[arm][name] for arm in arms))


def _losers(
    name: str,
    values: Mapping[str, tuple[float, float | None]],
    trivial: Mapping[str, Mapping[str, float]],
    *,
    way: Better,
) -> list[str]:
    """The arms that do not beat a trivial predictor."""
    return [arm for arm, (value, error) in values.items() if not beats(value, error, trivial[arm][name], way=way)]


def _unlearned(arms: Sequence[str], reference: str) -> str:
    return f"{listed(arms)} {'has' if len(arms) == 1 else 'have'} not learned: not better than {reference}"


def _do(arms: Sequence[str]) -> str:
    return "does" if len(arms) == 1 else "do"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one difference comes to.

    Attributes:
        words: a sentence.
        winner: the arm that is better, or None where that is not decided.
    """

    words: str
    winner: str | None = None


def verdict_of_pair(
    pair: Pair, *, figures: Mapping[str, Figure], way: Better | None, level: float, arms: Mapping[str, Arm]
) -> Verdict:
    """One difference in a sentence.

    Args:
        pair: the two arms and their difference.
        figures: by arm, one that tells name, unit, and whether it is an upper bound.
        way: which way is better, or None.
        level: of the intervals.
        arms: by name.
    """
    d, name, unit = pair.contrast.difference, figures[pair.arm].name, figures[pair.arm].unit
    if pair.contrast.stderr is None:
        return Verdict(words=f"no difference can be told: {_by(pair, d, unit)}, without a standard error")
    if pair.contrast.stderr == 0 and d == 0:
        return Verdict(words=f"{pair.arm} and {pair.against} are equal in {name}")
    if not pair.told_apart(level):
        shown = _interval(pair, level=level, flip=False)
        corrected = " after Holm's correction" if pair.contrast.p is not None and pair.contrast.p <= 1 - level else ""
        return Verdict(words=f"no difference can be told{corrected}: {_by(pair, d, unit)} ({shown})")
    size, shown = f"{number(abs(d))}{_spaced(unit)}", _interval(pair, level=level, flip=d < 0)
    if way is None:
        high, low = (pair.arm, pair.against) if d > 0 else (pair.against, pair.arm)
        words = f"{name} of {high} is {size} above that of {low} ({shown}); neither high nor low is better by itself"
        return Verdict(words=words)
    first = is_better(d, 0.0, way=way)
    winner, loser = (pair.arm, pair.against) if first else (pair.against, pair.arm)
    if way == "lower" and figures[loser].is_bound and not figures[winner].is_bound:
        words = f"not decided: {loser} has an upper bound that is {size} above the exact figure of {winner} ({shown})"
        return Verdict(words=words)
    bounds = ", both upper bounds" if figures[winner].is_bound and figures[loser].is_bound else ""
    clause = budget_clause(arms[winner], arms[loser])
    return Verdict(words=f"{winner} is better than {loser} by {size} ({shown}{bounds}){clause}", winner=winner)


def budget_clause(first: Arm, second: Arm) -> str:
    """`, at equal parameters and tokens`, or how many times as many the first had."""
    equal = equal_budgets([first, second])
    said = [f"at equal {listed(equal)}"] if equal else []
    for fact, word in {"parameters": "parameters", "tokens_seen": "tokens"}.items():
        a, b = first.number(fact), second.number(fact)
        if word not in equal and a and b and not 1 - EQUAL < ratio_of(a, b) < 1 + EQUAL:
            said.append(f"with {ratio_of(a, b):.3g} times the {word}")
    return f", {' but '.join(said)}" if said else ""


def verdict_of_arms(pairs: Sequence[Pair], verdicts: Sequence[Verdict], *, best: str, level: float) -> str:
    """Several arms in one sentence: what the best is told apart from."""
    if len(pairs) == 1:
        return verdicts[0].words
    with_best = [
        (pair, verdict) for pair, verdict in zip(pairs, verdicts, strict=True) if best in (pair.arm, pair.against)
    ]
    others = {pair.against if pair.arm == best else pair.arm: (pair, verdict) for pair, verdict in with_best}
    better = [other for other, (_, verdict) in others.items() if verdict.winner == best]
    undecided = [other for other, (pair, _) in others.items() if other not in better and pair.told_apart(level)]
    unclear = [other for other in others if other not in better and other not in undecided]
    said = f"{best} is better than {listed(better)}" if better else f"{best} has the best figure"
    if unclear:
        said += (
            f"; whether than {listed(unclear, last='or')} cannot be told"
            if better
            else (f", but it cannot be told from {listed(unclear, last='or')}")
        )
    if undecided:
        said += f"; not decided against {listed(undecided)}: an upper bound above an exact figure decides nothing"
    return f"{said} ({pair_count(pairs, level=level)})"


def pair_count(pairs: Sequence[Pair], *, level: float) -> str:
    """How the verdicts on several pairs hold together."""
    return f"{len(pairs)} pairs, Holm's correction, all verdicts hold together at {level:.4g}"


def facts_line(arm: Arm) -> str:
    """An arm in a line: runs, seeds, size, tokens."""
    seeds = ", ".join(map(str, arm.seeds))
    parts = [f"{len(arm.runs)} run{'s' if len(arm.runs) > 1 else ''} (seed{'s' if len(arm.runs) > 1 else ''} {seeds})"]
    numbers = (("parameters", "parameters"), ("tokens_seen", "tokens"), ("flops", "FLOPs"), ("seconds", "s"))
    parts += [f"{amount(value)} {word}" for fact, word in numbers if (value := arm.number(fact))]
    parts += [text for fact in ("data", "tokenizer") if (text := arm.text(fact))]
    return ", ".join(parts)


def _by(pair: Pair, difference: float, unit: str) -> str:
    return f"{pair.arm} − {pair.against} = {number(difference)}{_spaced(unit)}"


def _spaced(unit: str) -> str:
    return f" {unit}" if unit else ""


def _interval(pair: Pair, *, level: float, flip: bool) -> str:
    interval = pair.contrast.interval(level)
    if interval is None:
        return f"no interval: all alike, {pair.contrast.covers}"
    low, high = (-interval[1], -interval[0]) if flip else interval
    return f"{100 * level:.4g} % interval {number(low)} to {number(high)}, {pair.contrast.covers}"


def listed(names: Sequence[str], *, last: str = "and") -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
