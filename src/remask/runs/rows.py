"""Records and figures as rows of the registry's tables, and back."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Generic, TypeVar, get_args, get_origin

from remask.runs.evaluation_record import EvaluationRecord
from remask.runs.files import json_line
from remask.runs.kinds import LARGEST
from remask.runs.record import RunRecord

Record = TypeVar("Record", RunRecord, EvaluationRecord)
Lines = list[tuple[str, dict[str, Any]]]

MEASUREMENT = ("name", "value", "unit", "n", "stderr", "trivial", "protocol", "task", "created", "evaluation")
"""The columns of a figure, which are the keys of its line in evaluations.jsonl."""
_WORDS = ("name", "unit", "task", "created")
_NUMBERS = ("value", "stderr")
_OBJECTS = ("trivial", "protocol")


class Table(Generic[Record]):
    """A table with a column for every field of a kind of record.

    Args:
        name: the table's.
        kind: the records' class.
        keys: the columns that tell one record from all others.
    """

    def __init__(self, name: str, kind: type[Record], *, keys: tuple[str, ...]) -> None:
        self._name, self._kind, self._keys = name, kind, keys
        self._columns = tuple(field.name for field in fields(kind))
        self._json = tuple(field.name for field in fields(kind) if get_origin(field.type) in (list, dict))
        self._booleans = tuple(field.name for field in fields(kind) if bool in get_args(field.type))
        self._put = (
            f"INSERT INTO {name} ({', '.join(self._columns)}) VALUES ({', '.join('?' * len(self._columns))}) "
            f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET "
            f"{', '.join(f'{column} = excluded.{column}' for column in self._columns)}"
        )

    def put(self, connection: sqlite3.Connection, record: Record) -> None:
        """Adds a record, or takes it in the place of the one with the same keys, where that one stands."""
        values = record.to_json()
        values |= {name: json.dumps(values[name]) for name in self._json}
        connection.execute(self._put, [values[name] for name in self._columns])

    def select(self, connection: sqlite3.Connection, **equal: Any) -> list[Record]:
        """The records whose columns have these values, the one listed last first.

        Raises:
            ValueError: a row holds what no record does.
            TypeError: as ValueError.
            RecursionError: as ValueError.
        """
        where = f" WHERE {' AND '.join(f'{name} = ?' for name in equal)}" if equal else ""
        # by when they were listed, not by `created`: clocks are set back at times
        query = f"SELECT {', '.join(self._columns)} FROM {self._name}{where} ORDER BY rowid DESC"
        return [self._record(row) for row in connection.execute(query, tuple(equal.values())).fetchall()]

    def remove(self, connection: sqlite3.Connection, **equal: Any) -> None:
        """Removes the rows whose columns have these values."""
        assert equal, "a table is never emptied"
        where = " AND ".join(f"{name} = ?" for name in equal)
        connection.execute(f"DELETE FROM {self._name} WHERE {where}", tuple(equal.values()))

    def _record(self, row: tuple[Any, ...]) -> Record:
        values = dict(zip(self._columns, row, strict=True))
        # in one call, because there may be thousands of rows
        texts = ",".join([values[name] for name in self._json])
        values.update(zip(self._json, json.loads(f"[{texts}]"), strict=True))
        for name in self._booleans:
            if values[name] is not None:
                values[name] = bool(values[name])
        return self._kind.from_json(values)


RUNS = Table("runs", RunRecord, keys=("id",))
EVALUATIONS = Table("evaluations", EvaluationRecord, keys=("run_id", "id"))


def is_figure(row: Mapping[str, Any]) -> bool:
    """Whether a line of evaluations.jsonl is a figure: all that one needs is there, and of the right kind.

    A line of another kind, say from an edited or damaged run folder, would keep all other runs' from being read.
    """
    n, evaluation = row.get("n"), row.get("evaluation")
    return (
        all(isinstance(row.get(name), str) for name in _WORDS)
        and (isinstance(n, int) and 0 <= n < LARGEST)
        and all(row.get(name) is None or _is_number(row[name]) for name in _NUMBERS)
        and all(isinstance(row.get(name) or {}, dict) for name in _OBJECTS)
        and (evaluation is None or isinstance(evaluation, str))
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < LARGEST)


def insert_measurements(connection: sqlite3.Connection, run_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Adds lines of a run's evaluations.jsonl; one that is no figure is passed over."""
    names = ("run_id", *MEASUREMENT)
    insert = f"INSERT INTO measurements ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    for row in rows:
        if not is_figure(row):
            continue
        texts = {key: json_line(row.get(key) or {}) for key in _OBJECTS}
        connection.execute(insert, [run_id, *({**row, **texts}.get(name) for name in MEASUREMENT)])


def select_measurements(connection: sqlite3.Connection, run_id: str | None) -> Lines:
    """The figures of a run, or of all runs, oldest first: the run's id, and the line as evaluations.jsonl has it.

    Raises:
        ValueError: a row holds what no figure does.
        TypeError: as ValueError.
        RecursionError: as ValueError.
    """
    objects = _Objects()
    return [(run, _line(row, objects)) for run, *row in _select(connection, MEASUREMENT, run_id)]


def select_moments(connection: sqlite3.Connection, run_id: str | None) -> Lines:
    """As `select_measurements`, but of each figure only when and of what it is: task, moment and evaluation."""
    names = ("task", "created", "evaluation")
    return [(run, dict(zip(names, row, strict=True))) for run, *row in _select(connection, names, run_id)]


def remove_measurements(connection: sqlite3.Connection, **equal: str) -> None:
    """Removes the figures of a run, or of one of its evaluations."""
    assert "run_id" in equal, "the figures of all runs are never removed"
    where = " AND ".join(f"{name} = ?" for name in equal)
    connection.execute(f"DELETE FROM measurements WHERE {where}", tuple(equal.values()))


def _select(connection: sqlite3.Connection, names: tuple[str, ...], run_id: str | None) -> list[tuple[Any, ...]]:
    where, arguments = ("", ()) if run_id is None else (" WHERE run_id = ?", (run_id,))
    query = f"SELECT run_id, {', '.join(names)} FROM measurements{where} ORDER BY number"
    return connection.execute(query, arguments).fetchall()


class _Objects(dict[str, Any]):
    """JSON text → its value; many figures have the same protocol."""

    def __missing__(self, text: str) -> Any:
        return self.setdefault(text, json.loads(text))


def _line(row: list[Any], objects: _Objects) -> dict[str, Any]:
    values: dict[str, Any] = dict(zip(MEASUREMENT, row, strict=True))
    for name in _OBJECTS:
        values[name] = dict(objects[values[name]])
    if values["evaluation"] is None:  # a line of an older remask, or of `add_evaluations`
        del values["evaluation"]
    return values
