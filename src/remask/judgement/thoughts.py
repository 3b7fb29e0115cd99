"""The thought task: how well thoughts are denoised at each time, whether their question is read, and how they look."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from remask.config.build import build_sampler
from remask.config.schema import Recipe
from remask.data.batch import Batch
from remask.drawing import sampling_protocol
from remask.errors import UserError
from remask.evaluation.drawn_thoughts import drawn_measurements
from remask.evaluation.likelihood import evaluation_batches, spread_indices
from remask.evaluation.measurement import Measurement
from remask.evaluation.thoughts import LEVELS, row_thoughts, thought_measurements
from remask.generation import ended_at
from remask.judgement.text import JudgedText, rows_identity, rows_protocol
from remask.model import Model
from remask.randomness import keyed_generator
from remask.reasoning import thought_objective
from remask.samplers.base import Prompt, silent

TEXTS_A_QUESTION = 4
"""Texts drawn to each question."""
FEWEST = 2 * TEXTS_A_QUESTION
"""Texts that two questions need."""


def check_thoughts(model: Model, recipe: Recipe, text: JudgedText) -> None:
    """Refuses a model that draws no thoughts, and too few rows or texts.

    Raises:
        UserError: what does not fit.
    """
    thought_objective(model)
    rows = len(spread_indices(len(text.rows), recipe.evaluation.rows))
    if rows < 2:
        raise UserError(f"--task thought gives rows each other's questions, and there is {rows}: give 2 --rows or more")
    if recipe.sampling.count < FEWEST:
        raise UserError(
            f"--count {recipe.sampling.count}: --task thought draws {TEXTS_A_QUESTION} texts to each of two questions "
            f"or more. Give --count {FEWEST} or more"
        )
    build_sampler(recipe.sampling, model, seed=recipe.seed)


def judge_thoughts(model: Model, recipe: Recipe, text: JudgedText, *, levels: int = LEVELS) -> list[Measurement]:
    """Skill, accuracy and the worth of the question on held-out rows, and how some drawn thoughts look.

    Args:
        model: of thoughts.
        recipe: rows, draws over all levels, and how many texts are drawn how.
        text: held-out rows.
        levels: how many ranges of t.

    Raises:
        UserError: as `check_thoughts`.
    """
    check_thoughts(model, recipe, text)
    spec = recipe.evaluation
    batches = list(evaluation_batches(text.rows, limit=spec.rows))
    draws = -(-spec.draws // levels)
    eos_id, at_once = model.tokenizer.eos_id, spec.batch_size
    sums = row_thoughts(model, batches, levels=levels, draws=draws, seed=recipe.seed, eos_id=eos_id, at_once=at_once)
    shared = rows_protocol(model, recipe, text)
    judged = {"judged": "responses up to their first end of text"}
    protocol = {"levels": levels, "draws_a_level": draws, "rows": len(sums.tokens), **judged, **shared}
    identity = rows_identity(model, recipe, text, spread_indices(len(text.rows), spec.rows))
    return thought_measurements(sums, protocol=protocol, identity=identity) + _drawn(model, recipe, batches, shared)


def _drawn(model: Model, recipe: Recipe, batches: Sequence[Batch], protocol: dict[str, object]) -> list[Measurement]:
    """How drawn thoughts look; nothing where no two rows have a question of one length."""
    prompt, held_out = questions_of_one_length(batches, most=recipe.sampling.count // TEXTS_A_QUESTION)
    if len(held_out) < 2:
        return []
    eos = model.tokenizer.eos_id
    sampler, drawn = build_sampler(recipe.sampling, model, seed=recipe.seed), []
    was_training = model.network.training
    model.network.eval()
    for ids, fixed in zip(prompt.ids, prompt.fixed, strict=True):
        asked = Prompt(ids=ids.repeat(TEXTS_A_QUESTION, 1), fixed=fixed.repeat(TEXTS_A_QUESTION, 1))
        on_device = Prompt(ids=asked.ids.to(model.device), fixed=asked.fixed.to(model.device))
        same_noise = keyed_generator(recipe.seed, "thoughts", "drawn", device=model.device)
        rows = sampler(on_device, same_noise, silent).cpu().numpy()
        drawn.append([_response(row, fixed.numpy(), eos=eos) for row in rows])
    model.network.train(was_training)
    own = [_response(row, fixed.numpy(), eos=eos) for row, fixed in zip(held_out, prompt.fixed, strict=True)]
    length = prompt.ids.shape[1]
    facts = {"questions": len(own), "texts_a_question": TEXTS_A_QUESTION, **sampling_protocol(recipe, length=length)}
    facts.pop("texts_at_once", None)  # always those of one question
    return drawn_measurements(drawn, own, protocol={**protocol, **facts})


def questions_of_one_length(batches: Sequence[Batch], *, most: int) -> tuple[Prompt, list[npt.NDArray[np.int64]]]:
    """The first unlike questions of the commonest length, and the rows that they are of.

    Args:
        batches: rows of pairs.
        most: questions at most.
    """
    rows = [
        (ids, (part > 0) & ~to) for b in batches for ids, part, to in zip(b.ids, b.segments, b.targets, strict=True)
    ]
    lengths = Counter(int(given.sum()) for _, given in rows)
    commonest, _ = max(lengths.items(), key=lambda each: (each[1], -each[0]))
    unlike: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}
    for ids, given in rows:
        if int(given.sum()) == commonest:
            unlike.setdefault(tuple(ids[given].tolist()), (ids, given))
    chosen = list(unlike.values())[:most]
    prompt = Prompt(ids=torch.stack([ids for ids, _ in chosen]), fixed=torch.stack([given for _, given in chosen]))
    return prompt, [ids.numpy() for ids, _ in chosen]


def _response(ids: npt.NDArray[np.int64], fixed: npt.NDArray[np.bool_], *, eos: int) -> npt.NDArray[np.int64]:
    """The tokens behind the question, up to the end of text."""
    end = ended_at(ids.tolist(), fixed.tolist(), eos_id=eos)
    return ids[int(fixed.sum()) : end]
