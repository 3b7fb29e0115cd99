"""`remask ablate steps`: what denoising steps cost, and what they bring."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import options as option
from remask.cli import reasoning, studies
from remask.cli.meter import Meter
from remask.reasoning_tasks.names import REASONING_TASKS

if TYPE_CHECKING:
    from remask.config.schema import Recipe
    from remask.evaluation.measurement import Measurement
    from remask.model import Model
    from remask.runs import Registry, RunFolder, RunRecord

SHOWN = {
    "seconds_per_sample": "s/sample",
    "seconds_alone": "s alone",
    "network_calls": "calls",
    "accuracy_strict": "strict",
    "accuracy_flexible": "flexible",
    "answers_ended": "ended",
    "entropy": "entropy",
    "repetition": "repetition",
    "distinct_2": "distinct_2",
    "judged_perplexity": "judged ppl",
    "mauve": "mauve",
}
"""Figures of the table with their headings; all others are kept with the run."""
HELD_OUT = "held-out text"
TEXTS = 64
EXAM: dict[str, Any] = {
    "task": Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help=f"Right answers instead of quality, of a reasoning task: {', '.join(REASONING_TASKS)}."
        ),
    ],
    "split": Annotated[str | None, typer.Option(help="--task: validation or test [default: test where it is there].")],
    "reasoning": reasoning.OPTIONS["reasoning"],
    "reasoning_limit": reasoning.OPTIONS["reasoning_limit"],
}
"""Options of right answers."""


@option.with_options("exam", EXAM)
def steps(
    run: option.RunReference = "last",
    steps: Annotated[str, typer.Option(help="Numbers of steps, with commas between them.")] = "20,50,100",
    samplers: Annotated[
        str | None, typer.Option(help="Samplers, with commas between them [default: the recipe's].")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=2, help="Texts to draw for each setting, where none are answers [default: 64].")
    ] = None,
    length: Annotated[int | None, typer.Option(help="Tokens a text.")] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="RUN|FOLDER", help="Judges samples: an autoregressive run or a model folder.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(metavar="RUN|FOLDER", help="Whose hidden states stand for texts, for MAUVE.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each draw is timed.")] = 3,
    seed: option.Seed = None,
    device: option.Device = "auto",
    as_json: option.AsJson = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", callback=studies.page_place, help="Write the run's page to FILE.")
    ] = None,
    *,
    exam: Mapping[str, Any],
) -> None:
    """Draw from a run's model with several numbers of steps: time and network calls against quality or answers."""
    from remask.laboratory.space import split_list
    from remask.runs import Registry, runs_home

    numbers = read_steps(steps)
    registry = Registry(runs_home())
    record = registry.find(run)
    folder = registry.folder_of(record)
    refuse_unread(exam, {"--count": count, "--judge": judge, "--features": features})
    shared = {"sampling.length": length, "seed": seed, "sampling.count": count or TEXTS}
    recipe = option.changed_recipe(folder, shared)
    names = list(dict.fromkeys(split_list(samplers))) if samplers else [recipe.sampling.sampler]
    recipes = settings(folder, shared, samplers=names, steps=numbers, own=recipe.sampling.sampler)
    timing = {"repeats": repeats, "device": device}
    if exam["task"] is None:
        found = measure(registry, record, recipes, recipe, judge=judge, features=features, **timing)
    else:
        found = measure_answers(registry, record, recipes, exam, **timing)
    tell(found, as_json=as_json)
    if html is not None:
        from remask.report import write_report

        write_report(folder.path, file=html)


def measure(
    registry: "Registry",
    record: "RunRecord",
    recipes: "Sequence[Recipe]",
    recipe: "Recipe",
    *,
    judge: str | None,
    features: str | None,
    repeats: int,
    device: str,
) -> "list[Measurement]":
    """Draws with each of `recipes`, and keeps all figures as one evaluation of the run.

    Args:
        registry: of the run.
        record: the run's.
        recipes: one a setting.
        recipe: the run's, with what all settings share.
        judge: of samples, where there is one.
        features: for MAUVE, where there are some.
        repeats: draws that are timed.
        device: to draw on.
    """
    from remask.cli.sample import refuse_without_likelihood
    from remask.data.cache import cache_home
    from remask.errors import UserError
    from remask.experiment import describe_device
    from remask.judgement import load_features, load_judge, open_judged_text, open_yardstick
    from remask.laboratory.steps import step_measurements

    refuse_without_likelihood(recipe)
    model = opened(registry, record, recipes, device=device)
    text = open_judged_text(model, recipe, cache=cache_home(), data_hash=record.data_hash)
    if text.corpus.paired:
        raise UserError(
            f"run {record.id} answers prompts, and samples from nothing say little of it. For its answers with each "
            f"number of steps: remask ablate steps {record.id} --task arithmetic, or another task of reasoning; or "
            f"remask evaluate {record.id} --task answers --steps N"
        )
    bench = open_yardstick(
        model,
        recipe,
        text,
        judge=None if judge is None else load_judge(judge, registry=registry, device=model.device),
        features=None if features is None else load_features(features, registry=registry, device=model.device),
    )
    name = describe_device(model.device)

    def measured(own: "Recipe") -> "list[Measurement]":
        return step_measurements(model, own, bench=bench, device=name, repeats=repeats)

    return all_kept(registry, record, recipes, measured, device=name)


def measure_answers(
    registry: "Registry",
    record: "RunRecord",
    recipes: "Sequence[Recipe]",
    exam: Mapping[str, Any],
    *,
    repeats: int,
    device: str,
) -> "list[Measurement]":
    """Has the questions of a task answered with each of `recipes`, and keeps all figures as one evaluation of the run.

    Args:
        registry: of the run.
        record: the run's.
        recipes: one a setting.
        exam: values of `EXAM`, with a task.
        repeats: times that one question is answered alone.
        device: to draw on.

    Raises:
        UserError: the questions are not there or do not fit, or the model has no such steps.
    """
    from remask.experiment import describe_device
    from remask.laboratory.answering import answer_steps
    from remask.reasoning_tasks.measuring import Examinee
    from remask.reasoning_tasks.responses import ways_of

    asked = {"reasoning": exam["reasoning"], "reasoning_limit": exam["reasoning_limit"], "shots": None, "against": None}
    plan = reasoning.plan_reasoning(
        [exam["task"]], asked, split=exam["split"], seed=recipes[0].seed, registry=registry, record=record
    )
    assert plan is not None, "a task was named"
    (questions,) = plan.exams
    model = opened(registry, record, recipes, device=device)
    place = describe_device(model.device)

    def measured(own: "Recipe") -> "list[Measurement]":
        examinee = Examinee(model=model, recipe=own, ways=ways_of(model, own))
        meter = Meter(f"{exam['task']}, {own.sampling.sampler}, {own.sampling.steps} steps")
        return answer_steps(examinee, questions, device=place, repeats=repeats, watch=lambda way: meter.tell)

    return all_kept(registry, record, recipes, measured, device=place)


def opened(registry: "Registry", record: "RunRecord", recipes: "Sequence[Recipe]", *, device: str) -> "Model":
    """The run's model on a device.

    Raises:
        UserError: it has no steps to vary, or a sampler of `recipes` does not fit it.
    """
    from remask.config.build import resolve_device
    from remask.config.saved import load_model
    from remask.laboratory.steps import check_settings

    model, _ = load_model(registry.folder_of(record).model_path, device=resolve_device(device))
    check_settings(model, recipes[0], samplers=list(dict.fromkeys(own.sampling.sampler for own in recipes)))
    return model


def all_kept(
    registry: "Registry",
    record: "RunRecord",
    recipes: "Sequence[Recipe]",
    measured: "Callable[[Recipe], list[Measurement]]",
    *,
    device: str,
) -> "list[Measurement]":
    """The figures of each setting, kept as one evaluation of the run as they come.

    Args:
        registry: of the run.
        record: the run's.
        recipes: one a setting.
        measured: a setting's recipe → its figures.
        device: in words.
    """
    found: list[Measurement] = []
    with registry.evaluating(record.id, task="steps", device=device) as judged:
        for own in recipes:
            figures = measured(own)
            judged.keep(figures)
            found += figures
            typer.echo(progress(own, figures), err=True)
    return found


def refuse_unread(exam: Mapping[str, Any], of_quality: Mapping[str, Any]) -> None:
    """Refuses an unknown task, and options of right answers without one, or of quality beside it.

    Raises:
        UserError: naming the option.
    """
    from remask.errors import UserError, did_you_mean

    task = exam["task"]
    if task is not None and task not in REASONING_TASKS:
        raise UserError(f"--task {task}: steps are held against right answers; {did_you_mean(task, REASONING_TASKS)}")
    of_answers = {f"--{key.replace('_', '-')}": value for key, value in exam.items() if key != "task"}
    for flag, value in (of_answers if task is None else of_quality).items():
        if value is not None:
            raise UserError(f"{flag} is {'read with --task alone' if task is None else 'of quality: leave --task out'}")


def read_steps(text: str) -> list[int]:
    """`20,50,100` as numbers, in rising order.

    Raises:
        UserError: something else is given.
    """
    from remask.errors import UserError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UserError(f"--steps {text}: give whole numbers above 0 with commas between them, as 20,50,100")
    return sorted({int(word) for word in words})


def settings(
    folder: "RunFolder", shared: Mapping[str, Any], *, samplers: Sequence[str], steps: Sequence[int], own: str
) -> "list[Recipe]":
    """A recipe for each sampler and number of steps, all of them read before anything is drawn.

    Args:
        folder: the run's.
        shared: options that are the same for all.
        samplers: their names.
        steps: numbers of steps.
        own: the recipe's sampler, whose other keys stay as they are.
    """
    return [
        option.changed_recipe(
            folder, {**shared, "sampling.sampler": None if name == own else name, "sampling.steps": number}
        )
        for name in samplers
        for number in steps
    ]


def progress(recipe: "Recipe", measured: "Sequence[Measurement]") -> str:
    """A setting and its cost in a line."""
    costs = {figure.name: figure.value for figure in measured}
    return (
        f"{recipe.sampling.sampler}, {recipe.sampling.steps} steps: {costs['seconds_per_sample']:.4g} s a sample, "
        f"{costs['network_calls']:.0f} network calls"
    )


def tell(measured: "Sequence[Measurement]", *, as_json: bool) -> None:
    """JSON lines, or a table with a row for each setting and held-out text below."""
    if as_json:
        for figure in measured:
            typer.echo(json.dumps(figure.to_json()))
        return
    from remask.cli.tables import aligned

    for line in aligned(table(measured), left=(0,)):
        typer.echo(line)
    alone = next(figure for figure in measured if figure.name == "seconds_alone")
    at_once = measured[0].protocol["samples_at_once"]
    if "repeats" in measured[0].protocol:
        typer.echo(f"times are medians of {measured[0].n} draws of {at_once} texts at once")
    else:
        typer.echo(f"{measured[0].n} questions, {at_once} at once; s alone is the median of {alone.n} draws of one")
    typer.echo("next: remask report, which draws them")


def table(measured: "Sequence[Measurement]") -> list[list[str]]:
    """Rows of the table, its head first."""
    from remask.cli.tables import number

    names = [name for name in SHOWN if any(figure.name == name for figure in measured)]
    rows: dict[tuple[str, int], dict[str, str]] = {}
    beside: dict[str, dict[str, str]] = {}
    for figure in measured:
        key = (str(figure.protocol["sampler"]), int(figure.protocol["steps"]))
        error = "" if figure.stderr is None or figure.name == "network_calls" else f" ± {figure.stderr:.2g}"
        plain = {"s": f"{figure.value:.3g}", "calls": f"{figure.value:.0f}", "share": f"{figure.value:.3f}"}
        shown = plain.get(figure.unit) or number(figure.value)
        rows.setdefault(key, {})[figure.name] = "" if figure.value != figure.value else f"{shown}{error}"
        for who, value in figure.trivial.items():
            if who == HELD_OUT or figure.name.startswith("accuracy_"):
                beside.setdefault(who, {})[figure.name] = number(value)
    head = ["sampler", "steps", *(SHOWN[name] for name in names)]
    body = [[sampler, str(taken), *(cells.get(name, "") for name in names)] for (sampler, taken), cells in rows.items()]
    return [head, *body, *([who, "", *(cells.get(name, "") for name in names)] for who, cells in beside.items())]
