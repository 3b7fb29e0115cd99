"""What the registry knows of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from remask.runs import lineage
from remask.runs.files import storable

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
        git_tag: the tag that names exactly that commit, or None.
        architecture: the network in words, e.g. `transformer D256 L4 H4, bidirectional`.
        data: the text in words, e.g. `python-docs`.
        tokenizer: e.g. `bpe 4096`.
        objective: what is minimised, in words.
        extra_losses: terms that are added to the task's own loss, e.g. `remask task ×0.5`.
        setup_hash: shared by runs that are repetitions of one setup, with another seed: their recipes differ in no key
            that changes what is trained, or how.
        data_hash: the corpus's content hash.
        tokenizer_hash: the tokenizer's content hash.
        config_hash: the resolved configuration's hash.
        machine: host, system, processor and cores, in words.
        device: e.g. `cpu`, `cuda:0 (NVIDIA H100)`.
        torch_version: e.g. `2.13.0+cpu`.
        python_version: e.g. `3.11.7`.
        parameters: trained and frozen parameters of the network.
        active_parameters: those used for one token; all of them where the network is dense.
        train_tokens: target tokens of one epoch.
        tokens_seen: target tokens trained on, padding aside.
        step: optimiser steps done.
        steps: optimiser steps planned.
        seconds: time spent in training, over all parts of a resumed run.
        steps_per_second: the run's mean.
        tokens_per_second: the run's mean.
        peak_memory_bytes: the process's (or device's) greatest use.
        flops_per_token: measured floating-point operations of training (forward and backward) for one target token.
        flops: floating-point operations of the training so far: `flops_per_token` × `tokens_seen`.
        lineage: what the run went on from, oldest first: `{"how": "resumed", "from": "RUN/checkpoints/step-200"}`,
            where `how` is resumed, initialised or converted (`remask.runs.lineage`).
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
    git_tag: str | None = None
    architecture: str | None = None
    data: str | None = None
    tokenizer: str | None = None
    objective: str | None = None
    extra_losses: list[str] = field(default_factory=list)
    setup_hash: str | None = None
    data_hash: str | None = None
    tokenizer_hash: str | None = None
    config_hash: str | None = None
    machine: str | None = None
    device: str | None = None
    torch_version: str | None = None
    python_version: str | None = None
    parameters: int | None = None
    active_parameters: int | None = None
    train_tokens: int | None = None
    tokens_seen: int = 0
    step: int = 0
    steps: int | None = None
    seconds: float | None = None
    steps_per_second: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    flops_per_token: float | None = None
    flops: float | None = None
    lineage: list[dict[str, str]] = field(default_factory=list)
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

    @property
    def epochs(self) -> float | None:
        """How often the training text was gone through; None where its size is not recorded."""
        return self.tokens_seen / self.train_tokens if self.train_tokens else None

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values; a non-finite number becomes None."""
        return storable({field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunRecord":
        """The record that `to_json` wrote; keys of other versions of remask are passed over.

        Raises:
            TypeError: a required field is missing.
            ValueError: the status is unknown, or the lineage cannot be understood.
        """
        known = {name: values[name] for name in values.keys() & _NAMES} if values.keys() - _NAMES else {**values}
        known["lineage"] = lineage.understand(known.get("lineage") or [], run_id=str(known.get("id")))
        return cls(**known)


_NAMES = frozenset(field.name for field in fields(RunRecord))
