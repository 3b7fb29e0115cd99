"""The answers task: how many prompts of held-out pairs are answered right."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from random import Random

import numpy as np
import torch

from remask.config.build import build_sampler
from remask.config.build.answers import build_judging
from remask.config.schema import Recipe
from remask.data.documents import Pair
from remask.data.store import TokenStore
from remask.drawing import sampling_protocol
from remask.errors import UserError
from remask.evaluation.answers import Answer, answer_measurements, most_common_response
from remask.evaluation.likelihood import spread_indices
from remask.evaluation.measurement import Measurement
from remask.generation import check_length, ended_at, generate
from remask.judgement.text import JudgedText
from remask.model import Model
from remask.randomness import derive_seed
from remask.samplers.base import Prompt

GUESSES = 20
"""Random answers to each prompt, whose mean stands beside the model's."""


def check_answers(model: Model, recipe: Recipe, text: JudgedText) -> None:
    """Refuses a text without pairs.

    Raises:
        UserError: when it holds none, or the model was trained on shorter rows than samples are to be.
    """
    text.corpus.pairs(recipe.evaluation.split)
    check_length(recipe.sampling.length or recipe.data.length, model)


def judge_answers(model: Model, recipe: Recipe, text: JudgedText) -> list[Measurement]:
    """How many prompts of held-out pairs are answered right.

    Raises:
        UserError: when the text holds no pairs, or no prompt leaves a place for a response.
    """
    pairs = list(text.corpus.pairs(recipe.evaluation.split))
    chosen = spread_indices(len(pairs), recipe.sampling.count)
    length = check_length(recipe.sampling.length or recipe.data.length, model)
    answers = _answers(model, recipe, text.rows.store, [(int(k), pairs[k]) for k in chosen], length=length)
    judging = build_judging(recipe)
    common = most_common_response(pair.response for pair in text.corpus.pairs("train"))
    trivial: dict[str, Callable[[Answer], Sequence[str]]] = {"most common response": lambda answer: [common]}
    if (guess := judging.guess) is not None:
        draw = Random(derive_seed(recipe.seed, "guess"))
        guesses = {answer.prompt: [guess(answer.prompt, draw) for _ in range(GUESSES)] for answer in answers}
        trivial["random guess"] = lambda answer: guesses[answer.prompt]
    protocol = {
        "split": recipe.evaluation.split,
        "checker": judging.name,
        **sampling_protocol(recipe, length=length),
        "prompts_too_long": sum(answer.response is None for answer in answers),
        "data": text.corpus.fingerprint,
    }
    return answer_measurements(answers, right=judging.right, trivial=trivial, protocol=protocol)


def _answers(
    model: Model, recipe: Recipe, store: TokenStore, pairs: Sequence[tuple[int, Pair]], *, length: int
) -> list[Answer]:
    """A response drawn to each prompt that leaves a place for one; prompts of all lengths share a batch."""
    assert store.prompt_lengths is not None, "the corpus holds pairs"
    sizes = [int(store.prompt_lengths[k]) for k, _ in pairs]
    able = [place for place, size in enumerate(sizes) if size < length]
    if not able:
        raise UserError(f"no prompt is shorter than a sample of {length} tokens: raise --length or data.length")
    ids = torch.full((len(able), length), model.mask_id)
    fixed = torch.zeros_like(ids, dtype=torch.bool)
    for row, place in enumerate(able):
        start, size = int(store.document_offsets[pairs[place][0]]), sizes[place]
        ids[row, :size] = torch.from_numpy(store.ids[start : start + size].astype(np.int64))
        fixed[row, :size] = True
    prompt = Prompt(ids=ids.to(model.device), fixed=fixed.to(model.device))
    sampler, at_once = build_sampler(recipe.sampling, model, seed=recipe.seed), recipe.evaluation.batch_size
    drawn = generate(model, sampler, prompt, seed=recipe.seed, at_once=at_once).tolist()
    behind = recipe.data.separator or ""  # a checker is asked about the prompt as the source has it
    prompts = [pair.prompt.removesuffix(behind) for _, pair in pairs]
    empty = partial(Answer, response=None, ended=False)
    answers = [empty(prompt=asked, reference=p.response) for asked, (_, p) in zip(prompts, pairs, strict=True)]
    for place, row, given in zip(able, drawn, fixed.tolist(), strict=True):
        end = ended_at(row, given, eos_id=model.tokenizer.eos_id)
        response = model.tokenizer.decode(row[sizes[place] : end])
        answers[place] = replace(answers[place], response=response, ended=end is not None)
    return answers
