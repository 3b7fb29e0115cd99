"""`remask show`: one run or one evaluation in full, and what its author notes of it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import options as option
from remask.cli.notes import Conclude, Link, Tag, Untag, changes
from remask.cli.text import (
    age,
    count,
    duration,
    gibibytes,
    heading,
    number,
    one_line,
    print_fields,
    print_table,
    printable,
)
from remask.cli.text import as_json as json_line

if TYPE_CHECKING:
    from remask.runs import EvaluationRecord, Registry, RunFolder, RunRecord

_SAMPLE_CHARACTERS = 600
_NOT_METRICS = ("kind", "step", "text")
Row = Mapping[str, Any]


def show(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN[:EVALUATION]",
            help="A run id, a unique prefix, `last`, or a run's folder; after a colon, an evaluation of it likewise.",
        ),
    ] = "last",
    conclude: Conclude = None,
    tag: Tag = None,
    untag: Untag = None,
    link: Link = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, and nothing else.")] = False,
) -> None:
    """Show one run or evaluation in full; store what was learned from it, its tags and its links."""
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    if names_evaluation(run):
        evaluation = registry.find_evaluation(run)
        if changed := changes(evaluation, conclude=conclude, tag=tag, untag=untag, link=link):
            evaluation = registry.update_evaluation(evaluation.reference, **changed)
        _show_evaluation(registry, evaluation, as_json=as_json)
        return
    record = registry.find(run)
    if changed := changes(record, conclude=conclude, tag=tag, untag=untag, link=link):
        record = registry.update(record.id, **changed)
    option.complain(registry, record)
    page = _page(registry, record)
    if as_json:
        typer.echo(json_line(page))
    else:
        _print_page(record, registry.evaluation_records(record.id), page)


def names_evaluation(reference: str) -> bool:
    """Whether a reference is `RUN:EVALUATION`; a folder whose path has a colon is a run's."""
    return ":" in reference and not Path(reference).expanduser().is_dir()


# -- one run ------------------------------------------------------------------------------------------


def _page(registry: "Registry", record: "RunRecord") -> dict[str, Any]:
    """All that is known of a run, as plain JSON values."""
    folder = registry.folder_of(record)
    samples = folder.samples()
    metrics = {str(line.get("kind")): line for line in folder.metrics()}  # the last of each kind
    return {
        "run": {**record.to_json(), "epochs": record.epochs},
        "path": str(folder.path),
        "files": [str(path) for path in _files(folder)],
        "metrics": {kind: line for kind, line in metrics.items() if kind not in ("None", "sample")},
        "evaluations": _latest(registry.evaluations(record.id)),
        "evaluation_records": [evaluation.to_json() for evaluation in registry.evaluation_records(record.id)],
        "sample": samples[-1] if samples else metrics.get("sample"),
    }


def _files(folder: "RunFolder") -> list[Any]:
    checkpoints = [path for path in folder.checkpoints_path.glob("step-*") if path.name[5:].isdecimal()]
    named = [
        folder.recipe_path,
        folder.metrics_path,
        folder.samples_path,
        folder.evaluations_path,
        folder.trajectory_path,
        *sorted(checkpoints, key=lambda path: int(path.name[5:])),
        folder.model_path,
        folder.report_path,
    ]
    return [path for path in named if path.exists()]


def _latest(evaluations: Sequence[Row]) -> list[dict[str, Any]]:
    """The newest measurement of each name under each protocol."""
    newest: dict[str, dict[str, Any]] = {}
    for row in evaluations:
        key = json_line([row.get("task"), row.get("name"), row.get("protocol")])
        newest.pop(key, None)  # so that the order is that of the newest
        newest[key] = dict(row)
    return list(newest.values())


