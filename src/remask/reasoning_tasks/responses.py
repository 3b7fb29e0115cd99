"""Responses drawn by a model, in as many ways as it has of giving one.

Shape letters: B questions of a batch, L tokens of a row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from remask.config.build import build_sampler
from remask.config.schema import Recipe
from remask.generation import TEXTS_AT_ONCE, ended_at, generate
from remask.model import Model
from remask.randomness import derive_seed
from remask.samplers.base import Prompt

Way = Callable[[Prompt, int], Int[Tensor, "B L"]]
"""(prompts, seed) → rows with the prompts in place and a response behind each."""

Watch = Callable[[int, int], None]
"""Is told how many questions are answered, of how many."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """What a model said.

    Attributes:
        text: up to the end of text.
        ended: whether there was one.
    """

    text: str
    ended: bool


def ways_of(model: Model, recipe: Recipe) -> Mapping[str, Way]:
    """The ways in which a model gives a response, by name: one, its text, for a model that draws text alone."""
    sampler = build_sampler(recipe.sampling, model, seed=recipe.seed)
    return {"text": lambda prompt, seed: generate(model, sampler, prompt, seed=seed)}


def token_counts(model: Model, prompts: Sequence[str]) -> list[int]:
    """Tokens of each prompt."""
    return [len(model.tokenizer.encode(prompt).ids) for prompt in prompts]


def respond(
    model: Model, prompts: Sequence[str], way: Way, *, length: int, seed: int, watch: Watch
) -> list[Response | None]:
    """A response to each prompt; None where a prompt leaves no place for one.

    Args:
        model: its tokenizer, mask and device.
        prompts: in the order of the responses; of all lengths.
        way: how to draw.
        length: L.
        seed: with the number of the batch, the key of all draws.
        watch: is told after each batch.
    """
    ids = [model.tokenizer.encode(prompt).ids.tolist() for prompt in prompts]
    able = [place for place, tokens in enumerate(ids) if len(tokens) < length]
    found: list[Response | None] = [None] * len(prompts)
    for number, start in enumerate(range(0, len(able), TEXTS_AT_ONCE)):
        places = able[start : start + TEXTS_AT_ONCE]
        prompt = _rows([ids[place] for place in places], model, length=length)
        drawn = way(prompt, derive_seed(seed, "reasoning", number)).tolist()
        for place, row, fixed in zip(places, drawn, prompt.fixed.tolist(), strict=True):
            end = ended_at(row, fixed, eos_id=model.tokenizer.eos_id)
            text = model.tokenizer.decode(row[len(ids[place]) : end])
            found[place] = Response(text=text, ended=end is not None)
        watch(start + len(places), len(able))
    return found


def _rows(prompts: Sequence[Sequence[int]], model: Model, *, length: int) -> Prompt:
    rows = [[*tokens, *[model.mask_id] * (length - len(tokens))] for tokens in prompts]
    sizes = torch.tensor([[len(tokens)] for tokens in prompts], device=model.device)
    fixed = torch.arange(length, device=model.device) < sizes
    return Prompt(ids=torch.tensor(rows, device=model.device), fixed=fixed)
