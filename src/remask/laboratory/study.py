"""A study on disk: what is asked, the trainings that answer it, and how far they have come."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from remask.errors import UserError, did_you_mean
from remask.runs import json_line, timestamp, write_atomic
from remask.runs.files import disk_error, plain

FORMAT = 1
TrialState = Literal["waiting", "running", "finished", "pruned", "failed"]
STATES: tuple[TrialState, ...] = get_args(TrialState)
ENDED: tuple[TrialState, ...] = ("finished", "pruned", "failed")
COSTS = (
    *("parameters", "active_parameters", "tokens_seen", "flops_per_token", "flops", "seconds", "steps"),
    "peak_memory_bytes",
)
"""What of a run's record stands beside its figure."""
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
_NEEDED = ("format", "name", "kind", "status", "metric", "jobs", "cluster", "evaluate")
_LOCK_WAIT = 1.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The figure that trials are judged by.

    Attributes:
        name: e.g. `bits_per_byte`.
        task: of `remask evaluate`, carried out after each training; None: the last validation in training.
        better: lower or higher.
        unit: of the figure.
    """

    name: str
    task: str | None
    better: Literal["lower", "higher"]
    unit: str


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of a study.

    Attributes:
        number: its place in the study, from 0.
        arm: what sets it apart, in words; trials of one arm differ in their seed alone.
        recipe: the file in the study's folder that it starts from.
        overrides: the keys it changes there.
        values: those of them that the study varies.
        seed: its own, where the study repeats over seeds.
        calibration: a short training for its speed, no result.
        drawn: its number in Optuna's study, where that drew it.
        state: how far it is.
        run: its run's id, once it has one.
        error: the one line of what went wrong.
        value: the figure.
        stderr: its standard error.
        n: examples behind it.
        trivial: what trivial predictors get.
        curve: (step, figure) of each validation in training.
        costs: the run's parameters, tokens, operations and time.
    """

    number: int
    arm: str
    recipe: str
    overrides: tuple[str, ...]
    values: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    calibration: bool = False
    drawn: int | None = None
    state: TrialState = "waiting"
    run: str | None = None
    error: str | None = None
    value: float | None = None
    stderr: float | None = None
    n: int | None = None
    trivial: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[tuple[int, float | None], ...] = ()
    costs: Mapping[str, float | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the costs beside the rest."""
        record = asdict(self)
        costs = record.pop("costs")
        return plain(record | {name: costs.get(name) for name in COSTS})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Trial":
        """The trial that `to_json` wrote."""
        names = {each.name for each in fields(cls)}
        known = {name: value for name, value in values.items() if name in names}
        known["overrides"] = tuple(known["overrides"])
        known["curve"] = tuple((step, value) for step, value in known["curve"])
        return cls(**known, costs={name: values.get(name) for name in COSTS})


class Study:
    """A study's folder and its `study.json`, written anew at each change.

    Args:
        path: the folder.
        facts: all of `study.json` but its trials.
        trials: in order.

    Attributes:
        path: the folder.
        facts: what the study is and what it has found; `change` changes them.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        self.path, self.facts = path, dict(facts)
        self._trials = list(trials)

    @classmethod
    def create(
        cls, home: Path, name: str, *, recipes: Mapping[str, str], trials: Sequence[Trial] = (), **facts: Any
    ) -> "Study":
        """Makes a study's folder in one step: whoever looks sees none, or all of it.

        Args:
            home: of runs.
            name: of the study.
            recipes: file name → the text of a recipe that its trials start from.
            trials: that are known from the start.
            **facts: what study.json says.

        Raises:
            UserError: the name is no folder's, or there is such a study.
            RunError: the folder cannot be made.
        """
        if not _NAME.match(name):
            raise UserError(f"--name {name}: give letters, digits, '.', '_' and '-', the first a letter or digit")
        path = studies_folder(home) / name
        begun = path.with_name(f".{name}.{os.getpid()}")
        study = cls(begun, {"format": FORMAT, "name": name, **facts}, trials)
        try:
            begun.mkdir(parents=True)
            for file, text in recipes.items():
                write_atomic(begun / file, text)
            study.save()
            begun.rename(path)  # over an empty folder, if any
        except OSError as error:
            if path.exists():
                raise UserError(
                    f"there is a study {name} already: go on with it by --resume {name}, or choose another --name"
                ) from None
            raise disk_error(path, error) from error
        finally:
            shutil.rmtree(begun, ignore_errors=True)
        study.path = path
        return study

    @classmethod
    def open(cls, home: Path, name: str) -> "Study":
        """The study of that name.

        Raises:
            UserError: there is none, or its study.json cannot be read.
        """
        path = studies_folder(home) / name
        if not (_NAME.match(name) and (path / "study.json").is_file()):
            names = (each.parent.name for each in studies_folder(home).glob("*/study.json"))
            known = sorted(filter(_NAME.match, names))
            hint = did_you_mean(name, known) if known else "there are none yet: remask sweep makes one"
            raise UserError(f"there is no study {name} in {studies_folder(home)}; {hint}")
        study = cls(path, {}, [])
        study.read()
        return study

    def read(self) -> None:
        """Takes up what study.json says now.

        Raises:
            UserError: it cannot be read.
        """
        path = self.path / "study.json"
        try:
            facts = json.loads(path.read_bytes())
            trials = [Trial.from_json(each) for each in facts.pop("trials")]
            missing = [name for name in _NEEDED if name not in facts]
            if missing or facts["format"] != FORMAT:
                raise ValueError(
                    f"it says nothing of {missing[0]}" if missing else "another version of remask wrote it"
                )
            _ = Metric(**facts["metric"]), int(facts["jobs"])  # that they can be read
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        self.facts, self._trials = facts, trials

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.facts["name"])

    @property
    def home(self) -> Path:
        """The home of runs that it belongs to."""
        return self.path.parents[1]

    @property
    def tag(self) -> str:
        """The tag of its runs."""
        return f"study:{self.name}"

    @property
    def metric(self) -> Metric:
        """The figure that trials are judged by."""
        return Metric(**self.facts["metric"])

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials so far."""
        return tuple(self._trials)

    def folder_of(self, trial: Trial) -> Path:
        """Where a trial's recipe, log and run id lie."""
        return self.path / "trials" / str(trial.number)

    def add(self, trials: Sequence[Trial]) -> None:
        """Appends trials; their numbers go on from the last one's."""
        assert [trial.number for trial in trials] == list(range(len(self._trials), len(self._trials) + len(trials))), (
            "a trial's number is its place"
        )
        self._trials += trials
        self.save()

    def change_trial(self, number: int, **changes: Any) -> Trial:
        """Changes a trial and keeps that."""
        self._trials[number] = replace(self._trials[number], **changes)
        self.save()
        return self._trials[number]

    def change(self, **facts: Any) -> None:
        """Changes what study.json says besides its trials."""
        self.facts |= facts
        self.save()

    def to_json(self) -> dict[str, Any]:
        """All of study.json."""
        return plain(self.facts) | {"trials": [trial.to_json() for trial in self._trials]}

    def save(self) -> None:
        """Writes study.json in one step."""
        write_atomic(self.path / "study.json", json_line(self.to_json()) + "\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the study for one controller; the system lets go when the process dies.

        Raises:
            UserError: another process conducts it.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(str(self.path / "lock"), timeout=_LOCK_WAIT)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(
                f"study {self.name} is being conducted by another process: wait for it, or stop it"
            ) from None
        try:
            yield
        finally:
            lock.release()


def new_facts(*, kind: str, title: str, recipe: str, metric: Metric, **more: Any) -> dict[str, Any]:
    """What study.json says of a study of any kind when it begins."""
    return {
        "kind": kind,
        "title": title,
        "created": timestamp(),
        "finished": None,
        "status": "running",
        "recipe": recipe,
        "metric": {"name": metric.name, "task": metric.task, "better": metric.better, "unit": metric.unit},
        "over": [],
        "sampler": None,
        "prune": "none",
        "seed": 0,
        "best": None,
        "importances": {},
        "says": [],
        "comparison": None,
        "matched": None,
        **more,
    }


def studies_folder(home: Path) -> Path:
    """Where the studies of a home lie."""
    return home / "studies"
