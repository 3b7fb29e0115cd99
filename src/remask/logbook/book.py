"""The master experiment log, from records alone: a table of training runs and a table of evaluations."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remask.comparison.comparable import Figure, finite
from remask.comparison.fairness import amount
from remask.comparison.words import number
from remask.health.evidence import OWN_FIGURES
from remask.logbook import scores
from remask.logbook.choosing import Choice
from remask.logbook.markdown import Cell, Piece, plain
from remask.runs import lineage
from remask.runs.evaluation_record import EvaluationRecord
from remask.runs.record import RunRecord

if TYPE_CHECKING:
    from remask.runs.registry import Registry

RUN_COLUMNS = (
    *("date", "run", "status", "family", "architecture", "parameters", "data", "tokenizer", "seed", "from", "machine"),
    *("epochs", "tokens", "extra losses", "task loss", "effective rank", "scores", "speed", "link", "git", "verdict"),
    *("tags", "conclusion"),
)
EVALUATION_COLUMNS = (
    *("date", "evaluation", "status", "kind", "source", "machine", "protocol", "scores", "seconds", "link", "git"),
    *("tags", "conclusion"),
)
_PROTOCOL = (
    *("split", "rows", "row_length", "draws", "sampler", "reveal", "steps", "block_length", "length"),
    *("judge", "features", "checker"),
)
_EXACT = "next token"  # how the objective begins in words whose likelihood is no bound

Row = Mapping[str, Cell]


@dataclass(frozen=True, kw_only=True)
class Log:
    """What the records say, ready to be written.

    Attributes:
        home: where the records are.
        asked: what was asked of the runs, in words; empty for all.
        newest: when the newest of the records was made or ended; None where there are none.
        runs: one row a run, newest first, with `RUN_COLUMNS`.
        evaluations: one row an evaluation, newest first, with `EVALUATION_COLUMNS`.
        run_groups: groups of comparable figures in which a run's is marked.
        evaluation_groups: groups in which an evaluation's is.
    """

    home: str
    asked: str
    newest: str | None
    runs: Sequence[Row]
    evaluations: Sequence[Row]
    run_groups: int
    evaluation_groups: int

    def to_json(self) -> list[dict[str, Any]]:
        """One object a row: `table`, a text for each column that is not empty, and what is marked as best."""
        tables = {"runs": self.runs, "evaluations": self.evaluations}
        return [{"table": name, **_plain_row(row)} for name, rows in tables.items() for row in rows]


def gather_log(registry: "Registry", choice: Choice) -> Log:
    """The log of the chosen runs and all of their evaluations.

    Args:
        registry: the records; each of its tables is read once.
        choice: which runs.

    Raises:
        UserError: the choice names what no run has, or the registry is corrupt.
    """
    runs = choice.of(registry.list())
    chosen = {run.id: run for run in runs}
    measured, judged = registry.figures()
    evaluations = [record for record in judged if record.run_id in chosen]
    by_reference = {(record.run_id, record.id): record for record in evaluations}
    of_run: dict[str, list[Figure]] = {run_id: [] for run_id in chosen}
    of_evaluation: dict[tuple[str, str], list[Figure]] = {key: [] for key in by_reference}
    for row in measured:
        run_id, key = row["run_id"], (row["run_id"], str(row.get("evaluation")))
        if run_id in chosen:
            figure = Figure(run=chosen[run_id], row=row, evaluation=by_reference.get(key))
            of_run[run_id].append(figure)
            of_evaluation.setdefault(key, []).append(figure)
    run_rows, run_groups = _run_rows(runs, of_run)
    evaluation_rows, evaluation_groups = _evaluation_rows(evaluations, of_evaluation)
    moments = [moment for record in (*runs, *evaluations) for moment in (record.created, record.finished) if moment]
    return Log(
        home=str(registry.home.resolve()),
        asked=choice.in_words(),
        newest=max(moments, default=None),
        runs=run_rows,
        evaluations=evaluation_rows,
        run_groups=run_groups,
        evaluation_groups=evaluation_groups,
    )


# -- runs ---------------------------------------------------------------------------------------------


def _run_rows(runs: Sequence[RunRecord], figures: Mapping[str, Sequence[Figure]]) -> tuple[list[Row], int]:
    losses = {run.id: _loss_figure(run, figures[run.id]) for run in runs}
    others = {run.id: [f for f in scores.key_figures(figures[run.id]) if _is_downstream(f)] for run in runs}
    shown = [loss for loss in losses.values() if loss is not None]
    best, groups = scores.best_of([*shown, *(figure for own in others.values() for figure in own)])
    rows = []
    for run in runs:
        rank = next((f.value for f in reversed(figures[run.id]) if f.name == "effective_rank"), None)
        rows.append(
            {
                **_run_facts(run),
                "task loss": _task_loss(run, figures[run.id], losses[run.id], bold=id(losses[run.id]) in best),
                "effective rank": _number(rank if rank is not None else run.headline.get("effective_rank")),
                "scores": scores.joined(scores.score(figure, bold=id(figure) in best) for figure in others[run.id]),
            }
        )
    return rows, groups


def _is_downstream(figure: Figure) -> bool:
    """Whether it has no column of its own."""
    return figure.task != "likelihood" and figure.name != "effective_rank"


def _loss_figure(run: RunRecord, figures: Sequence[Figure]) -> Figure | None:
    """The measurement that the run's headline is, or its newest bits per byte where it has no headline."""
    measured = [figure for figure in figures if figure.name == "bits_per_byte" and figure.value is not None]
    head = finite(run.headline.get("bits_per_byte"))
    if head is not None:
        measured = [figure for figure in measured if math.isclose(figure.value or 0.0, head, rel_tol=1e-9)]
    return measured[-1] if measured else None