def _print_page(record: "RunRecord", evaluations: Sequence["EvaluationRecord"], page: Mapping[str, Any]) -> None:
    print_fields([*_outcome(record), *_setup(record), *_cost(record), *_provenance(record)])
    if page["metrics"]:
        heading("last metrics")
        for kind, line in page["metrics"].items():
            said = _alarm(line) if kind == "alarm" else _metrics(line)
            typer.echo(one_line(f"{kind:<12} step {line.get('failed_step', line.get('step'))}: {said}"))
    if evaluations:
        heading(f"evaluations (remask show {record.id}:EVALUATION)")
        _print_evaluations(evaluations)
    if page["evaluations"]:
        heading("their newest figures, beside trivial predictors")
        _print_figures(page["evaluations"])
    heading(f"files in {page['path']}")
    for path in page["files"]:
        typer.echo(path)
    if not page["files"]:
        typer.echo("none: the folder is empty or gone")
    if page["sample"]:
        heading(f"last sample (step {page['sample'].get('step')})")
        typer.echo(printable(str(page["sample"].get("text", ""))[:_SAMPLE_CHARACTERS]))


def _outcome(record: "RunRecord") -> list[tuple[str, Any]]:
    beside = ", ".join(f"{name} {number(value)}" for name, value in record.trivial.items())
    headline = ", ".join(f"{name} {number(value)}" for name, value in record.headline.items())
    return [
        ("run", record.id),
        ("status", record.status),
        ("error", record.error),
        ("verdict", record.verdict),
        ("conclusion", record.conclusion),
        ("headline", headline),
        ("trivial", beside),
    ]


def _setup(record: "RunRecord") -> list[tuple[str, Any]]:
    from remask.runs.lineage import in_words

    return [
        ("recipe", f"{record.recipe} ({record.family}), seed {record.seed}"),
        ("architecture", record.architecture),
        ("text", record.data),
        ("tokenizer", record.tokenizer),
        ("objective", record.objective),
        ("extra losses", ", ".join(record.extra_losses)),
        ("lineage", in_words(record.lineage)),
    ]


def _cost(record: "RunRecord") -> list[tuple[str, Any]]:
    epochs = "" if record.epochs is None else f" ({record.epochs:.3g} epochs of {record.train_tokens:,})"
    active = record.active_parameters
    used = "" if active in (None, record.parameters) else f" ({active:,} used for one token)"
    each = "" if record.flops_per_token is None else f" ({record.flops_per_token:.4g} a token)"
    speed = [
        f"{value:,.6g} {unit}"
        for value, unit in ((record.steps_per_second, "steps/s"), (record.tokens_per_second, "tokens/s"))
        if value is not None
    ]
    return [
        ("steps", f"{record.step}/{record.steps if record.steps is not None else '?'}"),
        ("tokens", f"{record.tokens_seen:,}{epochs}"),
        ("training", duration(record.seconds)),
        ("speed", ", ".join(speed)),
        ("parameters", None if record.parameters is None else f"{record.parameters:,}{used}"),
        ("FLOPs", None if record.flops is None else f"{record.flops:.4g}{each}"),
        ("peak memory", gibibytes(record.peak_memory_bytes)),
    ]


def _provenance(record: "RunRecord | EvaluationRecord") -> list[tuple[str, Any]]:
    """Where a run's or an evaluation's figures come from, and its labels."""
    hashes = (("data", record.data_hash), ("tokenizer", record.tokenizer_hash))
    config = getattr(record, "config_hash", None)
    named = [f"{name} {value}" for name, value in (*hashes, ("config", config)) if value]
    dirty = " (with uncommitted changes)" if record.git_dirty else ""
    tagged = f", tag {record.git_tag}" if record.git_tag else ""
    return [
        ("created", record.created),
        ("finished", record.finished),
        ("device", record.device),
        ("machine", record.machine),
        ("versions", _versions(record)),
        ("commit", None if record.git_commit is None else f"{record.git_commit}{tagged}{dirty}"),
        ("hashes", ", ".join(named)),
        ("links", ", ".join(f"{name}: {address}" for name, address in record.links.items())),
        ("tags", ", ".join(record.tags)),
    ]


