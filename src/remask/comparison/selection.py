"""Which measurements of the arms stand beside each other."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from remask.comparison.arms import Arm
from remask.comparison.comparable import Figure, cut, groups, way

Chosen = Mapping[str, Sequence[Figure]]
"""Arm's name → its figures, one a run that has it."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """Figures of several arms that stand beside each other.

    Attributes:
        figures: by arm, one a run; arms without the figure are left out.
        comparable: whether they are the same quantity.
    """

    figures: Chosen
    comparable: bool

    @property
    def first(self) -> list[Figure]:
        """One figure an arm."""
        return [figures[0] for figures in self.figures.values()]


def newest(figures: Iterable[Figure]) -> list[Figure]:
    """The newest of each run's figures of one name under one protocol; `figures` come oldest first."""
    found: dict[str, Figure] = {}
    for figure in figures:
        protocol = {key: value for key, value in figure.protocol.items() if key != "seed"}
        key = json.dumps([figure.run.id, figure.task, figure.name, protocol], sort_keys=True, default=str)
        found.pop(key, None)  # so that the order is that of the newest
        found[key] = figure
    return list(found.values())


def columns(arms: Sequence[Arm], figures: Sequence[Figure]) -> list[Column]:
    """All that can stand beside each other, by task and name; then what cannot, though several arms have it.

    Args:
        arms: at least two.
        figures: from `newest`; those without a finite value, or of runs of no arm, are passed over.
    """
    owner = {run.id: arm.name for arm in arms for run in arm.runs}
    names: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        if figure.value is None or figure.run.id not in owner:
            continue
        names.setdefault((figure.task, figure.name), []).append(figure)
    found = []
    for same_name in names.values():
        found += _columns_of_name(same_name, owner, [arm.name for arm in arms])
    return sorted(found, key=lambda column: not column.comparable)


def _columns_of_name(figures: Sequence[Figure], owner: Mapping[str, str], order: Sequence[str]) -> list[Column]:
    found = [column for group in groups(figures) for column in _columns_of_group(group, owner, order)]
    together = {(a, b) for column in found for a in column.figures for b in column.figures}
    having = [name for name in order if any(owner[figure.run.id] == name for figure in figures)]
    apart = [a for a in having if any((a, b) not in together for b in having)]
    if len(apart) > 1:
        last = {name: [_of_arm(figures, owner, name)[-1]] for name in apart}
        found.append(Column(figures=last, comparable=False))
    return found


def _columns_of_group(group: Sequence[Figure], owner: Mapping[str, str], order: Sequence[str]) -> list[Column]:
    """One column for each way that all arms have; without such a way, one of each arm's commonest and newest.

    So twenty steps of one model stand beside twenty of another, where both were judged at several numbers of steps.
    """
    by_arm = {name: own for name in order if (own := _of_arm(group, owner, name))}
    if len(by_arm) < 2:
        return []
    ways = {name: {_way_key(figure): None for figure in own} for name, own in by_arm.items()}
    counts: dict[str, int] = {}
    for own in ways.values():
        for key in own:
            counts[key] = counts.get(key, 0) + 1
    shared = [key for key, count in counts.items() if count == len(by_arm)]
    if shared:
        return [
            Column(figures={name: _by_run(own, key) for name, own in by_arm.items()}, comparable=True) for key in shared
        ]
    chosen = {}
    for name, own in by_arm.items():
        most = max(counts[_way_key(figure)] for figure in own)
        key = [_way_key(figure) for figure in own if counts[_way_key(figure)] == most][-1]
        chosen[name] = _by_run(own, key)
    return [Column(figures=chosen, comparable=True)]


def _of_arm(figures: Sequence[Figure], owner: Mapping[str, str], name: str) -> list[Figure]:
    return [figure for figure in figures if owner[figure.run.id] == name]


def _by_run(figures: Sequence[Figure], key: str) -> list[Figure]:
    """The newest figure that was come by in this way, of each run."""
    return list({figure.run.id: figure for figure in figures if _way_key(figure) == key}.values())


def _way_key(figure: Figure) -> str:
    return json.dumps([way(figure), cut(figure)], sort_keys=True, default=str)