def _task_loss(run: RunRecord, figures: Sequence[Figure], figure: Figure | None, *, bold: bool) -> Cell:
    """A headline without its measurement has no protocol, so that nothing can be compared with it."""
    if figure is not None:
        return scores.score(figure, bold=bold, named=False)
    headline = {name: shown for name, value in run.headline.items() if (shown := finite(value)) is not None}
    name = "bits_per_byte" if "bits_per_byte" in headline else next(iter(headline), None)
    if name is None:
        return ()
    unit = {"bits_per_byte": "bits/byte", "nats_per_token": "nats/token", **OWN_FIGURES}.get(name, name)
    trivial = {key: known for key, value in run.trivial.items() if (known := finite(value)) is not None}
    beside = scores.beside_headline(trivial) if name != "nats_per_token" else ""
    bound = "≤ " if name not in OWN_FIGURES and _is_bounded(run, figures) else ""
    return [Piece(text=f"{bound}{number(headline[name])} {unit}{f' ({beside})' if beside else ''}")]


def _is_bounded(run: RunRecord, figures: Sequence[Figure]) -> bool:
    """Whether a run's likelihood is a bound, as all of its measurements are or none is; else as its objective says."""
    measured = [figure.is_bound for figure in figures if "likelihood" in figure.protocol]
    return any(measured) if measured else run.objective is not None and not run.objective.startswith(_EXACT)


def _run_facts(run: RunRecord) -> dict[str, Cell]:
    return {
        "date": _text(_date(run.created)),
        "run": [Piece(text=run.id, code=True)],
        "status": _text(run.status if run.status == "finished" else f"{run.status} at {run.step}/{run.steps or '?'}"),
        "family": _text(run.family),
        "architecture": _text(run.architecture),
        "parameters": _amount(run.parameters),
        "data": _text(run.data or (run.data_hash or "")[:12]),
        "tokenizer": _text(run.tokenizer),
        "seed": _text(str(run.seed)),
        "from": _text(lineage.in_words(run.lineage)),
        "machine": _text(_machine(run)),
        "epochs": _number(run.epochs),
        "tokens": _amount(run.tokens_seen or None),
        "extra losses": _text(", ".join(run.extra_losses)),
        "speed": _text(None if run.tokens_per_second is None else f"{amount(run.tokens_per_second)} tokens/s"),
        "link": _links(run.links),
        "git": _git(run),
        "verdict": _text(run.verdict or run.error),
        "tags": _text(", ".join(run.tags)),
        "conclusion": _text(run.conclusion),
    }