def _versions(record: "RunRecord | EvaluationRecord") -> str:
    named = (("Python", record.python_version), ("torch", record.torch_version))
    return ", ".join(f"{name} {version}" for name, version in named if version)


def _metrics(line: Row) -> str:
    shown = [(name, value) for name, value in line.items() if name not in _NOT_METRICS]
    return ", ".join(
        f"{name} ({_metrics(value)})" if isinstance(value, Mapping) else f"{name} {number(value)}"
        for name, value in shown
    )


def _alarm(line: Row) -> str:
    done = str(line.get("action", "report")).replace("_", " ")
    return f"{line.get('name')}: {line.get('evidence')} (policy: {done}; causes and remedies: remask health)"


def _print_evaluations(records: Sequence["EvaluationRecord"]) -> None:
    now = datetime.now(UTC)
    rows = [
        (
            record.id,
            record.status,
            record.checkpoint or "",
            age(record.created, now=now),
            duration(record.seconds) or "–",
            record.conclusion or record.error or "",
        )
        for record in records
    ]
    print_table(("evaluation", "status", "of", "age", "took", "conclusion"), rows, right=(3, 4))


def _print_figures(rows: Sequence[Row]) -> None:
    """Prints a table for each task, under the part of the protocol that all of its figures share."""
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        by_task.setdefault(str(row.get("task", "")), []).append(row)
    for task, figures in by_task.items():
        shared = _shared([row.get("protocol") or {} for row in figures])
        typer.echo(one_line(f"{task}: {_protocol(shared)}" if shared else task))
        cells = [_figure(row, shared=shared) for row in figures]
        columns = [
            column for column, name in enumerate(_HEADER) if name != "protocol" or any(row[column] for row in cells)
        ]
        table = [[row[column] for column in columns] for row in (_HEADER, *cells)]
        print_table(table[0], table[1:], right=(1, 3))


_HEADER = ("name", "value", "unit", "n", "protocol", "trivial")


def _shared(protocols: Sequence[Row]) -> dict[str, Any]:
    first, *others = protocols
    return {name: value for name, value in first.items() if all(name in p and p[name] == value for p in others)}


def _protocol(protocol: Row) -> str:
    return ", ".join(f"{name}={value}" for name, value in protocol.items())


def _figure(row: Row, *, shared: Row) -> tuple[str, ...]:
    error = "" if row.get("stderr") is None else f" ± {number(row['stderr'])}"
    return (
        str(row.get("name")),
        f"{number(row.get('value'))}{error}",
        str(row.get("unit", "")),
        str(row.get("n", "")),
        _protocol({name: value for name, value in (row.get("protocol") or {}).items() if name not in shared}),
        ", ".join(f"{name} {number(value)}" for name, value in (row.get("trivial") or {}).items()),
    )


# -- one evaluation -----------------------------------------------------------------------------------


def _show_evaluation(registry: "Registry", record: "EvaluationRecord", *, as_json: bool) -> None:
    figures = [row for row in registry.measurements(record.run_id) if row["evaluation"] == record.id]
    examples = {name: len(kept["values"]) for name, kept in registry.examples(record.run_id, record.id).items()}
    path = registry.folder_of(registry.get(record.run_id)).evaluation_folders_path / record.id
    if as_json:
        page = {"evaluation": record.to_json(), "path": str(path), "measurements": figures, "examples": examples}
        typer.echo(json_line(page))
        return
    print_fields(
        [
            ("evaluation", record.reference),
            ("task", record.task),
            ("status", record.status),
            ("error", record.error),
            ("conclusion", record.conclusion),
            ("checkpoint", record.checkpoint),
            ("step", count(record.step)),
            ("weights", record.model_hash),
            ("took", duration(record.seconds)),
            ("peak memory", gibibytes(record.peak_memory_bytes)),
            *_provenance(record),
            ("examples", ", ".join(f"{number} of {name}" for name, number in examples.items())),
        ]
    )
    if figures:
        heading("figures, beside trivial predictors")
        _print_figures(figures)
