"""The controller of a study: starts its trainings, watches them, and keeps what comes of each.

How far a trial has come is read from its folder and its run, not remembered: a controller that takes the place of a
killed one sees the same and goes on.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from remask.config.load import dump_recipe, load_recipe
from remask.errors import UserError
from remask.laboratory.jobs import Job, Runner, last_words
from remask.laboratory.results import Figure, costs_of, figure_in_training, figure_of_task, kept_runs, training_curve
from remask.laboratory.study import ENDED, Study, Trial
from remask.runs import Registry, RunFolder, RunRecord, write_atomic

POLL = 0.2
"""Seconds between two looks at the running trainings."""
Say = Callable[[str], None]


@runtime_checkable
class Interrupt(Protocol):
    """Whether somebody asked the controller to stop."""

    requested: bool


@runtime_checkable
class Searching(Protocol):
    """Where trials come from, and who learns from them."""

    def following(self) -> Trial | None:
        """The next trial to begin, which the study then has; None when there are no more."""
        ...

    def reported(self, trial: Trial, step: int, value: float) -> bool:
        """Takes note of a validation; whether the trial is hopeless and to be stopped."""
        ...

    def told(self, trial: Trial) -> None:
        """Takes note of an ended trial; of one that it knows already, nothing."""
        ...


@dataclass
class Watched:
    """A trial in progress.

    Attributes:
        job: the one that was last started, or found running.
        seen: the size of metrics.jsonl when it was last read.
        reported: the last step of which a validation was reported.
    """

    job: Job | None = None
    seen: int = -1
    reported: int = 0


class Conductor:
    """Conducts a study to its end.

    Args:
        study: locked by this process.
        registry: of the home of runs.
        runner: carries jobs out.
        searching: where trials come from.
        at_once: the most trials in progress.
        evaluating: what `remask evaluate` is given behind the run, where the metric's task needs it.
        say: told what happens, a line each.
        wait: called between two looks.
    """

    def __init__(
        self,
        study: Study,
        *,
        registry: Registry,
        runner: Runner,
        searching: Searching,
        at_once: int,
        evaluating: tuple[str, ...] = (),
        say: Say,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.study, self.registry, self.runner, self.searching = study, registry, runner, searching
        self._at_once, self._evaluating, self._say, self._wait = at_once, evaluating, say, wait
        self._active: dict[int, Watched] = {}
        self._started: set[tuple[int, str]] = set()

    def conduct(self, interrupt: Interrupt) -> bool:
        """Goes on until all trials have ended.

        Returns:
            Whether they have; False where the user interrupted first.
        """
        self._take_over()
        try:
            while not interrupt.requested:
                self._fill()
                if not self._active:
                    return True
                for number in list(self._active):
                    self._look_at(number)
                if self._active:
                    self._wait(POLL)
        except Exception:  # of the disk or the cluster: what runs is ended as the user's Ctrl-C would end it
            self._leave()
            raise
        self._leave()
        return False

    # -- beginning and ending ----------------------------------------------------------------------

    def _take_over(self) -> None:
        """Finds the trials of an earlier controller, and stops what it meant to stop."""
        for trial in self.study.trials:
            job = next(filter(self.runner.runs, [self._job(trial, stage) for stage in _STAGES]), None)
            if job is None and trial.state == "running":
                self._active[trial.number] = Watched()
            elif job is not None and trial.state in ENDED:
                self.runner.stop(job)
                self._active[trial.number] = Watched(job=job)
            elif job is not None:
                self._say(f"{_name(trial)} still runs, and is taken over")
                self._active[trial.number] = Watched(job=job)

    def _fill(self) -> None:
        while len(self._active) < self._at_once and (trial := self.searching.following()) is not None:
            trial = self.study.change_trial(trial.number, state="running")
            self._active[trial.number] = Watched()
            self._say(f"{_name(trial)} begins: {trial.arm}{'' if trial.seed is None else f', seed {trial.seed}'}")

    def _leave(self) -> None:
        """Ends, or leaves to the cluster, what runs."""
        running = [watched.job for watched in self._active.values() if watched.job and self.runner.runs(watched.job)]
        awaited = self.runner.leave(running)
        if awaited:
            self._say(f"stopping {len(awaited)} running; each ends its step and writes a checkpoint")
        while any(self.runner.runs(job) for job in awaited):
            self._wait(POLL)

    # -- a trial's way -----------------------------------------------------------------------------

    def _look_at(self, number: int) -> None:
        trial, watched = self.study.trials[number], self._active[number]
        running = watched.job is not None and self.runner.runs(watched.job)
        if trial.state == "running":
            trial = self._follow(trial, watched)
        if trial.state in ENDED:
            if not running:
                self._active.pop(number)
                self._close(trial)
        elif not running:
            self._move_on(trial, watched)

    def _follow(self, trial: Trial, watched: Watched) -> Trial:
        """Takes note of the run and of its validations; ends the trial where it is hopeless."""
        if trial.run is None:
            trial = self._note_run(trial)
        if trial.run is None:
            return trial
        folder = RunFolder(self.registry.home / trial.run)
        size = folder.metrics_path.stat().st_size if folder.metrics_path.exists() else -1
        if size == watched.seen:
            return trial
        watched.seen = size
        unit, curve = training_curve(folder, self.study.metric)
        for step, value in curve:
            if step <= watched.reported or value is None:
                continue
            watched.reported = step
            self._say(f"{_name(trial)} step {step}: {value:.3f} {unit}")
            if self.searching.reported(trial, step, value):
                return self._prune(trial, watched, step, value, curve)
        return trial

    def _note_run(self, trial: Trial) -> Trial:
        path = self.study.folder_of(trial) / "run"
        run = path.read_text(encoding="utf-8").strip() if path.exists() else ""
        if not run:
            return trial
        record = self._record(replace(trial, run=run))
        own = [self.study.tag, *(["calibration"] if trial.calibration else [])]
        if record is not None and not set(own) <= set(record.tags):
            self.registry.update(run, tags=list(dict.fromkeys([*record.tags, *own])))
        return self.study.change_trial(trial.number, run=run)

    def _record(self, trial: Trial) -> RunRecord | None:
        """The record of a trial's run; None where it was removed since."""
        return kept_runs(self.registry, [trial]).get(trial.run or "")

    def _prune(
        self, trial: Trial, watched: Watched, step: int, value: float, curve: list[tuple[int, float | None]]
    ) -> Trial:
        so_far = tuple(point for point in curve if point[0] <= step)
        pruned = self._end(trial, state="pruned", value=value if self.study.metric.task is None else None, curve=so_far)
        if watched.job is not None:
            self.runner.stop(watched.job)
        self._say(f"{_name(trial)} is pruned at step {step}: others were better by then")
        return pruned

    def _move_on(self, trial: Trial, watched: Watched) -> None:
        """Starts what comes next for a trial of which nothing runs."""
        trial = self._note_run(trial) if trial.run is None else trial
        record = self._record(trial)
        if record is None and trial.run is not None:
            self._fail(trial, f"its run {trial.run} was removed")
            return
        if record is None or record.status != "finished":
            if record is not None and record.status == "failed":
                self._fail(trial, record.error or "failed")
            elif (trial.number, "train") in self._started:
                job = self._job(trial, "train")
                self._fail(trial, last_words(job) or f"its training ended without a word; see {job.log_path}")
            else:
                self._begin(trial, watched, "train")
            return
        try:
            figure = self._figure(record, in_training=trial.calibration)
        except UserError as error:
            self._fail(trial, str(error))
            return
        if figure is not None:
            self._settle(trial, record, figure)
        elif (trial.number, "evaluate") in self._started:
            self._fail(trial, f"its evaluation failed: {last_words(self._job(trial, 'evaluate'))}")
        else:
            self._begin(trial, watched, "evaluate")

    def _begin(self, trial: Trial, watched: Watched, stage: str) -> None:
        try:
            job = self._prepare(trial, stage)
        except UserError as error:
            self._fail(trial, str(error).splitlines()[0])
            return
        self._started.add((trial.number, stage))
        watched.job = job
        self.runner.start(job)

    def _prepare(self, trial: Trial, stage: str) -> Job:
        folder = self.study.folder_of(trial)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "recipe.yaml"
        if not path.exists():  # one that was begun goes on with what it began with
            recipe = load_recipe(str(self.study.path / trial.recipe), trial.overrides)
            write_atomic(path, dump_recipe(recipe))
        return self._job(trial, stage)

    def _job(self, trial: Trial, stage: str) -> Job:
        folder = self.study.folder_of(trial).resolve()
        words = {
            "train": ("remask", "train", str(folder / "recipe.yaml"), "--run-file", str(folder / "run")),
            "evaluate": ("remask", "evaluate", trial.run or "", *self._evaluating),
        }
        return Job(name=stage, folder=folder, command=words[stage])

    def _figure(self, record: RunRecord, *, in_training: bool) -> Figure | None:
        metric = self.study.metric
        if metric.task is None or in_training:
            return figure_in_training(RunFolder(self.registry.home / record.id), metric)
        return figure_of_task(self.registry, record.id, metric)

    def _settle(self, trial: Trial, record: RunRecord, figure: Figure) -> None:
        metric = self.study.metric
        if figure.value is None:
            self._fail(trial, f"its {metric.name} is missing or not a finite number")
            return
        folder = RunFolder(self.registry.home / record.id)
        known = {"stderr": figure.stderr, "n": figure.n, "trivial": dict(figure.trivial)}
        curve = tuple(training_curve(folder, metric)[1])
        if not metric.unit and not trial.calibration:
            self.study.change(metric={**self.study.facts["metric"], "unit": figure.unit})
        self._end(trial, state="finished", value=figure.value, curve=curve, costs=costs_of(record), **known)
        error = "" if figure.stderr is None else f" ± {figure.stderr:.3f}"
        self._say(f"{_name(trial)} finished: {figure.value:.3f}{error} {figure.unit}, {record.id}")

    def _fail(self, trial: Trial, error: str) -> None:
        self._end(trial, state="failed", error=error)
        self._say(f"{_name(trial)} failed: {error}")

    def _end(self, trial: Trial, **changes: Any) -> Trial:
        """Keeps how a trial ended; whoever searches is told first, because it may be told twice, and listens once."""
        self.searching.told(replace(trial, **changes))
        return self.study.change_trial(trial.number, **changes)

    def _close(self, trial: Trial) -> None:
        """A pruned run is marked as one when it has stopped."""
        record = self._record(trial) if trial.state == "pruned" else None
        if record is not None:
            tags = [*record.tags, *({"pruned"} - set(record.tags))]
            self.registry.update(record.id, tags=tags, error=f"pruned by study {self.study.name}")


_STAGES = ("train", "evaluate")


def _name(trial: Trial) -> str:
    return f"trial {trial.number}"
