"""`remask runs` and `remask show`: the list of all runs, and one run in full.

Tables are laid out here rather than by rich, which needs a second for a thousand rows.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import options as option

if TYPE_CHECKING:
    from remask.runs import Registry, RunFolder, RunRecord

_HEADLINE = "bits_per_byte"
_BIGRAM = "byte 2-gram"  # the trivial predictor that stands beside the headline figure
_SAMPLE_CHARACTERS = 600
_COLORS = {"finished": "green", "running": "cyan", "failed": "red", "killed": "red", "interrupted": "yellow"}
_ENCODER = json.JSONEncoder(allow_nan=False)  # ASCII: safe in any terminal, pipe and encoding
_NOT_METRICS = ("kind", "step", "text")


def runs(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a run, and nothing else.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="First make the registry anew from the run folders.")
    ] = False,
) -> None:
    """List all runs, newest first, each beside what a trivial predictor gets."""
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    if rebuild:
        _rebuild(registry)
    records = registry.list()
    if as_json:
        sys.stdout.writelines(f"{_json(record.to_json())}\n" for record in records)
    elif records:
        now = datetime.now(UTC)
        header = ("run", "status", "steps", "bits/byte", "bigram", "age", "verdict")
        _print_table(header, [_run_row(record, now=now) for record in records], right=(2, 3, 4, 5))
    else:
        typer.echo(f"no runs in {registry.home} yet: `remask train` starts one", err=True)


def show(
    run: Annotated[str, typer.Argument(help="A run id, a unique prefix, `last`, or a run's folder.")] = "last",
    conclude: Annotated[str | None, typer.Option("--conclude", help="Store what was learned from the run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, and nothing else.")] = False,
) -> None:
    """Show one run: its record, verdict, last metrics, evaluations, files and last sample."""
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    record = registry.find(run)
    if conclude is not None:
        record = registry.update(record.id, conclusion=conclude.strip() or None)
    option.complain(registry, record)
    page = _page(registry, record)
    if as_json:
        typer.echo(_json(page))
    else:
        _print_page(record, page)


def _rebuild(registry: "Registry") -> None:
    rebuilt = registry.rebuild()
    typer.echo(f"{rebuilt.runs} runs read from their folders into {registry.path}", err=True)
    if rebuilt.kept is not None:
        typer.echo(f"the unusable registry is kept as {rebuilt.kept}", err=True)
    for folder in rebuilt.skipped:
        typer.echo(f"skipped {folder}: its run.json is unreadable or names another folder's run", err=True)


def _run_row(record: "RunRecord", *, now: datetime) -> tuple[str, ...]:
    verdict = record.verdict or record.error or ""
    return (
        record.id,
        record.status,
        f"{record.step}/{record.steps if record.steps is not None else '?'}",
        _number(record.headline.get(_HEADLINE)),
        _number(record.trivial.get(_BIGRAM)),
        _age(record.created, now=now),
        _printable(verdict).replace("\n", " "),
    )


# -- one run ------------------------------------------------------------------------------------------


def _page(registry: "Registry", record: "RunRecord") -> dict[str, Any]:
    """All that is known of a run, as plain JSON values."""
    folder = registry.folder_of(record)
    evaluations = registry.evaluations(record.id)
    samples = folder.samples()
    metrics = {str(line.get("kind")): line for line in folder.metrics()}  # the last of each kind
    return {
        "run": record.to_json(),
        "path": str(folder.path),
        "files": [str(path) for path in _files(folder)],
        "metrics": {kind: line for kind, line in metrics.items() if kind not in ("None", "sample")},
        "evaluations": _latest(evaluations),
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


def _latest(evaluations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The newest measurement of each name under each protocol."""
    newest: dict[str, dict[str, Any]] = {}
    for row in evaluations:
        key = _json([row.get("task"), row.get("name"), row.get("protocol")])
        newest.pop(key, None)  # so that the order is that of the newest
        newest[key] = dict(row)
    return list(newest.values())


def _print_page(record: "RunRecord", page: Mapping[str, Any]) -> None:
    for name, value in _fields(record):
        typer.echo(f"{name:<12} {_printable(str(value))}")
    if page["metrics"]:
        _heading("last metrics")
        for kind, line in page["metrics"].items():
            said = _alarm(line) if kind == "alarm" else _metrics(line)
            typer.echo(f"{kind:<12} step {line.get('failed_step', line.get('step'))}: {said}")
    if page["evaluations"]:
        _heading("evaluations, beside trivial predictors")
        header = ("task", "name", "value", "unit", "n", "protocol", "trivial")
        _print_table(header, [_evaluation_row(row) for row in page["evaluations"]], right=(2, 4))
    _heading(f"files in {page['path']}")
    for path in page["files"]:
        typer.echo(path)
    if not page["files"]:
        typer.echo("none: the folder is empty or gone")
    if page["sample"]:
        _heading(f"last sample (step {page['sample'].get('step')})")
        typer.echo(_printable(str(page["sample"].get("text", ""))[:_SAMPLE_CHARACTERS]))


