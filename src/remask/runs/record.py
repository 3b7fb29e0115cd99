"""What the registry knows of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from remask.runs.files import plain

Status = Literal["running", "finished", "failed", "killed", "interrupted"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run, as `run.json` and the registry keep it. Unknown values are None.

    Attributes:
        id: `{recipe}_{shape}_{YYYYMMDD_HHMMSS}`.
        recipe: the recipe's name.
        family: what is diffused: token, concept, thought or bijective; or a baseline's family.
        seed: the run's seed.
        created: when it began, ISO 8601 in UTC (`remask.runs.timestamp`).
        status: running, finished, failed (an error), interrupted (Ctrl-C) or killed (its process died).
        finished: when it ended, ISO 8601 in UTC.
        folder: the run's folder, relative to the home of runs; absolute where it lies elsewhere.
        git_commit: the commit of the code that ran.
        git_dirty: whether a tracked file differed from that commit.
        data_hash: the corpus's content hash.
        tokenizer_hash: the tokenizer's content hash.
        config_hash: the resolved configuration's hash.
        machine: host, system, processor and cores, in words.
        device: e.g. `cpu`, `cuda:0 (NVIDIA H100)`.
        torch_version: e.g. `2.13.0+cpu`.
        python_version: e.g. `3.11.7`.
        parameters: trained and frozen parameters of the network.
        tokens_seen: target tokens trained on, padding aside.
        step: optimiser steps done.
        steps: optimiser steps planned.
        steps_per_second: the run's mean.
        tokens_per_second: the run's mean.
        peak_memory_bytes: the process's (or device's) greatest use.
        lineage: the checkpoints the run went on from, oldest first, e.g. `RUN/checkpoints/step-200`.
        links: name → address, e.g. of a tracker's page.
        tags: free labels.
        conclusion: what its author learned, in words.
        verdict: what `health` says of the run, in words.
        headline: the run's headline figures, e.g. `{"bits_per_byte": 2.95}`.
        trivial: what trivial predictors get for `bits_per_byte`, e.g. `{"byte 2-gram": 3.81}`.
        error: the one line of what went wrong.
    """

    id: str
    recipe: str
    family: str
    seed: int
    created: str
    status: Status = "running"
    finished: str | None = None
    folder: str = ""
    git_commit: str | None = None
    git_dirty: bool | None = None
    data_hash: str | None = None
    tokenizer_hash: str | None = None
    config_hash: str | None = None
    machine: str | None = None
    device: str | None = None
    torch_version: str | None = None
    python_version: str | None = None
    parameters: int | None = None
    tokens_seen: int = 0
    step: int = 0
    steps: int | None = None
    steps_per_second: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    lineage: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    conclusion: str | None = None
    verdict: str | None = None
    headline: dict[str, float | None] = field(default_factory=dict)
    trivial: dict[str, float | None] = field(default_factory=dict)
    error: str | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status '{self.status}' of run {self.id}: valid are {', '.join(STATUSES)}")

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values; a non-finite number becomes None."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunRecord":
        """The record that `to_json` wrote; keys of other versions of remask are passed over.

        Raises:
            TypeError: a required field is missing.
            ValueError: the status is unknown.
        """
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})
