"""The arms of a comparison: runs that repeat one setup over seeds are one arm."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remask.errors import UserError
from remask.runs.record import RunRecord

_AVERAGED = (
    *("parameters", "active_parameters", "train_tokens", "tokens_seen", "step", "epochs"),
    *("flops_per_token", "flops", "seconds", "tokens_per_second", "peak_memory_bytes"),
)
_SHARED = (
    *("recipe", "family", "architecture", "objective", "data", "data_hash", "tokenizer", "tokenizer_hash"),
    *("git_commit", "git_tag", "machine", "device", "setup_hash", "status", "verdict"),
)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Runs of one setup, told apart by their seeds alone.

    Attributes:
        name: what the comparison calls it, different for each arm.
        runs: in the order given.
    """

    name: str
    runs: tuple[RunRecord, ...]

    @property
    def seeds(self) -> list[int]:
        """One a run."""
        return [run.seed for run in self.runs]

    def number(self, fact: str) -> float | None:
        """The mean of a number of its records; None where one of them does not know it."""
        values = [getattr(run, fact) for run in self.runs]
        return None if any(value is None for value in values) else sum(values) / len(values)

    def text(self, fact: str) -> str | None:
        """A text of its records, several where they differ; None where none of them knows it."""
        values = dict.fromkeys(str(value) for run in self.runs if (value := getattr(run, fact)) is not None)
        return ", ".join(values) or None

    def to_json(self) -> dict[str, Any]:
        """Name, runs, seeds and facts."""
        facts: dict[str, Any] = {fact: self.number(fact) for fact in _AVERAGED}
        facts |= {fact: self.text(fact) for fact in _SHARED}
        facts["git_dirty"] = any(run.git_dirty for run in self.runs)
        facts["extra_losses"] = list(self.runs[0].extra_losses)
        return {"name": self.name, "runs": [run.id for run in self.runs], "seeds": self.seeds, "facts": facts}


def arms_of(records: Sequence[RunRecord], *, names: Mapping[str, str] | None = None) -> tuple[list[Arm], list[str]]:
    """The arms in the order of their first runs, and what is to be said of how they were made, in words.

    Runs that share a `setup_hash` are one arm; a run without one is an arm of its own. Of runs of one setup that have
    the same seed too, the newest counts: the others say nothing more. Where all runs are of one setup, each is an arm.

    Args:
        records: the runs.
        names: what to call the arm that a run is in, by run id; used where it tells all arms apart.

    Raises:
        UserError: fewer than two runs, or a run given twice.
    """
    if len(records) < 2:
        raise UserError("a comparison needs two runs or more: remask compare RUN RUN")
    twice = [run.id for k, run in enumerate(records) if run.id in {earlier.id for earlier in records[:k]}]
    if twice:
        raise UserError(f"run {twice[0]} is given twice: compare it with another run")
    setups: dict[str, list[RunRecord]] = {}
    for run in records:
        setups.setdefault(run.setup_hash or run.id, []).append(run)
    if len(setups) == 1:
        singles = [[run] for run in records]
        seeds = "the same seed" if len({run.seed for run in records}) == 1 else "other seeds"
        said = [f"the runs repeat one setup with {seeds}: what they differ by is chance, not a better setup"]
        return _named(singles, names or {}), said
    said, kept = [], []
    for runs in setups.values():
        newest = {run.seed: run for run in sorted(runs, key=lambda run: run.created)}
        left_out = [run.id for run in runs if newest[run.seed] is not run]
        if left_out:
            said.append(f"{', '.join(left_out)} left out: a newer run repeats the same setup and seed")
        kept.append([run for run in runs if newest[run.seed] is run])
    return _named(kept, names or {}), said


def _named(groups: Sequence[Sequence[RunRecord]], given: Mapping[str, str]) -> list[Arm]:
    """Arms by the first way that tells them apart, from the name that was given to the whole run id."""
    ways: tuple[Callable[[RunRecord], str], ...] = (
        lambda run: given.get(run.id, run.recipe),
        lambda run: run.recipe,
        _without_time,
        lambda run: "_".join([_without_time(run), *_slug(run.tokenizer)]),
        lambda run: "_".join([_without_time(run), *_slug(run.tokenizer), *_slug(run.data)]),
        lambda run: f"{_without_time(run)}_seed{run.seed}",
        lambda run: run.id,
    )
    named = ([name(runs[0]) for runs in groups] for name in ways)
    names = next(names for names in named if len(set(names)) == len(names))  # run ids differ at last
    return [Arm(name=name, runs=tuple(runs)) for name, runs in zip(names, groups, strict=True)]


def _slug(words: str | None) -> list[str]:
    """`bpe 4096` as `bpe4096`; nothing where it is not known."""
    return [words.replace(" ", "")] if words else []


def _without_time(run: RunRecord) -> str:
    """`mdlm_D192L4` of `mdlm_D192L4_20261121_070733`, also where a number follows."""
    parts = run.id.split("_")
    while len(parts) > 1 and parts[-1].partition("-")[0].isdecimal():
        parts.pop()
    return "_".join(parts)
