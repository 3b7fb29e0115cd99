"""The page of a comparison: the verdict first, then what is not fair, intervals, curves, facts, samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from remask.report import tables
from remask.report.arms import ArmView, arms_of, lettered, loss_panels, recipe_differences
from remask.report.costs import Cell, powers_of_ten, thousands
from remask.report.curves import BITS, trivial_of
from remask.report.estimates import compared_figures, difference_rows, figure_rows, forests, refusals
from remask.report.page import sample_of
from remask.report.reading import Record, RunFacts, mapping, named_numbers, number, read_run, text_or_none
from remask.report.rendering import check_place, render, write_page
from remask.report.sections import drawn, outside


def _first_letters(text: str) -> str:
    """Enough of a hash to tell it from others."""
    return text[:12]


_FACTS: Mapping[str, tuple[str, Any]] = {
    "recipe": ("recipe", str),
    "architecture": ("architecture", str),
    "objective": ("objective", str),
    "extra_losses": ("extra losses", None),
    "data": ("data", str),
    "data_hash": ("data’s hash", _first_letters),
    "tokenizer": ("tokenizer", str),
    "tokenizer_hash": ("tokenizer’s hash", _first_letters),
    "parameters": ("parameters", thousands),
    "active_parameters": ("parameters used for a token", thousands),
    "step": ("steps", thousands),
    "tokens_seen": ("tokens seen", thousands),
    "epochs": ("epochs", lambda value: f"{value:.3g}"),
    "flops_per_token": ("FLOPs a token, measured", powers_of_ten),
    "flops": ("FLOPs of training, measured", powers_of_ten),
    "seconds": ("training time", tables.duration),
    "tokens_per_second": ("tokens per second", thousands),
    "peak_memory_bytes": ("peak memory", tables.size),
    "device": ("device", str),
    "machine": ("machine", str),
    "git_commit": ("commit", _first_letters),
    "git_tag": ("tag", str),
    "git_dirty": ("uncommitted changes", None),
    "status": ("status", str),
}
"""Facts of arms in their order, with their words and how a value is written; None: as in a recipe."""
_NEVER_EQUAL = ("seconds", "tokens_per_second", "peak_memory_bytes")
"""Facts that differ from run to run in any case, and are not worth a mark."""


def write_comparison(comparison: Mapping[str, Any], folders: Sequence[Path], *, file: Path) -> None:
    """Writes the page of a comparison, in one step.

    Args:
        comparison: `remask.comparison.Comparison.to_json()`, or {"verdict": words} where nothing could be compared.
        folders: the folders of its runs, in any order; a run without one is told by the comparison alone.
        file: the page; its folder must exist.

    Raises:
        UserError: a folder holds no run, or `file` cannot be a file there.
        RunError: the disk is full or the folder is read-only; an older page is untouched.
    """
    check_place(file)
    write_page(file, render_comparison(comparison, [read_run(folder) for folder in folders]))


def render_comparison(comparison: Mapping[str, Any], runs: Sequence[RunFacts]) -> str:
    """The page as HTML, the same bytes for the same comparison and runs.

    Args:
        comparison: as for `write_comparison`.
        runs: what the runs left behind.
    """
    arms = arms_of(comparison, runs)
    return render("comparison.html", {"arms": arms, "titles": [arm.name for arm in arms]} | _context(comparison, arms))


def comparison_parts(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """What the figures of a comparison say, for any page that holds one; see `_comparison.html`."""
    arms = arms_of(comparison, [])
    return {"arms": arms} | _figures(comparison, arms)


def _context(comparison: Mapping[str, Any], arms: Sequence[ArmView]) -> dict[str, Any]:
    differing, alike = recipe_differences(arms)
    curves = loss_panels(arms)
    runs = [(arm, facts) for arm in arms for facts in arm.runs]
    return {
        **_figures(comparison, arms),
        "runs": [_run_row(arm, facts) for arm, facts in runs],
        "loss": drawn(curves, name="loss"),
        "loss_note": _loss_note(curves, arms),
        "facts": _fact_rows(arms),
        "samples": [(arm, sample_of(arm.runs[0].samples[0])) for arm in arms if arm.runs and arm.runs[0].samples],
        "recipe_rows": [(key, *((value, "words") for value in values)) for key, values in differing],
        "recipe_alike": alike,
        "complaints": [f"{facts.name}: {' '.join(facts.complaints)}" for _, facts in runs if facts.complaints],
    }


def _figures(comparison: Mapping[str, Any], arms: Sequence[ArmView]) -> dict[str, Any]:
    compared, refused = compared_figures(comparison)
    level = number(comparison.get("level")) or 0.95
    first, *rest = (text_or_none(comparison.get("verdict")) or "there is no verdict").split("; ")
    return {
        "verdict": first,
        "says": rest,
        "letters": [arm.letter for arm in arms],
        "comparable": bool(compared),
        "flags": [lettered(flag, arms) for flag in comparison.get("flags") or [] if isinstance(flag, str)],
        "percent": f"{100 * level:g}",
        "figure_rows": figure_rows(compared, arms),
        "protocols": _protocols(compared),
        "difference_rows": difference_rows(compared, arms, level=level),
        "refusals": refusals(refused, arms),
        "forests": [Markup(svg) for svg in forests(compared, arms)],
    }


def _protocols(figures: Sequence[Record]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(figures, keys and values), one for each protocol that some figures share."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for figure in figures:
        pairs = tuple(tables.flatten(mapping(figure.get("protocol"))).items())
        found.setdefault(pairs, []).append(str(figure.get("name")).replace("_", " "))
    return [
        (", ".join(dict.fromkeys(names)), [(key.replace("_", " "), text) for key, text in pairs])
        for pairs, names in found.items()
        if pairs
    ]


def _run_row(arm: ArmView, facts: RunFacts) -> tuple[Cell, ...]:
    record = facts.record
    status, verdict = text_or_none(record.get("status")) or "unknown", text_or_none(record.get("verdict")) or ""
    seed = record.get("seed")
    trivial = trivial_of(facts.metrics) or named_numbers(record.get("trivial"))
    headline = tables.headline_of(facts.evaluations, facts.metrics, trivial=trivial)
    own = "–"
    if headline is not None:
        unit = "" if headline.unit == BITS else f" {headline.unit}"
        own = f"{headline.value}{unit} {headline.where}"
    told = [(facts.name, "words"), "" if seed is None else str(seed), (status, "words")]
    return (arm.letter, *told, (own, "words wide"), (verdict, "words wide"))


def _fact_rows(arms: Sequence[ArmView]) -> list[tuple[Cell, ...]]:
    """A row a fact that any arm knows; those in which arms differ are marked."""
    rows: list[tuple[Cell, ...]] = []
    known = {key: [_fact(arm, key, form) for arm in arms] for key, (_, form) in _FACTS.items()}
    for key, (words, _) in _FACTS.items():
        values = known[key]
        if not any(values) or (key == "active_parameters" and values == known["parameters"]):
            continue
        differs = len(set(values)) > 1 and key not in _NEVER_EQUAL
        look = "words differs" if differs else "words"
        rows.append((f"≠ {words}" if differs else words, *((value or "–", look) for value in values)))
    return rows


def _fact(arm: ArmView, key: str, form: Any) -> str:
    """A fact in words: of the arm, else of its first run's record."""
    value = arm.facts.get(key, arm.runs[0].record.get(key) if arm.runs else None)
    if form is None:
        return tables.flatten({key: value}).get(key, "")
    if form in (str, _first_letters):
        return form(text_or_none(value) or "")
    found = number(value)
    return "" if found is None or found == 0 else form(found)


def _loss_note(panels: Sequence[Any], arms: Sequence[ArmView]) -> str:
    if not panels:
        return ""
    notes = ["One line a run, in the colour, dash and sign of its arm."]
    if any(panel.levels for panel in panels):
        notes.append("Dashed: trivial predictors, where all runs have the same.")
    elif any(facts.metrics for arm in arms for facts in arm.runs):
        notes.append(
            "Trivial predictors get other values for other texts or tokenizers, so no common line stands here."
        )
    return " ".join([*notes, outside(panels[:1])]).strip()
