"""`remask sample`: text from a trained model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import options as option
from remask.cli.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from remask.config.schema import Recipe
    from remask.drawing import Drawing
    from remask.model import Model
    from remask.runs import RunFolder, RunRecord
    from remask.samplers.base import Prompt


@option.with_sampling_options
def sample(
    run: option.RunReference = "last",
    count: Annotated[int | None, typer.Option(help="Texts to draw (for each prompt of a file).")] = None,
    prompt: Annotated[
        str | None, typer.Option(help="A prefix, or a text with gaps: 'def [MASK*8]: return [MASK*4]'.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file with one prompt a line; one text each, or --count.")
    ] = None,
    seed: option.Seed = None,
    device: option.Device = "auto",
    live: Annotated[bool, typer.Option("--live", help="Show the first text as it denoises.")] = False,
    as_json: option.AsJson = False,
    *,
    sampling: "Mapping[str, Any]",
) -> None:
    """Draw texts from a run's model, and keep them in its samples.jsonl. What is not given is the recipe's."""
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    record = registry.find(run)
    folder = registry.folder_of(record)
    recipe = option.changed_recipe(folder, {"sampling.count": count, **sampling, "seed": seed})
    refuse_without_likelihood(recipe)
    words = wanted_prompts(prompt, prompts, recipe, count=count)
    from remask.config.build import resolve_device
    from remask.config.saved import load_model

    model, _ = load_model(folder.model_path, device=resolve_device(device))
    option.refuse_steps(model, sampling["sampling.steps"])
    drawn = draw(model, recipe, words=words, live=live, record=record)
    keep(drawn, folder)
    for line in drawn.records:
        if as_json:
            typer.echo(json.dumps(line))
        else:
            typer.echo(f"{line['text']}\n{'─' * 40}")


def refuse_without_likelihood(recipe: "Recipe") -> None:
    """Refuses a model that gives text no probability and starts from no noise, so that there is nothing to draw from.

    Raises:
        UserError: naming what shows the model's text instead.
    """
    from remask.config.words import draws_text
    from remask.errors import UserError

    if getattr(recipe.network, "decoder", None) == "none":
        raise UserError(
            "network.decoder=none: this model compares texts and writes none. Judge it with remask evaluate, or give a "
            "run of recipe concept-diffusion"
        )
    if not draws_text(recipe):
        raise UserError(
            f"objective {recipe.objective.kind} writes texts again that it is told of, and draws none of its own. "
            "Its reconstructions are in metrics.jsonl and the report; give a run of recipe concept-diffusion"
        )


def wanted_prompts(
    prompt: str | None, prompts: Path | None, recipe: "Recipe", *, count: int | None
) -> "Sequence[str | None]":
    """The prompt of each text to draw; None where it starts from nothing.

    A model trained on pairs of a file gets `data.separator` behind each prompt, as in training.

    Raises:
        UserError: when both kinds of prompt are given, the file holds none, or the model needs one.
    """
    from remask.drawing import answers_prompts, ended_prompt
    from remask.errors import UserError

    if prompt is not None and prompts is not None:
        raise UserError("--prompt and --prompts are both given: put the prompt into the file, or leave the file out")
    if prompts is not None:
        return [ended_prompt(line, recipe) for line in read_prompts(prompts) for _ in range(count or 1)]
    if prompt is not None:
        return [ended_prompt(prompt, recipe)] * recipe.sampling.count
    if answers_prompts(recipe):
        raise UserError("this model answers prompts: give one with --prompt, or a file of them with --prompts")
    return [None] * recipe.sampling.count


def read_prompts(path: Path) -> list[str]:
    """The lines of a file, blank ones left out.

    Raises:
        UserError: when the file cannot be read, is not UTF-8, or has no prompt in it.
    """
    from remask.data.readers import text_lines
    from remask.errors import UserError

    found = [line.rstrip("\r\n") for line in text_lines(path)]
    kept = [line for line in found if line.strip()]
    if not kept:
        raise UserError(f"{path} holds no prompt: write one a line")
    return kept


def draw(
    model: "Model", recipe: "Recipe", *, words: "Sequence[str | None]", live: bool, record: "RunRecord"
) -> "Drawing":
    """Draws a text for each of `words`, says how far it has come, and shows the first on the way where `live`."""
    from contextlib import nullcontext

    from remask.cli.live import denoising
    from remask.config.build import sampling_steps
    from remask.drawing import draw_samples
    from remask.samplers.base import silent

    given = prompt_of(words, model, recipe)
    steps = sampling_steps(recipe.sampling, given.ids.shape[1])
    facts = {"words": words, "run": record.id, "step": record.step, "watch": Meter("drawn", things="texts").tell}
    with denoising(model.tokenizer, steps) if live else nullcontext(silent) as show:
        return draw_samples(model, recipe, given, on_step=show, **facts)


def prompt_of(words: "Sequence[str | None]", model: "Model", recipe: "Recipe") -> "Prompt":
    """The given tokens of each text, on the model's device."""
    from remask.drawing import drawn_length
    from remask.generation import encode_prompts, repeat_prompt

    length = drawn_length(model, recipe, words)
    given = [text for text in words if text is not None]
    if len(set(words)) > 1:
        return encode_prompts(given, model.tokenizer, length=length, device=model.device)
    return repeat_prompt(words[0], model.tokenizer, count=len(words), length=length, device=model.device)


def keep(drawn: "Drawing", folder: "RunFolder") -> None:
    """Writes the texts, and the course of the first, into the run's folder."""
    from remask.runs import write_atomic

    for line in drawn.records:
        folder.append_sample(line)
    write_atomic(folder.trajectory_path, json.dumps(drawn.course, ensure_ascii=False))
