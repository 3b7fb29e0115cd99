"""Trainings that only write what a training would: for tests of what starts and watches them."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from remask.config.load import load_recipe, setup_hash
from remask.config.schema import Recipe
from remask.evaluation.measurement import Measurement
from remask.laboratory.jobs import Job
from remask.runs import Registry, RunFolder, RunRecord, timestamp, write_atomic

TRIVIAL = {"uniform": 8.0, "byte 2-gram": 4.0}
Curve = Callable[[Recipe], list[float | None]]
read = lru_cache(maxsize=None)(load_recipe)  # a trial's recipe never changes


class PretendedRunner:
    """Carries out jobs of a study without a process: each look at a training brings one more validation of it.

    Args:
        home: of runs.
        curve: a recipe → its validations in bits a byte; the last one is the end. An empty list: the training fails.
        costs: a recipe → fields of its record.
        judged: a recipe → its bits a byte in `remask evaluate`.
    """

    def __init__(
        self,
        home: Path,
        *,
        curve: Curve,
        costs: Callable[[Recipe], Mapping[str, float]] = lambda recipe: {},
        judged: Callable[[Recipe], float] = lambda recipe: 3.0,
    ) -> None:
        self.home, self.curve, self.costs, self.judged = home, curve, costs, judged
        self.going: set[Path] = set()
        self.begun: list[str] = []
        self.resumed: list[str] = []
        self.evaluated: list[str] = []
        self.most = 0

    def start(self, job: Job) -> None:
        assert job.folder not in self.going, "a job is started twice"
        if job.name == "evaluate":
            self._evaluate(job)
            return
        run_file = Path(job.command[-1])
        recipe = read(job.command[2])
        if not self.curve(recipe):
            job.log_path.write_text("remask: the disk is full\n")
            return
        if run_file.exists():
            run = run_file.read_text().strip()
            self.resumed.append(run)
            Registry(self.home).update(run, status="running")
        else:
            self.begun.append(self._begin(recipe, run_file))
        self.going.add(job.folder)
        self.most = max(self.most, len(self.going))

    def runs(self, job: Job) -> bool:
        if job.name != "train" or job.folder not in self.going:
            return False
        self._go_on(job)
        return job.folder in self.going

    def stop(self, job: Job) -> None:
        if job.folder in self.going:
            self.going.remove(job.folder)
            Registry(self.home).update(self._run(job), status="interrupted", error="stopped by the user")

    def leave(self, jobs: list[Job]) -> list[Job]:
        for job in jobs:
            self.stop(job)
        return jobs

    def _begin(self, recipe: Recipe, run_file: Path) -> str:
        folder = RunFolder.create(self.home, f"{recipe.name}_pretended")
        folder.append_metrics({"kind": "trivial", "step": 0, "bits_per_byte": TRIVIAL, "nats_per_token": TRIVIAL})
        record = RunRecord(
            id=folder.run_id,
            recipe=recipe.name,
            family="token",
            seed=recipe.seed,
            created=timestamp(),
            data_hash="d",
            setup_hash=setup_hash(recipe, data_hash="d"),
        )
        write_atomic(folder.recipe_path, Path(run_file).with_name("recipe.yaml").read_bytes())
        with folder.lock():
            Registry(self.home).create(record)
        write_atomic(run_file, f"{folder.run_id}\n")
        return folder.run_id

    def _go_on(self, job: Job) -> None:
        run, recipe = self._run(job), read(job.command[2])
        folder, curve = RunFolder(self.home / run), self.curve(recipe)
        done = sum(line["kind"] == "validation" for line in folder.metrics())
        every = recipe.training.evaluate_every
        if done < len(curve):
            seconds = self.costs(recipe).get("seconds", 0.0) * (done + 1) / len(curve)
            step = every * (done + 1)
            folder.append_metrics({"kind": "train", "step": step, "loss": 1.0, "seconds": seconds})
            bits = {"bits_per_byte": curve[done], "stderr": 0.1, "rows": 4}
            folder.append_metrics({"kind": "validation", "step": step, **bits})
        folder.close()
        if done + 1 >= len(curve):
            self.going.remove(job.folder)
            costs = {"step": recipe.training.steps, **self.costs(recipe)}
            Registry(self.home).update(run, status="finished", error=None, **costs)

    def _evaluate(self, job: Job) -> None:
        run = job.command[2]
        registry = Registry(self.home)
        recipe = read(str(registry.folder_of(registry.get(run)).recipe_path))
        measured = Measurement(
            name="bits_per_byte",
            value=self.judged(recipe),
            unit="bits/byte",
            n=8,
            stderr=0.05,
            trivial=TRIVIAL,
            protocol={"split": "validation", "rows": 8},
        )
        registry.add_evaluations(run, [measured], task=job.command[4])
        self.evaluated.append(run)

    @staticmethod
    def _run(job: Job) -> str:
        return Path(job.command[-1]).read_text().strip()


class Patience:
    """An interrupt that comes after so many looks.

    Args:
        looks: how often `requested` is False first.
    """

    def __init__(self, looks: int) -> None:
        self._left = looks

    @property
    def requested(self) -> bool:
        self._left -= 1
        return self._left < 0
