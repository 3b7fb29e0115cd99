"""What `remask sweep` and `remask ablate` share: conducting a study, and telling what it found."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import options as option

if TYPE_CHECKING:
    from remask.laboratory.jobs import Runner
    from remask.laboratory.study import Study, Trial

Jobs = Annotated[int | None, typer.Option(min=1, help="Trainings at once [default: 1].")]
Name = Annotated[str | None, typer.Option(help="Name of the study [default: its recipe and the time].")]


def page_place(file: Path | None) -> Path | None:
    """The page's file, looked at before the work whose result it shows.

    Raises:
        UserError: no page can be written there.
    """
    if file is not None:
        from remask.report.rendering import check_place

        check_place(file)
    return file


Html = Annotated[
    Path | None, typer.Option(metavar="FILE", callback=page_place, help="Write the study's page to FILE, too.")
]
Resume = Annotated[str | None, typer.Option(metavar="NAME", help="Go on with a study that was stopped or killed.")]
Retry = Annotated[
    bool, typer.Option("--retry", help="With --resume: try failed trainings again, from their checkpoints.")
]
Seeds = Annotated[str, typer.Option(help="Each arm is trained with each of these seeds.")]
Cluster = Annotated[str, typer.Option(help="local: processes of this machine; slurm: a job for each training.")]
Minutes = Annotated[int, typer.Option(min=3, help="slurm: time of a job; a training that needs more queues again.")]
Partition = Annotated[str | None, typer.Option(help="slurm: the partition; without it the cluster's own choice.")]
Gpus = Annotated[int, typer.Option("--gpus-per-job", min=0, help="slurm: GPUs of each job.")]
Sbatch = Annotated[
    list[str] | None, typer.Option(metavar="OPTION=VALUE", help="slurm: a further option of sbatch: account=NAME.")
]
CLUSTERS = ("local", "slurm")
USUAL_PLACE: Mapping[str, Any] = {"cluster": "local", "minutes": 60, "gpus": 0}
with_place = option.with_options(
    "place",
    {"cluster": Cluster, "minutes": Minutes, "partition": Partition, "gpus": Gpus, "sbatch": Sbatch},
    usual=USUAL_PLACE,
)
"""Gives a command the options of where trainings run, as its argument `place`, for `asked_of`."""


def asked_of(
    *, name: str, cluster: str, minutes: int, partition: str | None, gpus: int, sbatch: list[str] | None
) -> Any:
    """What study.json says of where trainings run: None for this machine.

    Raises:
        UserError: there is no such cluster, or an option of sbatch is not readable.
    """
    from remask.cli.submit import sbatch_options
    from remask.errors import UserError, did_you_mean

    if cluster not in CLUSTERS:
        raise UserError(f"--cluster {cluster}: {did_you_mean(cluster, CLUSTERS)}")
    if cluster == "local":
        return None
    shape = {"nodes": 1, "processes": 1, "cpus": 1, "requeues": 3}
    return {
        "name": name,
        **shape,
        "minutes": minutes,
        "gpus": gpus,
        "partition": partition,
        "options": sbatch_options(sbatch or []),
    }


def place_given(place: Mapping[str, Any]) -> dict[str, Any]:
    """The options of where trainings run by name, with their values where they are not the usual ones."""
    flags = {"gpus": "--gpus-per-job"}
    return {flags.get(k, f"--{k}"): v if v != USUAL_PLACE.get(k) else None for k, v in place.items()}


def study_name(name: str | None, *, kind: str, recipe: str) -> str:
    """The name of a new study: as asked, or its kind, recipe and the time."""
    from datetime import UTC, datetime

    from remask.runs import make_run_id

    return name or make_run_id(kind, shape=recipe, moment=datetime.now(UTC))


def recipe_text(name_or_path: str) -> str:
    """The YAML text of a recipe that `load_recipe` has read, to be kept with the study."""
    from remask.recipes import read_recipe, recipe_names

    if name_or_path in recipe_names():
        return read_recipe(name_or_path)
    return Path(name_or_path).read_text(encoding="utf-8-sig")


def typed(*words: object) -> str:
    """The command as it may be typed again."""
    return shlex.join(["remask", *map(str, words)])


def reopened(name: str, *, jobs: int | None, retry: bool, given: Mapping[str, object]) -> "Study":
    """A study to go on with.

    Args:
        name: of the study.
        jobs: at once from now on; None: as many as before.
        retry: whether failed trials are to be tried again.
        given: other options by name, none of which may be there.

    Raises:
        UserError: one is, there is no such study, or what it trains on is not there.
    """
    from remask.errors import UserError
    from remask.laboratory.kinds import KINDS, refuse_gone, try_again
    from remask.laboratory.study import Study
    from remask.runs import Registry, runs_home

    extra = [option for option, value in given.items() if value]
    if extra:
        raise UserError(f"--resume takes all of a study from its folder: leave {', '.join(extra)} out")
    study = Study.open(runs_home(), name)
    if study.facts["kind"] not in KINDS:
        raise UserError(f"study {name} is of kind {study.facts['kind']}, which this version of remask does not know")
    if jobs is not None and study.facts["kind"] == "matched":
        refuse_side_by_side(jobs)
    if retry or study.facts["status"] != "finished":
        refuse_gone(study)
    if retry:
        say(f"{try_again(study, Registry(study.home))} failed trainings are tried again")
    if jobs is not None:
        study.facts["jobs"] = jobs
    return study


def refuse_retry(retry: bool) -> None:
    """Looks whether `--retry` is given without `--resume`.

    Raises:
        UserError: it is.
    """
    from remask.errors import UserError

    if retry:
        raise UserError("--retry tries the failed trainings of a study again: give --resume NAME with it")


def refuse_side_by_side(jobs: int | None) -> None:
    """Looks at `--jobs` of a matched pair.

    Raises:
        UserError: there are several.
    """
    from remask.errors import UserError

    if jobs not in (None, 1):
        raise UserError(
            f"--jobs {jobs}: trainings side by side slow each other down, and would be no match. Leave it out"
        )


def conduct(study: "Study", *, as_json: bool, html: Path | None) -> None:
    """Conducts a study to its end, and tells what it found; one that has ended is told of again.

    Raises:
        KeyboardInterrupt: the user stopped it; it can be resumed.
        RunError: no trial gave a figure.
    """
    from remask.errors import RunError
    from remask.interruption import InterruptRequest
    from remask.laboratory.kinds import carry_out, remaining
    from remask.runs import Registry

    command = "sweep" if study.facts["kind"] == "sweep" else "ablate"
    if study.facts["status"] != "finished":
        say(f"study {study.name}: {remaining(study)} trainings to go, {study.facts['jobs']} at once; {study.path}")
        with InterruptRequest() as interrupt:
            try:
                done = carry_out(
                    study, registry=Registry(study.home), runner=make_runner(study), interrupt=interrupt, say=say
                )
            except KeyboardInterrupt:  # the second Ctrl-C: trainings that were asked to stop do so alone
                done = False
        if not done:
            say(f"stopped with {remaining(study)} trainings to go. To go on: remask {command} --resume {study.name}")
            raise KeyboardInterrupt
    tell(study, as_json=as_json, html=html)
    if not any(trial.state == "finished" for trial in study.trials):
        first = next((f": trial {t.number}: {t.error}" for t in study.trials if t.error), "")
        raise RunError(f"no trial of study {study.name} gave a figure{first}")


def make_runner(study: "Study") -> "Runner":
    """What carries its trainings out."""
    from remask.laboratory.jobs import ClusterJobs, Processes, visible_gpus
    from remask.slurm import Job

    asked, at_once = study.facts["cluster"], int(study.facts["jobs"])
    if asked is None:
        gpus = visible_gpus() if at_once > 1 and _names_no_gpu(study) else []
        return Processes(home=study.home, at_once=at_once, gpus=gpus)
    return ClusterJobs(home=study.home, asked=Job(**asked))


def _names_no_gpu(study: "Study") -> bool:
    """Whether its trainings leave open which of several GPUs they use."""
    from remask.config.load import load_recipe

    drawn_later = [("recipe.yaml", study.facts.get("overrides", ()))]
    recipes = [(trial.recipe, trial.overrides) for trial in study.trials] or drawn_later
    return all(load_recipe(str(study.path / file), changes).device in ("auto", "cuda") for file, changes in recipes)


def say(line: str) -> None:
    """A line of progress, on standard error."""
    typer.echo(line, err=True)


def tell(study: "Study", *, as_json: bool, html: Path | None) -> None:
    """Prints what a study found, and writes its page."""
    from remask.report.study_page import write_study

    whole = study.to_json()
    for file in (study.path / "study.html", html):
        if file is not None:
            write_study(whole, file=file)
    if as_json:
        for trial in whole.pop("trials"):
            typer.echo(json.dumps({"study": study.name, "trial": trial}))
        typer.echo(json.dumps(whole))
        return
    for line in lines_of(study):
        typer.echo(line)


def lines_of(study: "Study") -> Iterator[str]:
    """The study in words: a table of its trials, then what it says."""
    from remask.cli.tables import aligned

    yield study.facts["title"]
    yield ""
    trials = [trial for trial in study.trials if not trial.calibration]
    if study.facts["kind"] == "sweep":
        rows, left = _sweep_rows(study, trials), (0, len(study.facts["over"]) + 3, len(study.facts["over"]) + 4)
    else:
        rows, left = _arm_rows(study, trials), (0, 9)
    yield from aligned(rows, left=left)
    yield from _matched_lines(study.facts["matched"])
    yield ""
    yield from study.facts["says"]
    yield f"page {study.path / 'study.html'}"


def _sweep_rows(study: "Study", trials: "Sequence[Trial]") -> list[list[str]]:
    from remask.laboratory.sweeps import best_trivial, figure_words

    keys = [each["key"] for each in study.facts["over"]]
    metric = study.metric
    rows = [["trial", *keys, f"{metric.name} ({metric.unit})", "trivial", "state", "run"]]
    for trial in trials:
        trivial = best_trivial(trial, metric)
        rows.append(
            [
                str(trial.number),
                *(shown(trial.values.get(key)) for key in keys),
                figure_words(trial.value, trial.stderr),
                "" if trivial is None else f"{trivial[0]} {trivial[1]:.3f}",
                trial.state,
                trial.run or "–",
            ]
        )
    return rows


def _arm_rows(study: "Study", trials: "Sequence[Trial]") -> list[list[str]]:
    from remask.laboratory.sweeps import figure_words

    metric = study.metric
    figure = f"{metric.name} ({metric.unit})"
    header = ["", "seed", figure, "parameters", "active", "tokens", "FLOPs", "seconds", "memory", "run"]
    costs = ("parameters", "active_parameters", "tokens_seen", "flops", "seconds")
    return [
        header,
        *(
            [
                trial.arm,
                "" if trial.seed is None else str(trial.seed),
                figure_words(trial.value, trial.stderr),
                *(shown(trial.costs.get(cost)) for cost in costs),
                _mebibytes(trial.costs.get("peak_memory_bytes")),
                trial.run or trial.state,
            ]
            for trial in trials
        ),
    ]


def _mebibytes(count: float | None) -> str:
    """The greatest use of a training's process or device, imports and all."""
    return "–" if count is None else f"{count / 2**20:,.0f} MiB"


def _matched_lines(matched: Mapping[str, Any] | None) -> Iterator[str]:
    from remask.cli.tables import aligned

    if matched is None:
        return
    yield ""
    rows = [["", "steps", "parameters", "active", "FLOPs a token", "by formula", "FLOPs", "seconds"]]
    names = ("steps", "parameters", "active_parameters", "flops_per_token_measured", "flops_per_token_analytic")
    for row in matched["rows"]:
        rows.append([row["arm"], *(shown(row[name]) for name in (*names, "flops", "seconds"))])
    yield from aligned(rows, left=(0,))


def shown(value: Any) -> str:
    """A number in four figures at most, or whole; a text as it is; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) and abs(value) < 1e9 else f"{value:.4g}"
