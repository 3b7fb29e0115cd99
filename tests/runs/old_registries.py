"""A home as the first schema left it: its tables, a run and figures without evaluations of their own."""

import json
import sqlite3
from pathlib import Path

VERSION_1 = (
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, recipe TEXT NOT NULL, family TEXT NOT NULL, seed INTEGER NOT NULL,
        created TEXT NOT NULL, status TEXT NOT NULL, finished TEXT, folder TEXT NOT NULL, git_commit TEXT,
        git_dirty INTEGER, data_hash TEXT, tokenizer_hash TEXT, config_hash TEXT, machine TEXT, device TEXT,
        torch_version TEXT, python_version TEXT, parameters INTEGER, tokens_seen INTEGER NOT NULL,
        step INTEGER NOT NULL, steps INTEGER, steps_per_second REAL, tokens_per_second REAL,
        peak_memory_bytes INTEGER, lineage TEXT NOT NULL, links TEXT NOT NULL, tags TEXT NOT NULL,
        conclusion TEXT, verdict TEXT, headline TEXT NOT NULL, trivial TEXT NOT NULL, error TEXT
    )
    """,
    "CREATE INDEX runs_by_created ON runs (created)",
    """
    CREATE TABLE evaluations (
        number INTEGER PRIMARY KEY, run_id TEXT NOT NULL, task TEXT NOT NULL, name TEXT NOT NULL, value REAL,
        unit TEXT NOT NULL, n INTEGER NOT NULL, stderr REAL, trivial TEXT NOT NULL, protocol TEXT NOT NULL,
        created TEXT NOT NULL
    )
    """,
    "CREATE INDEX evaluations_by_run ON evaluations (run_id)",
    "PRAGMA user_version = 1",
)
RECORD = {
    **{"id": "old_W8_1", "recipe": "quickstart", "family": "token", "seed": 1, "status": "finished", "finished": None},
    **{"created": "2026-02-23T20:00:00.000+00:00", "folder": "old_W8_1", "git_commit": "c0ffee", "git_dirty": False},
    **{"data_hash": "d", "tokenizer_hash": "t", "config_hash": "c", "machine": "m", "device": "cpu"},
    **{"torch_version": "2.13.0", "python_version": "3.11.7", "parameters": 1000, "tokens_seen": 5000, "step": 60},
    **{
        "steps": 60,
        "steps_per_second": 2.0,
        "tokens_per_second": 99.0,
        "peak_memory_bytes": 7,
        "links": {},
        "tags": [],
    },
    **{"lineage": ["begun/checkpoints/step-9", "old_W8_1/checkpoints/step-20"], "conclusion": None, "error": None},
    **{"verdict": "learns", "headline": {"bits_per_byte": 2.9}, "trivial": {"byte 2-gram": 3.8}},
}
FIGURE = {
    **{"name": "bits_per_byte", "unit": "bits/byte", "n": 8, "stderr": 0.1, "trivial": {"byte 2-gram": 3.8}},
    "protocol": {"split": "validation"},
}
FIGURES = [
    FIGURE | {"value": 3.1, "task": "likelihood", "created": "2026-02-23T21:00:00.100+00:00"},
    FIGURE | {"value": 3.0, "task": "likelihood", "created": "2026-02-23T21:00:00.900+00:00"},
    FIGURE | {"value": 2.5, "task": "likelihood", "created": "2026-02-23T21:00:00.900+00:00", "name": "nats_per_token"},
    FIGURE | {"value": 0.4, "task": "quality", "created": "2026-02-23T22:00:00.000+00:00", "name": "entropy"},
]


def write_folder(home: Path) -> Path:
    """The run's folder as an older remask left it."""
    folder = home / "old_W8_1"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(RECORD) + "\n")
    (folder / "evaluations.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in FIGURES))
    return folder


def write_home(home: Path) -> Path:
    """The folder and the registry beside it; returns the registry's file."""
    write_folder(home)
    path = home / "registry.sqlite"
    with sqlite3.connect(path) as connection:
        for statement in VERSION_1:
            connection.execute(statement)
        for table, row in [("runs", RECORD), *(("evaluations", row | {"run_id": "old_W8_1"}) for row in FIGURES)]:
            kept = {name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in row.items()}
            marks = ", ".join("?" * len(kept))
            connection.execute(f"INSERT INTO {table} ({', '.join(kept)}) VALUES ({marks})", list(kept.values()))
    connection.close()
    return path
