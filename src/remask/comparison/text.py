"""A comparison as lines of plain text."""

from collections.abc import Sequence

from remask.comparison.comparable import differences, in_words
from remask.comparison.comparing import Compared, Comparison
from remask.comparison.directions import to_be_beaten
from remask.comparison.words import facts_line, number

_IMPLIED_BY = {"sampler": "reveal", "network_calls": "steps"}
"""Keys of a protocol that another says as well: one sampler alone has orders of revealing, and its calls are steps."""
_SAID_TRIVIAL = 3  # trivial values beside a figure in the terminal; JSON has all


def comparison_lines(comparison: Comparison) -> list[str]:
    """Verdict first, then arms, figures, differences, what is not fair, and what cannot be compared."""
    lines = [comparison.verdict, "", "arms"]
    width = max(len(arm.name) for arm in comparison.arms)
    lines += [f"  {arm.name:<{width}}  {facts_line(arm)}" for arm in comparison.arms]
    lines += [f"  {said}" for said in comparison.said]
    comparable = [each for each in comparison.compared if each.column.comparable]
    lines += ["", *_figure_table(comparable, [arm.name for arm in comparison.arms], level=comparison.level)]
    lines += ["", *_differences(comparable, level=comparison.level)]
    if comparison.flags:
        lines += ["", "what is not equal, or not sure"]
        lines += [f"  {flag.words}" for flag in comparison.flags]
    refused = [each for each in comparison.compared if not each.column.comparable]
    if refused:
        lines += ["", "not compared, because these are different quantities"]
        lines += _refused(refused)
    return lines


def labels(compared: Sequence[Compared]) -> list[str]:
    """The name of each figure, with those keys of its protocol that tell it from others of its name."""
    found = []
    for each in compared:
        same = [other for other in compared if other.shown.name == each.shown.name]
        keys = [key for key in each.shown.protocol if len({in_words(o.shown.protocol.get(key)) for o in same}) > 1]
        tasks = {other.shown.task for other in same}
        said = [f"{k}={in_words(each.shown.protocol[k])}" for k in keys if _IMPLIED_BY.get(k) not in keys]
        said = [each.shown.task, *said] if len(tasks) > 1 else said
        found.append(f"{each.shown.name} ({', '.join(said)})" if said else each.shown.name)
    return found


def _figure_table(compared: Sequence[Compared], arms: Sequence[str], *, level: float) -> list[str]:
    del level
    rows = [["figure", "unit", *arms, "beside it"]]
    for each, label in zip(compared, labels(compared), strict=True):
        rows.append([label, each.shown.unit, *(_cell(each, arm) for arm in arms), _trivial(each)])
    marks = "* best of figures that compare; ± standard error (over seeds where there are several); ≤ an upper bound"
    return [*_aligned(rows, left={0, 1, len(arms) + 2}), f"  {marks}"]


def _cell(each: Compared, arm: str) -> str:
    if arm not in each.column.figures:
        return "–"
    mean, error = each.value(arm)
    bound = "≤ " if each.column.figures[arm][0].is_bound else ""
    best = "*" if arm == each.best else ""
    return f"{best}{bound}{number(mean)}" + ("" if error is None else f" ± {number(error)}")


def _trivial(each: Compared) -> str:
    """The hardest trivial values, and what text of people gets; `0.310 to 0.330` where those of the arms differ."""
    trivial = each.shown.trivial
    beaten = to_be_beaten(trivial)
    hardest = sorted(beaten, key=beaten.__getitem__, reverse=each.way == "higher")[:_SAID_TRIVIAL]
    names = [*(name for name in trivial if name not in beaten), *hardest]
    return ", ".join(f"{name} {_spread([figure.trivial.get(name) for figure in each.column.first])}" for name in names)


def _spread(values: Sequence[float | None]) -> str:
    known = sorted(value for value in values if value is not None)
    return " to ".join(dict.fromkeys(number(value) for value in (known[0], known[-1])))


def _differences(compared: Sequence[Compared], *, level: float) -> list[str]:
    rows = [["difference", "", "value", f"{100 * level:.4g} % interval", "over what", "verdict"]]
    several = 0
    telling = any(each.way is not None for each in compared)
    for each, label in zip(compared, labels(compared), strict=True):
        if telling and each.way is None:
            continue
        several = max(several, len(each.pairs))
        for pair, verdict in zip(each.pairs, each.verdicts, strict=True):
            interval = pair.contrast.interval(level)
            reach = "–" if interval is None else f"{number(interval[0])} to {number(interval[1])}"
            value = number(pair.contrast.difference)
            short = f"{verdict.winner} is better" if verdict.winner else verdict.words.partition(":")[0]
            short = "differs" if each.way is None and pair.told_apart(level) else short
            who = f"{pair.arm} − {pair.against}"
            rows.append([label, who, value, reach, pair.contrast.covers, short])
            if pair.by_seed is not None:
                seeds = pair.by_seed.interval(level)
                reach = "–" if seeds is None else f"{number(seeds[0])} to {number(seeds[1])}"
                rows.append(["", "", number(pair.by_seed.difference), reach, pair.by_seed.covers, ""])
    lines = _aligned(rows, left={0, 1, 4, 5})
    if telling and any(each.way is None for each in compared):
        lines.append("  figures of which neither side is better are left out here; --json has their differences")
    if several > 1:
        lines.append(f"  verdicts of one figure: {several} pairs, Holm's correction; each interval stands for itself")
    return lines


def _refused(refused: Sequence[Compared]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for each in refused:
        said = "; ".join(difference.of(list(each.column.figures)) for difference in differences(each.column.first))
        reasons.setdefault(said, []).append(each.shown.name)
    return [f"  {', '.join(dict.fromkeys(names))}: {said}" for said, names in reasons.items()]


def _aligned(rows: Sequence[Sequence[str]], *, left: set[int]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
