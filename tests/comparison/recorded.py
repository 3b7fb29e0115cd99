"""A home with runs and measurements in it, made by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from remask.evaluation.measurement import Examples, Measurement
from remask.runs import EvaluationRecord, Provenance, Registry, RunFolder, RunRecord

LIKELIHOOD = {
    "likelihood": "upper bound: diffusion + reconstruction + prior + ends",
    "split": "validation",
    "rows": 200,
    "row_length": 64,
    "draws": 8,
    "seed": 1,
    "data": "da7a",
    "weights": "moving average",
    "ngram_training_bytes": 1000,
    "tokenizer": "70ken",
    "lossless_tokenizer": True,
}
EXACT = LIKELIHOOD | {"likelihood": "exact", "draws": 1}
TRIVIAL = {"uniform": 3.4, "unigram": 2.9, "byte 1-gram": 4.7, "byte 2-gram": 3.8, "byte 3-gram": 2.97}
PROVENANCE = Provenance(
    git_commit="c0ffee0123456789",
    git_dirty=False,
    git_tag=None,
    host="box",
    system="Linux x86_64",
    cpu="Xeon",
    cores=2,
    memory_bytes=None,
    python_version="3.11",
    torch_version="2.13",
    remask_version="0",
)
"""Where evaluations run, without asking git each time."""
SAMPLED = {"sampler": "ancestral", "steps": 64, "length": 64, "temperature": 1.0, "top_p": 1.0, "seed": 1}


class Shelf:
    """What a comparison asks of a registry, in memory: a hundred times as fast as one on disk."""

    def __init__(self) -> None:
        self.records: dict[str, RunRecord] = {}
        self.metrics: dict[str, list[dict[str, Any]]] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._evaluations: dict[str, list[EvaluationRecord]] = {}
        self._examples: dict[tuple[str, str], dict[str, Any]] = {}

    def create(self, record: RunRecord) -> RunRecord:
        self.records[record.id] = record
        return record

    def list(self) -> list[RunRecord]:
        return [*self.records.values()][::-1]

    def get(self, run_id: str) -> RunRecord:
        return self.records[run_id]

    def figures(self, run_id: str) -> tuple[Any, Any]:
        return self._rows.get(run_id, []), self._evaluations.get(run_id, [])[::-1]

    def examples(self, run_id: str, evaluation: str) -> dict[str, Any]:
        return self._examples[run_id, evaluation]

    def folder_of(self, record: RunRecord) -> SimpleNamespace:
        return SimpleNamespace(metrics=lambda: self.metrics.get(record.id, []))

    def keep(self, run_id: str, figure: Measurement, *, task: str, **facts: Any) -> None:
        """An evaluation of one figure."""
        known = self._evaluations.setdefault(run_id, [])
        created = f"2026-11-22T08:00:{len(known):02d}+00:00"
        values = {"step": self.get(run_id).step, "git_commit": PROVENANCE.git_commit} | facts
        record = EvaluationRecord(id=f"{task}_{len(known)}", run_id=run_id, task=task, created=created, **values)
        known.append(record)
        row = figure.to_json() | {"run_id": run_id, "task": task, "created": created, "evaluation": record.id}
        self._rows.setdefault(run_id, []).append(row)
        kept = {} if figure.examples is None else {figure.name: figure.examples.to_json()}
        self._examples[run_id, record.id] = kept


class Home:
    """A registry, in memory or in a folder, and short ways to put runs and figures into it."""

    def __init__(self, path: Path | None = None) -> None:
        self.registry: Any = Shelf() if path is None else Registry(path)
        self._in_memory = path is None

    def run(self, run_id: str, **values: Any) -> RunRecord:
        """A finished run whose budget, text and code are those of every other one, unless values say otherwise."""
        if not self._in_memory:
            RunFolder.create(self.registry.home, run_id)
        defaults: dict[str, Any] = {
            "recipe": run_id.partition("_")[0],
            "family": "token",
            "seed": 1,
            "created": f"2026-11-21T08:00:{len(self.registry.list()):02d}+00:00",
            "status": "finished",
            "step": 100,
            "steps": 100,
            "git_commit": "c0ffee0123456789",
            "git_dirty": False,
            "data": "python-docs",
            "data_hash": "da7a",
            "tokenizer": "bpe 4096",
            "tokenizer_hash": "70ken",
            "machine": "box (Linux x86_64, Xeon, 2 cores)",
            "device": "cpu",
            "parameters": 1_000_000,
            "active_parameters": 1_000_000,
            "train_tokens": 500_000,
            "tokens_seen": 1_000_000,
            "flops": 6e12,
            "seconds": 100.0,
        }
        return self.registry.create(RunRecord(id=run_id, **(defaults | values)))

    def judge(
        self,
        run_id: str,
        value: float | None,
        *,
        name: str = "bits_per_byte",
        task: str = "likelihood",
        unit: str = "bits/byte",
        stderr: float | None = 0.02,
        n: int = 200,
        trivial: Mapping[str, float] = TRIVIAL,
        protocol: Mapping[str, Any] = LIKELIHOOD,
        examples: Examples | None = None,
        **facts: Any,
    ) -> None:
        """An evaluation of one figure; keywords beyond those of a measurement are the evaluation's."""
        figure = Measurement(
            name=name,
            value=float("nan") if value is None else value,
            unit=unit,
            n=n,
            stderr=stderr,
            trivial=trivial,
            protocol=protocol,
            examples=examples,
        )
        if self._in_memory:
            self.registry.keep(run_id, figure, task=task, **facts)
            return
        with self.registry.evaluating(run_id, task=task, **facts) as judged:
            judged.keep([figure])

    def seeds(self, recipe: str, values: Sequence[float], **facts: Any) -> list[RunRecord]:
        """Runs of one setup over seeds 1, 2, … with these bits a byte."""
        runs = []
        for seed, value in enumerate(values, start=1):
            run = self.run(f"{recipe}_D64_2026112{seed}_080000", seed=seed, setup_hash=recipe, **facts)
            self.judge(run.id, value)
            runs.append(run)
        return runs


def rows(value: float, *, seed: int = 0, shift: float = 0.0, identity: str = "rows") -> tuple[float, Examples]:
    """A figure near `value` and its 200 rows, which are hard in the same way for equal seeds."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(100, 300, 200).astype(float)
    own = np.random.default_rng(1000 + int(1e6 * abs(shift)))
    numerators = (value + shift + rng.normal(0, 0.4, 200) + own.normal(0, 0.05, 200)) * weights
    examples = Examples(identity=identity, values=numerators.tolist(), weights=weights.tolist())
    return float(numerators.sum() / weights.sum()), examples
