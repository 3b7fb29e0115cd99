"""What the registry knows of an evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from remask.runs.files import storable
from remask.runs.record import STATUSES, Status


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One evaluation of a run, as its `evaluation.json` and the registry keep it. Unknown values are None.

    Its figures stand in the run's `evaluations.jsonl`, each with the evaluation's id.

    Attributes:
        id: `{task}_{YYYYMMDD_HHMMSS}`, unique within the run.
        run_id: the run that was evaluated.
        task: what was evaluated, e.g. `likelihood`.
        created: when it began, ISO 8601 in UTC (`remask.runs.timestamp`).
        status: running, finished, failed (an error), interrupted (Ctrl-C) or killed (its process died).
        finished: when it ended, ISO 8601 in UTC.
        checkpoint: what was evaluated, e.g. `RUN/model`.
        model_hash: the content hash of its weights.
        step: optimiser steps that its weights had.
        git_commit: the commit of the code that evaluated.
        git_dirty: whether a tracked file differed from that commit.
        git_tag: the tag that names exactly that commit, or None.
        machine: host, system, processor and cores, in words.
        device: e.g. `cpu`, `cuda:0 (NVIDIA H100)`.
        torch_version: e.g. `2.13.0+cpu`.
        python_version: e.g. `3.11.7`.
        data_hash: the corpus's content hash.
        tokenizer_hash: the tokenizer's content hash.
        seconds: how long it took.
        peak_memory_bytes: the process's (or device's) greatest use.
        links: name → address.
        tags: free labels.
        conclusion: what its author learned, in words.
        error: the one line of what went wrong.
    """

    id: str
    run_id: str
    task: str
    created: str
    status: Status = "running"
    finished: str | None = None
    checkpoint: str | None = None
    model_hash: str | None = None
    step: int | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    git_tag: str | None = None
    machine: str | None = None
    device: str | None = None
    torch_version: str | None = None
    python_version: str | None = None
    data_hash: str | None = None
    tokenizer_hash: str | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    links: dict[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    conclusion: str | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status '{self.status}' of evaluation {self.reference}: valid are {', '.join(STATUSES)}")

    @property
    def reference(self) -> str:
        """How a user names it: `RUN:ID`."""
        return f"{self.run_id}:{self.id}"

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values; a non-finite number becomes None."""
        return storable({field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "EvaluationRecord":
        """The record that `to_json` wrote; keys of other versions of remask are passed over.

        Raises:
            TypeError: a required field is missing.
            ValueError: the status is unknown.
        """
        return cls(**{name: value for name, value in values.items() if name in _NAMES})


_NAMES = frozenset(field.name for field in fields(EvaluationRecord))