def _fields(record: "RunRecord") -> list[tuple[str, Any]]:
    """The record's lines in the order to be read; unknown ones are left out."""
    beside = ", ".join(f"{name} {_number(value)}" for name, value in record.trivial.items())
    headline = ", ".join(f"{name} {_number(value)}" for name, value in record.headline.items())
    dirty = " (with uncommitted changes)" if record.git_dirty else ""
    speed = [
        f"{value:,.6g} {unit}"
        for value, unit in ((record.steps_per_second, "steps/s"), (record.tokens_per_second, "tokens/s"))
        if value is not None
    ]
    lines = [
        ("run", record.id),
        ("status", record.status),
        ("error", record.error),
        ("verdict", record.verdict),
        ("conclusion", record.conclusion),
        ("headline", headline),
        ("trivial", beside),
        ("recipe", f"{record.recipe} ({record.family}), seed {record.seed}"),
        ("steps", f"{record.step}/{record.steps if record.steps is not None else '?'}"),
        ("tokens", f"{record.tokens_seen:,}"),
        ("speed", ", ".join(speed)),
        ("parameters", None if record.parameters is None else f"{record.parameters:,}"),
        ("peak memory", _gibibytes(record.peak_memory_bytes)),
        ("created", record.created),
        ("finished", record.finished),
        ("device", record.device),
        ("machine", record.machine),
        ("versions", _versions(record)),
        ("commit", None if record.git_commit is None else record.git_commit + dirty),
        ("data", record.data_hash),
        ("tokenizer", record.tokenizer_hash),
        ("config", record.config_hash),
        ("lineage", " → ".join(record.lineage)),
        ("links", ", ".join(f"{name}: {address}" for name, address in record.links.items())),
        ("tags", ", ".join(record.tags)),
    ]
    return [(name, value) for name, value in lines if value]


def _versions(record: "RunRecord") -> str:
    named = (("Python", record.python_version), ("torch", record.torch_version))
    return ", ".join(f"{name} {version}" for name, version in named if version)


def _metrics(line: Mapping[str, Any]) -> str:
    shown = [(name, value) for name, value in line.items() if name not in _NOT_METRICS]
    return ", ".join(
        f"{name} ({_metrics(value)})" if isinstance(value, Mapping) else f"{name} {_number(value)}"
        for name, value in shown
    )


def _alarm(line: Mapping[str, Any]) -> str:
    done = str(line.get("action", "report")).replace("_", " ")
    return f"{line.get('name')}: {line.get('evidence')} (policy: {done}; causes and remedies: remask health)"


def _evaluation_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    error = "" if row.get("stderr") is None else f" ± {_number(row['stderr'])}"
    return (
        str(row.get("task", "")),
        str(row.get("name")),
        f"{_number(row.get('value'))}{error}",
        str(row.get("unit", "")),
        str(row.get("n", "")),
        ", ".join(f"{name}={value}" for name, value in (row.get("protocol") or {}).items()),
        ", ".join(f"{name} {_number(value)}" for name, value in (row.get("trivial") or {}).items()),
    )


# -- text ---------------------------------------------------------------------------------------------


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int]) -> None:
    """Prints columns two blanks apart; on a terminal lines are cut at its width, in a pipe they are whole."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = []
    for row in (header, *rows):
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  ".join(cells).rstrip()
        lines.append(line if limit is None or len(line) <= limit else f"{line[: limit - 1]}…")
    if limit is not None:
        lines = [typer.style(lines[0], bold=True), *map(_colored, lines[1:], rows)]
    typer.echo("\n".join(lines))


def _colored(line: str, row: Sequence[str]) -> str:
    status = row[1]
    return line.replace(f" {status} ", f" {typer.style(status, fg=_COLORS[status])} ", 1) if status in _COLORS else line


def _heading(text: str) -> None:
    typer.echo(f"\n{typer.style(text, bold=True)}")


def _json(value: Any) -> str:
    from remask.runs.files import plain

    return _ENCODER.encode(plain(value))


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if 0.001 <= abs(value) < 1000 else f"{value:.4g}"
    return str(value)


def _gibibytes(size: int | None) -> str | None:
    return None if size is None else f"{size / 2**30:.2f} GiB"


def _age(created: str, *, now: datetime) -> str:
    try:
        seconds = (now - datetime.fromisoformat(created)).total_seconds()
    except (ValueError, TypeError):
        return "?"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def _printable(text: str) -> str:
    """Text with control characters made visible: a sample must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )
