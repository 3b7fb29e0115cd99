"""`remask sample`: text from a trained model."""

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from remask.config.schema import Recipe
    from remask.model import Model
    from remask.runs import RunFolder

RunReference = Annotated[str, typer.Argument(metavar="RUN", help="A run id, a unique prefix, `last`, or a folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, and nothing else.")]


def sample(
    run: RunReference = "last",
    count: Annotated[int | None, typer.Option(help="Texts to draw.")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens a text.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ancestral, confidence or left_to_right.")] = None,
    prompt: Annotated[
        str | None, typer.Option(help="A prefix, or a text with gaps: 'def [MASK*8]: return [MASK*4]'.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Below 1 is bolder.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus: the share of probability kept, above 0 to 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all draws.")] = None,
    device: Device = "auto",
    live: Annotated[bool, typer.Option("--live", help="Show the first text as it denoises.")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw texts from a run's model, and keep them in its samples.jsonl. What is not given is the recipe's."""
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    record = registry.find(run)
    folder = registry.folder_of(record)
    options = {
        "sampling.count": count,
        "sampling.length": length,
        "sampling.steps": steps,
        "sampling.sampler": sampler,
        "sampling.temperature": temperature,
        "sampling.top_p": top_p,
        "seed": seed,
    }
    recipe = changed_recipe(folder, options)
    from remask.config.build import resolve_device
    from remask.config.saved import load_model

    model, _ = load_model(folder.model_path, device=resolve_device(device))
    refuse_steps(model, steps)
    for line in draw(model, recipe, prompt=prompt, live=live, run=record.id, step=record.step, folder=folder):
        if as_json:
            typer.echo(json.dumps(line))
        else:
            typer.echo(f"{line['text']}\n{'─' * 40}")


def changed_recipe(folder: "RunFolder", options: "Mapping[str, Any]") -> "Recipe":
    """The run's recipe with the options that were given; what is wrong with one is said in the option's name."""
    from remask.config.load import load_recipe
    from remask.errors import UserError

    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    try:
        return load_recipe(str(folder.recipe_path), given)
    except UserError as error:
        message = re.sub(r"\b(?:sampling|evaluation)\.([a-z_]+)(=?)", _as_option, str(error))
        raise UserError(re.sub(r"^seed:", "--seed:", message, flags=re.MULTILINE)) from None


def _as_option(key: re.Match[str]) -> str:
    """`sampling.top_p` as `--top-p`, and `sampling.sampler=` as `--sampler `."""
    return f"--{key[1].replace('_', '-')}{' ' if key[2] else ''}"


def refuse_steps(model: "Model", steps: int | None) -> None:
    """An autoregressive model takes one step a token, whatever is asked.

    Raises:
        UserError: when steps are given for such a model.
    """
    from remask.errors import UserError

    if model.process is None and steps is not None:
        raise UserError(f"--steps {steps}: an autoregressive model draws one token a step. Leave --steps out")


def draw(
    model: "Model",
    recipe: "Recipe",
    *,
    prompt: str | None,
    live: bool,
    run: str,
    step: int,
    folder: "RunFolder",
) -> list[dict[str, Any]]:
    """Draws the recipe's number of texts and writes them, and the course of the first, into the run's folder."""
    from remask.config.build import build_sampler, sampling_steps
    from remask.generation import Trajectory, check_length, generate, repeat_prompt, together
    from remask.runs import write_atomic

    spec = recipe.sampling
    length = check_length(spec.length or recipe.data.length, model)
    given = repeat_prompt(prompt, model.tokenizer, count=spec.count, length=length, device=model.device)
    course = Trajectory(model.tokenizer, sampling_steps(spec, length), given.fixed[0].tolist())
    sampler = build_sampler(spec, model)
    if live:
        from remask.cli.live import denoising

        with denoising(model.tokenizer, course.steps) as show:
            ids = generate(model, sampler, given, seed=recipe.seed, on_step=together(course.record, show))
    else:
        ids = generate(model, sampler, given, seed=recipe.seed, on_step=course.record)
    facts = {"sampler": spec.sampler, "steps": course.steps, "seed": recipe.seed}
    lines = [
        {
            "run": run,
            "step": step,
            **facts,
            "temperature": spec.temperature,
            "top_p": spec.top_p,
            "length": length,
            "prompt": prompt,
            "text": model.tokenizer.decode(row),
            "ids": row,
        }
        for row in ids.tolist()
    ]
    for line in lines:
        folder.append_sample(line)
    write_atomic(folder.trajectory_path, json.dumps({**facts, **course.to_json()}, ensure_ascii=False))
    return lines
