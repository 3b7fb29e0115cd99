"""The parts of a run's page that its evaluations fill: one a task, with figures where a task has some."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from remask.report.canvas import PANEL, Layout
from remask.report.concepts import concept_panels, concept_sentences
from remask.report.curves import predictor_name
from remask.report.levels import level_panel, level_pivot, no_better_levels
from remask.report.panels import Panel, compact, panel_figure, panels_layout
from remask.report.reading import Record
from remask.report.settings import (
    Pivot,
    latest_of,
    pivot_of,
    step_panels,
)
from remask.report.tables import Table, table_of
from remask.report.thoughts import other_figures, thought_panels, thought_pivot, thought_sentences

_HEADINGS = {
    "likelihood": "Likelihood",
    "exact-likelihood": "Exact likelihood of named samplers",
    "levels": "Loss by noise level",
    "concepts": "Concepts",
    "thought": "Thought",
    "quality": "Sample quality",
    "reconstruction": "Reconstruction",
    "judged": "Judged by another model",
    "mauve": "Distance to held-out text",
    "answers": "Answers",
    "steps": "Steps, quality and latency",
}
"""Tasks that are known, in the order in which they stand; any other follows under its own name."""
_MISSING = {
    "likelihood": "The run has not been evaluated for likelihood yet (remask evaluate does it).",
    "quality": "The samples have not been evaluated yet (remask evaluate does it).",
    "reconstruction": "The finished model has not been judged on held-out text yet (remask evaluate does it).",
}
"""What is said of a task that nobody carried out; a task that is not here is left out."""
_INSTEAD = {"quality": "answers"}
"""A task → the one that takes its place for models of prompts."""
DUE = ("likelihood", "quality")
"""Tasks of every model that gives text a likelihood."""
DUE_WITHOUT_LIKELIHOOD = ("reconstruction",)
"""Those of one that gives it none, and draws no text."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """The part of a page that belongs to one task.

    Attributes:
        heading: in words.
        svgs: its figures.
        note: the caption below them.
        table: its measurements, a row each, or None.
        pivot: the same with a row a setting, or None.
        rest: measurements that have no setting, below the pivot, or None.
        missing: what is said where there is no measurement.
    """

    heading: str
    svgs: tuple[Markup, ...] = ()
    note: str = ""
    table: Table | None = None
    pivot: Pivot | None = None
    rest: Table | None = None
    missing: str = ""


def sections_of(evaluations: Sequence[Record], *, due: Sequence[str] = DUE) -> list[Section]:
    """A section for each task of a run's evaluations, known tasks first.

    Args:
        evaluations: lines of evaluations.jsonl.
        due: tasks that are missed where nobody carried them out.
    """
    tasks = [str(record.get("task")) for record in evaluations]
    due = [task for task in due if _INSTEAD.get(task) not in tasks]
    ordered = [task for task in _HEADINGS if task in tasks or task in due]
    ordered += sorted(set(tasks) - set(_HEADINGS))
    return [_BUILDERS.get(task, _plain)(task, evaluations) for task in ordered]


def _plain(task: str, evaluations: Sequence[Record]) -> Section:
    heading = _HEADINGS.get(task, task.replace("_", " ").capitalize())
    return Section(heading=heading, table=table_of(evaluations, task=task), missing=_MISSING.get(task, ""))


def _levels(task: str, evaluations: Sequence[Record]) -> Section:
    panel, flat = level_panel(evaluations), no_better_levels(evaluations)
    note = (
        "What the bound’s diffusion term loses at each level of noise, beside what predictors without any context lose "
        "there; the mean over the levels is that term. Bars: one standard error."
    )
    warning = f" No better than the unigram at t = {', '.join(flat)}: an average over levels hides that."
    return Section(
        heading=_HEADINGS[task],
        svgs=drawn([panel] if panel else [], name=task),
        note=note + (warning if flat else ""),
        pivot=level_pivot(evaluations),
        table=table_of(evaluations, task=task),
    )


def _steps(task: str, evaluations: Sequence[Record]) -> Section:
    rows = latest_of(evaluations, task=task)
    panels = step_panels(rows)
    return Section(
        heading=_HEADINGS[task],
        svgs=drawn(panels, name=task),
        note=f"Dashed: {_beside(rows)}. Bars: one standard error. {outside(panels)}".strip(),
        table=table_of(rows, task=task),
        pivot=pivot_of(rows, by="steps"),
    )


def _beside(rows: Sequence[Record]) -> str:
    """What stands beside the figures of steps."""
    answers = any(str(row.get("name")).startswith("accuracy_") for row in rows)
    return "who answers without a network" if answers else "held-out text, measured alike"


def _concepts(task: str, evaluations: Sequence[Record]) -> Section:
    panels = concept_panels(evaluations)
    note = " ".join([*concept_sentences(evaluations), *(["Bars: one standard error."] if panels else [])])
    return Section(
        heading=_HEADINGS[task],
        svgs=drawn(panels, name=task),
        note=f"{note} {outside(panels)}".strip(),
        table=table_of(evaluations, task=task),
    )


def _thought(task: str, evaluations: Sequence[Record]) -> Section:
    panels = thought_panels(evaluations)
    note = (
        "Skill 0 is what the best multiple of the noisy vector gets without having learned anything. Nearest vector: "
        "the token whose vector lies nearest to the noisy one. Bars: one standard error."
    )
    return Section(
        heading=_HEADINGS[task],
        svgs=drawn(panels, name=task),
        note=" ".join([*thought_sentences(evaluations), *([note] if panels else []), outside(panels)]).strip(),
        pivot=thought_pivot(evaluations),
        rest=table_of(other_figures(evaluations), task=task),
        table=table_of(evaluations, task=task),
    )


_BUILDERS: Mapping[str, Callable[[str, Sequence[Record]], Section]] = {
    "levels": _levels,
    "steps": _steps,
    "concepts": _concepts,
    "thought": _thought,
}


def drawn(panels: Iterable[Panel], *, name: str, layout: Layout = PANEL) -> tuple[Markup, ...]:
    """Panels as figures whose names are unlike those of any other part of the page."""
    panels = list(panels)
    layout = panels_layout(panels, layout)
    return tuple(Markup(panel_figure(panel, name=f"{name}-{k}", layout=layout)) for k, panel in enumerate(panels))


def outside(panels: Iterable[Panel]) -> str:
    """The levels that lie too far away to be drawn, in one sentence; empty where there are none."""
    far = [
        f"{predictor_name(name)} ({panel.title}: {compact(value)})" for panel in panels for name, value in panel.outside
    ]
    return f"Outside the frame: {'; '.join(far)}." if far else ""
