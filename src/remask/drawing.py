"""Samples of a model under a recipe, each with the record that is kept of it: the one place that makes such records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from remask.config.build import build_rows, build_sampler, sampling_steps
from remask.config.schema import Recipe, SamplingSpec
from remask.data.store import TokenStore
from remask.evaluation.likelihood import spread_indices
from remask.generation import (
    TEXTS_AT_ONCE,
    Trajectory,
    check_length,
    ended_at,
    generate,
    has_gap,
    pair_prompt,
    together,
    unwatched,
)
from remask.model import Model
from remask.samplers.base import OnStep, Prompt, blank_prompt, silent


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """Samples, and what is kept of them.

    Attributes:
        ids: all tokens, with what may follow an end of text [N L].
        records: one line of samples.jsonl for each.
        course: how the first came about, for trajectory.json.
    """

    ids: Int[Tensor, "N L"]
    records: list[dict[str, Any]]
    course: dict[str, Any]


def draw_samples(
    model: Model,
    recipe: Recipe,
    prompt: Prompt,
    *,
    words: Sequence[str | None],
    run: str,
    step: int,
    on_step: OnStep = silent,
    watch: Callable[[int, int], None] = unwatched,
) -> Drawing:
    """Draws one sample a row of `prompt` with the recipe's sampler and seed.

    Args:
        model: the model, with the weights to draw with.
        recipe: says how to draw.
        prompt: given tokens [N L].
        words: the prompt of each sample as it was written, for the record; None for none.
        run: the id of the model's run.
        step: how far it was trained.
        on_step: sees the states of the first batch.
        watch: is told after each batch how many samples are drawn, of how many.
    """
    spec = recipe.sampling
    length = prompt.ids.shape[1]
    fixed = prompt.fixed.tolist()
    course = Trajectory(model.tokenizer, sampling_steps(spec, length), fixed[0])
    follow = together(course.record, on_step)
    sampler, at_once = build_sampler(spec, model, seed=recipe.seed), recipe.evaluation.batch_size
    ids = generate(model, sampler, prompt, seed=recipe.seed, on_step=follow, at_once=at_once, watch=watch)
    facts = {"sampler": spec.sampler, "steps": course.taken, "seed": recipe.seed}
    shared = {"run": run, "step": step, **facts, **own_keys(spec), "length": length}
    records = [
        {**shared, "prompt": given, "text": shown_text(row, free, model, spec), "ids": row}
        for given, row, free in zip(words, ids.tolist(), fixed, strict=True)
    ]
    return Drawing(ids=ids, records=records, course={**facts, **course.to_json()})


def shown_text(ids: Sequence[int], fixed: Sequence[bool], model: Model, spec: SamplingSpec) -> str:
    """A sample as text; where the recipe says `stop`, only up to the end of text that follows its prompt."""
    end = ended_at(ids, fixed, eos_id=model.tokenizer.eos_id) if spec.stop else None
    return model.tokenizer.decode(ids[:end])


def own_keys(spec: SamplingSpec) -> dict[str, Any]:
    """Temperature, nucleus, and every other key that a recipe sets and that changes what is drawn."""
    always = {"temperature": spec.temperature, "top_p": spec.top_p}
    named = {*always, "sampler", "steps", "count", "length"}
    usual = SamplingSpec()
    given = {name: getattr(spec, name) for name in SamplingSpec.model_fields if name not in named}
    return always | {name: value for name, value in given.items() if value != getattr(usual, name)}


def sampling_protocol(recipe: Recipe, *, length: int) -> dict[str, Any]:
    """What decides whether two figures of samples compare."""
    spec = recipe.sampling
    facts = {"sampler": spec.sampler, "steps": sampling_steps(spec, length), "length": length}
    at_once = recipe.evaluation.batch_size
    batches = {} if at_once == TEXTS_AT_ONCE else {"texts_at_once": at_once}
    return facts | own_keys(spec) | batches | {"seed": recipe.seed}


def answers_prompts(recipe: Recipe) -> bool:
    """Whether the recipe trains on text behind given tokens, so that text from nothing says little of its model."""
    return recipe.data.paired or bool(recipe.data.prefix)


def ended_prompt(text: str, recipe: Recipe) -> str:
    """A prompt as training had it: `data.separator` behind it where the recipe trains on pairs of columns.

    A prompt with gaps says itself what follows, and stays as it is.
    """
    end = recipe.data.separator if recipe.data.prompt_key is not None else None
    return text if end is None or has_gap(text) or text.endswith(end) else text + end


def drawn_length(model: Model, recipe: Recipe, words: Sequence[str | None]) -> int:
    """Tokens of a sample, prompt and all: what `sampling` says, else a row of training.

    A model of rows with a prefix was trained to add data.length − data.prefix tokens, and adds so many to a shorter
    prompt too; a prompt with gaps says itself how much is free.

    Args:
        model: the model that will draw.
        recipe: says how long samples are.
        words: the prompt of each sample; None for none.

    Raises:
        UserError: samples are to be longer than the rows of training.
    """
    length = check_length(recipe.sampling.length or recipe.data.length, model)
    given = [text for text in words if text is not None]
    if not recipe.data.prefix or recipe.sampling.length is not None or not given or any(map(has_gap, given)):
        return length
    longest = max(len(model.tokenizer.encode(text)) for text in given)
    return min(length, longest + recipe.data.length - recipe.data.prefix) if longest < length else length


def own_prompts(model: Model, recipe: Recipe, store: TokenStore, *, count: int) -> tuple[Prompt, list[str | None]]:
    """What a recipe's samples start from when nobody says: nothing, or the given tokens of held-out rows.

    Args:
        model: the model that will draw.
        recipe: says how long samples are.
        store: a held-out split, spread evenly over by the prompts.
        count: how many samples; with fewer rows, prompts are taken again.

    Returns:
        the prompt on the model's device, and its texts.
    """
    length = check_length(recipe.sampling.length or recipe.data.length, model)
    if not answers_prompts(recipe):
        return blank_prompt(count, length, device=model.device), [None] * count
    rows = build_rows(recipe.data.model_copy(update={"length": length}), store)
    chosen = np.resize(spread_indices(len(rows), count), count)  # repeated where there are fewer
    prompt = pair_prompt(rows.batch(chosen), device=model.device)
    given = zip(prompt.ids.tolist(), prompt.fixed.tolist(), strict=True)
    return prompt, [model.tokenizer.decode([i for i, known in zip(*row, strict=True) if known]) for row in given]
