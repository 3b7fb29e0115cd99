"""The page of a study: what its trials come to, then each varied key, curves, costs, and all trials in a table."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from remask.report import tables
from remask.report.canvas import PANEL
from remask.report.comparison_page import comparison_parts
from remask.report.costs import Cell, powers_of_ten, thousands
from remask.report.reading import Record, mapping, named_numbers, number, text_or_none, whole
from remask.report.rendering import check_place, render, write_page
from remask.report.sections import drawn, outside
from remask.report.trials import Trial, cost_panels, curve_panel, key_panels, trials_of

_KINDS = {
    "sweep": "sweep",
    "component": "ablation of components",
    "size": "ablation of sizes",
    "experts": "experts against dense networks",
    "matched": "pair at matched cost",
}
_RATIOS = {"flops": "FLOPs", "seconds": "time", "active_parameters": "parameters used for a token"}
_CURVES = replace(PANEL, height=4.4)
_COST_COLUMNS: Mapping[str, tuple[str, Any]] = {
    "parameters": ("parameters", thousands),
    "active_parameters": ("used for a token", thousands),
    "tokens_seen": ("tokens", thousands),
    "steps": ("steps", thousands),
    "flops": ("FLOPs", powers_of_ten),
    "flops_per_token_measured": ("FLOPs a token, measured", powers_of_ten),
    "flops_per_token_analytic": ("FLOPs a token, analytic", powers_of_ten),
    "seconds": ("time", tables.duration),
}


def write_study(study: Mapping[str, Any], *, file: Path) -> None:
    """Writes the page of a study, in one step.

    Args:
        study: what `study.json` holds; keys that are missing or odd are left out.
        file: the page; its folder must exist.

    Raises:
        UserError: `file` cannot be a file there.
        RunError: the disk is full or the folder is read-only; an older page is untouched.
    """
    check_place(file)
    write_page(file, render_study(study))


def render_study(study: Mapping[str, Any]) -> str:
    """The page as HTML, the same bytes for the same study.

    Args:
        study: as for `write_study`.
    """
    return render("study.html", _context(study))


def _context(study: Mapping[str, Any]) -> dict[str, Any]:
    trials, metric = trials_of(study), mapping(study.get("metric"))
    keys = key_panels(trials, study)
    costs = cost_panels(trials, study)
    curves = curve_panel(trials, study)
    sentences = [said for said in _listed(study.get("says")) if isinstance(said, str)]
    comparison = mapping(study.get("comparison"))
    return {
        "name": text_or_none(study.get("name")) or "study",
        "title": text_or_none(study.get("title")) or _KINDS.get(str(study.get("kind")), "study"),
        "command": text_or_none(study.get("command")),
        "verdict": re.split(r"(?<=[;.]) ", sentences[0], maxsplit=1) if sentences else None,
        "says": sentences[1:],
        "state": _state(study, trials),
        "keys": drawn(keys, name="key"),
        "keys_note": f"{_dots_note(trials)} {outside(keys[:1])}".strip(),
        "curves": drawn([curves] if curves else [], name="curves", layout=_CURVES),
        "costs": drawn(costs, name="cost"),
        "importances": sorted(named_numbers(study.get("importances")).items(), key=lambda pair: -pair[1]),
        "trial_heads": _trial_heads(trials, study),
        "trial_rows": [_trial_row(trial, trials, study) for trial in _ranked(trials, metric)],
        "matched": _matched(mapping(study.get("matched"))),
        "facts": _facts(study),
        "comparison": comparison_parts(comparison) if comparison else None,
    }


def _state(study: Mapping[str, Any], trials: Sequence[Trial]) -> str | None:
    """One sentence on a study that has not ended, or in which trainings failed."""
    counts = {state: sum(trial.state == state for trial in trials) for state in ("finished", "pruned", "failed")}
    said = []
    if study.get("status") != "finished":
        done = sum(counts.values())
        ended = "goes on" if study.get("status") == "running" else "was interrupted"
        said.append(f"The study {ended}: {done} of {len(trials)} trials so far have ended.")
    if counts["failed"]:
        said.append(f"{counts['failed']} of {len(trials)} trials failed; the table says why.")
    return " ".join(said) or None


def _dots_note(trials: Sequence[Trial]) -> str:
    notes = ["A dot a trial; bars: one standard error; ★: the best."]
    if any(trial.state == "pruned" for trial in trials):
        notes.append("×: given up early, with its last validation; at the edge where that lies further away.")
    return " ".join(notes)


def _ranked(trials: Sequence[Trial], metric: Record) -> list[Trial]:
    """The trials by their figure, the best first; those without one last."""
    sign = -1 if metric.get("better") == "higher" else 1

    def place(trial: Trial) -> tuple[bool, bool, float, int]:
        value = trial.value
        return trial.state != "finished", value is None, 0.0 if value is None else sign * value, trial.number

    return sorted(trials, key=place)


def _trial_heads(trials: Sequence[Trial], study: Mapping[str, Any]) -> list[Cell]:
    name = str(mapping(study.get("metric")).get("name") or "value").replace("_", " ")
    keys = _own_columns(study)
    heads: list[Cell] = ["trial", *((key.rpartition(".")[2], "words") for key in keys)]
    heads += [] if keys else [("what sets it apart", "words")]
    heads += ["seed"] if any(trial.seed is not None for trial in trials) else []
    return [
        *heads,
        name,
        ("state", "words"),
        *(_COST_COLUMNS[key][0] for key in _costs_known(trials)),
        ("run", "words"),
    ]


def _trial_row(trial: Trial, trials: Sequence[Trial], study: Mapping[str, Any]) -> tuple[Cell, ...]:
    value, keys = "–", _own_columns(study)
    if trial.value is not None:
        decimals = tables.decimals_for([trial.value], stderr=trial.stderr)
        value = tables.figure(trial.value, stderr=trial.stderr, decimals=decimals)
    apart = [tables.flatten({key: trial.values.get(key)}).get(key, "") for key in keys] or [trial.arm]
    seeds = ["" if trial.seed is None else str(trial.seed)]
    state = f"{trial.state}: {trial.error}" if trial.error else trial.state
    return (
        f"{'★ ' if trial.best else ''}{trial.number}",
        *((words, "words short" if keys else "words") for words in apart),
        *(seeds if any(other.seed is not None for other in trials) else []),
        (value, "value best" if trial.best else "value"),
        (f"{state} (timing run)" if trial.calibration else state, "words"),
        *(_cost(trial.costs, key) for key in _costs_known(trials)),
        (trial.run or "", "words short"),
    )


def _own_columns(study: Mapping[str, Any]) -> list[str]:
    """The varied keys of a sweep, each of which has a column; other studies have arms with words of their own."""
    if study.get("kind") != "sweep":
        return []
    return [str(key) for each in _listed(study.get("over")) if (key := mapping(each).get("key"))]


def _costs_known(trials: Sequence[Trial]) -> list[str]:
    """The costs that some trial has, in order; what is used for a token only where that is not everything."""
    known = [key for key in _COST_COLUMNS if any(number(trial.costs.get(key)) for trial in trials)]
    whole_used = all(trial.costs.get("active_parameters") == trial.costs.get("parameters") for trial in trials)
    return [key for key in known if key != "active_parameters" or not whole_used]


def _cost(costs: Record, key: str) -> str:
    found = number(costs.get(key))
    return _COST_COLUMNS[key][1](found) if found else ""


def _matched(matched: Record) -> dict[str, Any] | None:
    """What a matched pair cost: a row an arm, and the ratios reached."""
    rows = [mapping(row) for row in _listed(matched.get("rows"))]
    if not rows:
        return None
    keys = [key for key in _COST_COLUMNS if any(number(row.get(key)) for row in rows)]
    arms = [str(arm) for arm in _listed(matched.get("arms"))]
    ratios = named_numbers(matched.get("ratios"))
    return {
        "by": {"flops": "FLOPs", "time": "time"}.get(str(matched.get("by")), "cost"),
        "heads": ["arm", *(_COST_COLUMNS[key][0] for key in keys)],
        "rows": [(str(row.get("arm")), *(_cost(row, key) for key in keys)) for row in rows],
        "of": f"{arms[1]} over {arms[0]}" if len(arms) == 2 else "second over first",
        "ratios": [(_RATIOS.get(name, name.replace("_", " ")), f"{value:.4g}") for name, value in ratios.items()],
    }


def _facts(study: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the study was carried out."""
    metric = mapping(study.get("metric"))
    task = text_or_none(metric.get("task")) or "the last validation in training"
    told = {
        "name": study.get("name"),
        "recipe": study.get("recipe"),
        "metric": f"{metric.get('name')} ({task}), {metric.get('better')} is better",
        "over": "; ".join(_over(mapping(each)) for each in _listed(study.get("over"))),
        "trials": len(_listed(study.get("trials"))),
        "sampler": study.get("sampler"),
        "pruning": study.get("prune"),
        "seed": whole(study.get("seed")),
        "trainings at a time": study.get("jobs"),
        "began": study.get("created"),
        "ended": study.get("finished"),
    }
    return list(tables.flatten(told).items())


def _over(varied: Record) -> str:
    """One varied key in words: `network.width: 64, 128`, `training.learning_rate: 0.0001 to 0.01 (log)`."""
    if "values" in varied:
        return f"{varied.get('key')}: {', '.join(map(str, _listed(varied['values'])))}"
    scale = " (log)" if varied.get("log") is True else ""
    return f"{varied.get('key')}: {varied.get('low')} to {varied.get('high')}{scale}"


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
