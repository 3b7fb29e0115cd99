"""Which figures of a run or an evaluation the log shows, and how: each beside trivial values, the best marked."""

from collections.abc import Iterable, Iterator, Sequence

from remask.comparison.comparable import Figure, groups
from remask.comparison.directions import better, is_better, to_be_beaten
from remask.comparison.words import number
from remask.logbook.markdown import Cell, Piece

_KEY = (
    *("answers_right", "accuracy", "f1", "matthews", "pearson", "spearman"),
    *("mauve", "judged_perplexity", "entropy", "word_share"),
)
"""The figures of a task that are shown, where it has any of them; else its first."""
_KEY_OF_TASK = {
    "likelihood": ("bits_per_byte",),
    "exact-likelihood": ("exact_bits_per_byte",),
    "quality": ("word_share", "repetition"),
}
_SERIES = ("levels", "steps")
"""Tasks that measure a name at many settings."""
_BESIDE = ("unigram", "byte 2-gram")
_BESIDE_OTHERS = 2


def best_of(figures: Sequence[Figure]) -> tuple[set[int], int]:
    """The ids of the figures that are best of a group of comparable ones, and how many such groups there are.

    A group is of two models or more: the same weights judged twice are no competition.
    """
    best: set[int] = set()
    compared = 0
    judged = [figure for figure in figures if better(figure.name) is not None and figure.value is not None]
    for group in groups(judged):
        if len({_weights(figure) for figure in group}) < 2:
            continue
        compared += 1
        way = better(group[0].name)
        assert way is not None
        values = [figure.value for figure in group if figure.value is not None]
        top = min(values) if way == "lower" else max(values)
        best |= {id(figure) for figure in group if not is_better(top, figure.value or 0.0, way=way)}
    return best, compared


def _weights(figure: Figure) -> tuple[str, int]:
    """Whose they are, and after how many steps."""
    step = figure.evaluation.step if figure.evaluation else None
    return figure.run.id, figure.run.step if step is None else step


def key_figures(figures: Iterable[Figure]) -> list[Figure]:
    """The newest figure of each of the names that are shown; `figures` come oldest first."""
    by_task: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        by_task.setdefault(figure.task, {})[figure.name] = figure
    found = []
    for task, named in by_task.items():
        if task in _SERIES:
            continue
        wanted = _KEY_OF_TASK.get(task, _KEY)
        shown = [named[name] for name in wanted if name in named]
        found += shown or list(named.values())[:1]
    return found


def series(figures: Iterable[Figure]) -> list[list[Figure]]:
    """The figures of one name at several settings, for tasks that make such."""
    by_name: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        if figure.task in _SERIES:
            by_name.setdefault((figure.task, figure.name), []).append(figure)
    return list(by_name.values())


def score(figure: Figure, *, bold: bool, named: bool = True) -> Cell:
    """A figure with its name, whether it is a bound, and what trivial predictors get."""
    value = "none" if figure.value is None else number(figure.value)
    lead = f"{figure.name} " if named else ""
    unit = f" {figure.unit}" if figure.unit and figure.unit != "share" else ""
    beside = _beside(figure)
    return [
        Piece(text=f"{lead}{'≤ ' if figure.is_bound else ''}"),
        Piece(text=value, bold=bold),
        Piece(text=f"{unit}{f' ({beside})' if beside else ''}"),
    ]


def range_of(figures: Sequence[Figure]) -> Cell:
    """A name's figures at several settings: the first and the last."""
    ends = [figures[0], figures[-1]]
    values = [number(figure.value) if figure.value is not None else "none" for figure in ends]
    first, last = ends[0].protocol, ends[1].protocol
    varied = [key for key in first if key in last and first[key] != last[key]]
    said = [f"{varied[0]} {first[varied[0]]} to {last[varied[0]]}"] if varied else []
    beside = [f"{name} {number(value)} to {number(end)}" for name, value, end in _beside_ends(*ends)]
    at = f" ({'; '.join([*said, *beside])})" if said or beside else ""
    return [Piece(text=f"{figures[0].name} {' to '.join(values)}{at}")]


def _beside_ends(first: Figure, last: Figure) -> list[tuple[str, float, float]]:
    """What a goal and the hardest trivial predictor get at both ends."""
    shared = {name: value for name, value in first.trivial.items() if name in last.trivial}
    return [(name, shared[name], last.trivial[name]) for name in _telling(shared, figure=first)]


def joined(cells: Iterable[Cell]) -> list[Piece]:
    """Cells one after the other, with commas between them."""
    return list(_separated(cell for cell in cells if cell))


def _separated(cells: Iterable[Cell]) -> Iterator[Piece]:
    for place, cell in enumerate(cells):
        if place:
            yield Piece(text="; ")
        yield from cell


def beside_headline(trivial: dict[str, float]) -> str:
    """The token unigram and the byte bigram, or whatever else there is."""
    names = [name for name in _BESIDE if name in trivial] or list(trivial)[:_BESIDE_OTHERS]
    return ", ".join(f"{name.removeprefix('byte ')} {number(trivial[name])}" for name in names)


def _beside(figure: Figure) -> str:
    trivial = figure.trivial
    if any(name in trivial for name in _BESIDE):
        return beside_headline(trivial)
    return ", ".join(f"{name} {number(trivial[name])}" for name in _telling(trivial, figure=figure))


def _telling(trivial: dict[str, float], *, figure: Figure) -> list[str]:
    """A goal and the trivial predictor that is hardest to beat, where there are such."""
    beaten = to_be_beaten(trivial)
    hardest = sorted(beaten, key=beaten.__getitem__, reverse=better(figure.name) == "higher")[:1]
    return [*[name for name in trivial if name not in beaten][:1], *hardest]