# -- evaluations --------------------------------------------------------------------------------------


def _evaluation_rows(
    evaluations: Sequence[EvaluationRecord], figures: Mapping[tuple[str, str], Sequence[Figure]]
) -> tuple[list[Row], int]:
    own = {(record.run_id, record.id): figures.get((record.run_id, record.id), ()) for record in evaluations}
    shown = {key: scores.key_figures(found) for key, found in own.items()}
    best, groups = scores.best_of([figure for found in shown.values() for figure in found])
    rows = []
    for record in evaluations:
        key = (record.run_id, record.id)
        cells = [scores.score(figure, bold=id(figure) in best) for figure in shown[key]]
        cells += [scores.range_of(same) for same in scores.series(own[key])]
        rows.append(
            {
                "date": _text(_date(record.created)),
                "evaluation": [Piece(text=record.reference, code=True)],
                "status": _text(record.status),
                "kind": _text(record.task),
                "source": _text(_source(record)),
                "machine": _text(_machine(record)),
                "protocol": _text(_protocol(own[key])),
                "scores": scores.joined(cells),
                "seconds": _number(record.seconds),
                "link": _links(record.links),
                "git": _git(record),
                "tags": _text(", ".join(record.tags)),
                "conclusion": _text(record.conclusion or record.error),
            }
        )
    return rows, groups


def _source(record: EvaluationRecord) -> str:
    at = "" if record.step is None else f" (step {record.step})"
    return f"{record.checkpoint}{at}" if record.checkpoint else record.run_id


def _protocol(figures: Sequence[Figure]) -> str:
    """What of the protocol all figures share, the keys that tell most."""
    if not figures:
        return ""
    first = figures[0].protocol
    others = [protocol for figure in figures if (protocol := figure.protocol) != first]
    shared = [key for key in _PROTOCOL if key in first and all(other.get(key) == first[key] for other in others)]
    return ", ".join([f"{key} {first[key]}" for key in shared])


# -- cells --------------------------------------------------------------------------------------------


def _text(text: str | None) -> Cell:
    return [Piece(text=text)] if text else ()


def _shown(value: float | None, show: Callable[[float], str]) -> Cell:
    return _text(None if value is None else show(value))


def _number(value: float | None) -> Cell:
    return _shown(value, lambda known: f"{known:.3g}" if abs(known) < 1000 else f"{known:,.0f}")


def _amount(value: float | None) -> Cell:
    return _shown(value, amount)


def _links(links: Mapping[str, str]) -> Cell:
    return scores.joined([Piece(text=name, address=address)] for name, address in links.items())


def _git(record: RunRecord | EvaluationRecord) -> Cell:
    commit = record.git_commit[:7] if record.git_commit else None
    known = " ".join(part for part in (record.git_tag, commit) if part)
    return _text(f"{known} (uncommitted changes)" if known and record.git_dirty else known)


def _machine(record: RunRecord | EvaluationRecord) -> str:
    """Host and device: `box, NVIDIA H100` of `box (Linux …)` and `cuda:0 (NVIDIA H100)`."""
    host = (record.machine or "").partition(" (")[0]
    place, _, model = (record.device or "").partition(" (")
    return ", ".join(part for part in (host, model.removesuffix(")") or place) if part)


def _date(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _plain_row(row: Row) -> dict[str, Any]:
    texts = {name: plain(cell) for name, cell in row.items() if cell}
    best = [piece.text for cell in row.values() for piece in cell if piece.bold]
    return texts | {"best": best}
