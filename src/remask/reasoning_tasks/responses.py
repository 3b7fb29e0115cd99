"""Responses drawn by a model, in as many ways as it has of giving one.

Shape letters: B questions of a batch, L tokens of a row.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch

from remask.config.build import build_sampler
from remask.config.build.sampling import build_thinker
from remask.config.schema import Recipe, ThoughtObjectiveSpec
from remask.errors import UserError
from remask.generation import TEXTS_AT_ONCE, ended_at, generate
from remask.model import Model
from remask.objectives.prompt_dropout import unwrapped
from remask.objectives.thought import ThoughtDiffusion
from remask.randomness import derive_seed, keyed_generator
from remask.reasoning import Thinker, Thought, exchanged, random_thought, write_answers
from remask.samplers.base import Prompt, silent

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


Way = Callable[[Prompt, int], list[Response]]
"""(prompts, seed) → a response behind each."""


def ways_of(model: Model, recipe: Recipe) -> Mapping[str, Way]:
    """The ways in which a model gives a response, by name, its usual one first.

    One, `text`, for a model that draws text alone. A thought is read as it is, `trace`; a model that has learned to
    write answers behind its thoughts also writes them behind its own, `decoded`, behind pure noise, `decoded behind
    noise`, and behind the thought of the question before it in a batch, `decoded behind another thought`.
    """
    sampler = build_sampler(recipe.sampling, model, seed=recipe.seed)

    def drawn(prompt: Prompt, seed: int) -> list[Response]:
        return read(model, prompt, generate(model, sampler, prompt, seed=seed, at_once=len(prompt.ids)).tolist())

    objective = unwrapped(model.objective)
    if not isinstance(objective, ThoughtDiffusion):
        return {"text": drawn}
    if objective.answers is None:
        return {"trace": drawn}
    writer = Writer(model=model, think=build_thinker(recipe.sampling, model), mark=answer_mark(recipe))
    return {
        "trace": drawn,
        "decoded": writer.behind_own,
        "decoded behind noise": writer.behind_noise,
        "decoded behind another thought": writer.behind_another,
    }


def answer_mark(recipe: Recipe) -> str:
    """What a written answer follows in a response: nothing where it is the whole response."""
    spec = recipe.objective
    return (spec.answer_mark or "") if isinstance(spec, ThoughtObjectiveSpec) else ""


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Answers that a model of thoughts writes from left to right.

    Attributes:
        model: trained to write them.
        think: draws thoughts.
        mark: what each answer stands behind in a response, so that checkers know it.
    """

    model: Model
    think: Thinker
    mark: str

    def behind_own(self, prompt: Prompt, seed: int) -> list[Response]:
        """Behind the thought that `trace` reads with this seed."""
        with drawing(self.model):
            return self._written(prompt, self.think(prompt, self._generator(seed), silent))

    def behind_another(self, prompt: Prompt, seed: int) -> list[Response]:
        """Behind the thought of the question before it in the batch.

        Raises:
            UserError: there is no other question.
        """
        if len(prompt.ids) < 2:
            raise UserError("one question has no other whose thought it could be answered behind: ask two or more")
        with drawing(self.model):
            return self._written(prompt, exchanged(self.think(prompt, self._generator(seed), silent)))

    def behind_noise(self, prompt: Prompt, seed: int) -> list[Response]:
        """Behind no thought at all."""
        with drawing(self.model):
            return self._written(prompt, random_thought(self.model, prompt, generator=self._generator(seed)))

    def _written(self, prompt: Prompt, thought: Thought) -> list[Response]:
        longest = int((~prompt.fixed).sum(1).max())
        eos, decode = self.model.tokenizer.eos_id, self.model.tokenizer.decode
        found = []
        for row in write_answers(self.model, prompt, thought, length=longest).tolist():
            end = row.index(eos) if eos in row else None
            found.append(Response(text=self.mark + decode(row[:end]), ended=end is not None))
        return found

    def _generator(self, seed: int) -> torch.Generator:
        return keyed_generator(seed, "sample", 0, device=self.model.device)  # that of `generate`'s first batch


@contextmanager
def drawing(model: Model) -> Iterator[None]:
    """The network without dropout within the block."""
    was_training = model.network.training
    model.network.eval()
    try:
        yield
    finally:
        model.network.train(was_training)


def read(model: Model, prompt: Prompt, rows: Sequence[Sequence[int]]) -> list[Response]:
    """What stands behind the prompts of drawn rows, up to their ends of text."""
    found = []
    for row, fixed in zip(rows, prompt.fixed.tolist(), strict=True):
        end = ended_at(row, fixed, eos_id=model.tokenizer.eos_id)
        found.append(Response(text=model.tokenizer.decode(row[sum(fixed) : end]), ended=end is not None))
    return found


def token_counts(model: Model, prompts: Sequence[str]) -> list[int]:
    """Tokens of each prompt."""
    return [len(model.tokenizer.encode(prompt).ids) for prompt in prompts]


def respond(
    model: Model,
    prompts: Sequence[str],
    way: Way,
    *,
    length: int,
    seed: int,
    watch: Watch,
    at_once: int = TEXTS_AT_ONCE,
) -> list[Response | None]:
    """A response to each prompt; None where a prompt leaves no place for one.

    Args:
        model: its tokenizer, mask and device.
        prompts: in the order of the responses; of all lengths.
        way: how to draw.
        length: L.
        seed: with the number of the batch, the key of all draws.
        watch: is told after each batch.
        at_once: prompts of a batch; one left over at the end joins the batch before it, since some ways give a prompt
            what was drawn for another.
    """
    ids = [model.tokenizer.encode(prompt).ids.tolist() for prompt in prompts]
    able = [place for place, tokens in enumerate(ids) if len(tokens) < length]
    found: list[Response | None] = [None] * len(prompts)
    answered = 0
    for number, places in enumerate(_batches(able, most=at_once)):
        prompt = _rows([ids[place] for place in places], model, length=length)
        for place, response in zip(places, way(prompt, derive_seed(seed, "reasoning", number)), strict=True):
            found[place] = response
        answered += len(places)
        watch(answered, len(able))
    return found


def _batches(places: Sequence[int], *, most: int) -> Iterator[Sequence[int]]:
    """So many at a time; one that is left over joins those before it."""
    starts = list(range(0, max(min(1, len(places)), len(places) - 1), most))
    return (places[start:end] for start, end in pairwise([*starts, len(places)]))


def _rows(prompts: Sequence[Sequence[int]], model: Model, *, length: int) -> Prompt:
    rows = [[*tokens, *[model.mask_id] * (length - len(tokens))] for tokens in prompts]
    sizes = torch.tensor([[len(tokens)] for tokens in prompts], device=model.device)
    fixed = torch.arange(length, device=model.device) < sizes
    return Prompt(ids=torch.tensor(rows, device=model.device), fixed=fixed)
