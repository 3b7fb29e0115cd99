"""A thought drawn behind a question, and the answer to it: read off the thought, or written behind it token by token.

A writer can hide a useless thought, because it reads the question, too. So answers are to be written behind three of
them: the thought that was drawn, one of pure noise (`random_thought`), and one of another question (`exchanged`).

Shape letters: B samples, L places of a row, N of a row as the network reads it, A tokens of an answer, W features of a
vector, V vocabulary, M vectors of thoughts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from remask.errors import UserError
from remask.gaussian import GaussianProcess
from remask.model import Model
from remask.objectives.prompt_dropout import unwrapped
from remask.objectives.readouts import Estimate
from remask.objectives.thought import ThoughtDiffusion
from remask.objectives.thought_rows import ThoughtRows, rows_of
from remask.samplers.base import Frame, OnStep, Prompt, Transform, silent
from remask.samplers.gaussian import LatentFrame

Walk = Callable[..., Tensor]
"""`samplers.gaussian.ddpm`, `ddim` or `heun`."""


@dataclass(frozen=True, kw_only=True)
class Thought:
    """What stands in the free places of some rows.

    Attributes:
        ids: the rows, given tokens in their places [B L].
        vectors: as `ThoughtRows` of the prompts have them; read where the thought stands [B N W].
        t: the time at which a network is to read them.
    """

    ids: Int[Tensor, "B L"]
    vectors: Float[Tensor, "B N W"]
    t: float


Thinker = Callable[[Prompt, torch.Generator, OnStep], Thought]
"""(prompt, generator, on_step) → thoughts behind the prompts of a batch."""


def thought_objective(model: Model) -> ThoughtDiffusion:
    """The objective of a model of thoughts.

    Raises:
        UserError: for any other model.
    """
    objective = unwrapped(model.objective)
    if not isinstance(objective, ThoughtDiffusion):
        raise UserError("this model draws no thoughts: give a run of a thought, e.g. of recipe thought-arithmetic")
    return objective


@dataclass(kw_only=True)
class ThoughtDenoiser:
    """A model of thoughts behind given prompts, as a sampler of vectors sees it.

    Attributes:
        model: network and objective.
        prompt: the questions; all of a row but its given tokens is thought.
        guidance: classifier-free, away from the thought without its question (arXiv:2207.12598, equation 6); 0: none.
        transform: changes the log-probabilities of tokens.
        ids: the rows with the likeliest tokens of the last estimate; before the first, masks [B L].
    """

    model: Model
    prompt: Prompt
    guidance: float
    transform: Transform
    ids: Int[Tensor, "B L"] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = self.prompt.over(torch.full_like(self.prompt.ids, self.model.mask_id))
        self.objective = thought_objective(self.model)

    @property
    def process(self) -> GaussianProcess:
        """The noise on vectors."""
        return self.objective.diffusion.process

    def clean(
        self, z: Float[Tensor, "B N W"], t: Float[Tensor, "B"], *, before: Float[Tensor, "B N W"] | None
    ) -> Float[Tensor, "B N W"]:
        """The estimate of the clean vectors, zero where no thought stands."""
        rows = rows_behind(self.model, self.prompt)
        estimate = self._estimate(z, t, before, rows=rows)
        self.ids = self.prompt.ids.masked_scatter(rows.free, estimate.log_p.argmax(-1))
        return rows.in_places(estimate.clean.to(z.dtype))

    def _estimate(
        self,
        z: Float[Tensor, "B N W"],
        t: Float[Tensor, "B"],
        before: Float[Tensor, "B N W"] | None,
        *,
        rows: ThoughtRows,
    ) -> Estimate:
        readout, here = self.objective.readout, rows.noisy
        noisy, each = z[here], t[here.nonzero()[:, 0]]
        before = before if self.objective.memory else None
        told = t.clamp_min(self.objective.diffusion.t_min)  # the network has learned of no less noise
        asked = rows.asked
        if not self.guidance or not bool(self.prompt.fixed.any()):
            said = ask(self.model, z, told, asked, before=before)
            return readout.reshaped(readout.read(said, noisy, each, rows), rows, self.transform)
        blind = {**asked, "ids": torch.where(here, asked["ids"], self.model.mask_id)}
        said = ask(
            self.model,
            torch.cat([z, z]),
            torch.cat([told, told]),
            {name: torch.cat([table, blind[name]]) for name, table in asked.items()},
            before=None if before is None else torch.cat([before, before]),
        )
        given, dropped = (readout.read(part, noisy, each, rows) for part in said.chunk(2))
        return readout.reshaped(readout.away(given, dropped, rows, scale=self.guidance), rows, self.transform)


def rows_behind(model: Model, prompt: Prompt) -> ThoughtRows:
    """What stands behind prompts, as the codec of a model has it; each row is one document."""
    return rows_of(model.network, ids=prompt.ids, free=~prompt.fixed, segments=torch.ones_like(prompt.ids))


def ask(
    model: Model,
    z: Float[Tensor, "B N W"],
    t: Float[Tensor, "B"],
    asked: Mapping[str, Tensor],
    *,
    before: Float[Tensor, "B N W"] | None,
    **answer: Tensor,
) -> Float[Tensor, "M X"]:
    """What the network of a model says of the thoughts of whole rows.

    Args:
        model: of thoughts.
        z: vectors where the thought stands.
        t: the time of each row.
        asked: the rows, as `ThoughtRows.asked` has them.
        before: the estimate made just before, or None.
        answer: `answer` and `wanted`, as `ThoughtNetwork` takes them.
    """
    return cast(Any, model.network)(z, t, before=before, **asked, **answer)


@torch.no_grad()
def draw_thought(
    model: Model,
    prompt: Prompt,
    *,
    walk: Walk,
    times: Sequence[float],
    guidance: float,
    transform: Transform,
    generator: torch.Generator,
    on_step: OnStep = silent,
) -> Thought:
    """A thought for each row of a prompt: its tokens are the likeliest of the last estimate.

    Args:
        model: of thoughts.
        prompt: questions.
        walk: a sampler of vectors.
        times: from the largest that the model has learned to 0.
        guidance: as in `ThoughtDenoiser`.
        transform: as there.
        generator: on the model's device; all draws are made from it.
        on_step: sees the likeliest tokens of each step's estimate; masks before the first.
    """
    denoiser = ThoughtDenoiser(model=model, prompt=prompt, guidance=guidance, transform=transform)

    def show(frame: LatentFrame) -> None:
        on_step(Frame(step=frame.step, t=frame.t, z=denoiser.ids))

    vectors = walk(denoiser, times, start=_noise(model, prompt, generator), generator=generator, on_step=show)
    return Thought(ids=denoiser.ids, vectors=vectors, t=denoiser.objective.diffusion.t_min)


def random_thought(model: Model, prompt: Prompt, *, generator: torch.Generator) -> Thought:
    """Pure noise in the place of thoughts, for an answer to be written behind: who thought nothing."""
    vectors = _noise(model, prompt, generator)
    blank = prompt.over(torch.full_like(prompt.ids, model.mask_id))
    return Thought(ids=blank, vectors=vectors, t=thought_objective(model).diffusion.t_min)


def exchanged(thought: Thought) -> Thought:
    """Each row's thought given to the next row: one of another question.

    Prompts may differ in length: where a row's free place was another's given token, its vector is nobody's thought.
    So give rows of prompts of one length, or take the difference into account.
    """
    return replace(thought, ids=thought.ids.roll(1, 0), vectors=thought.vectors.roll(1, 0))


@torch.no_grad()
def write_answers(model: Model, prompt: Prompt, thought: Thought, *, length: int) -> Int[Tensor, "B A"]:
    """Answers written greedily behind thoughts, from left to right, up to their ends of text.

    Args:
        model: trained with `objective.answer_weight` above 0.
        prompt: the questions.
        thought: what the writer sees behind them, in the places that the prompt leaves free.
        length: the most tokens of an answer.

    Returns:
        the tokens, filled up with ends of text; no longer than the longest answer.

    Raises:
        UserError: the model has not learned to write answers.
    """
    if thought_objective(model).answers is None:
        raise UserError(
            "this model was not trained to write answers behind its thoughts: train one with "
            "objective.answer_weight=0.01"
        )
    readout, eos = thought_objective(model).readout, model.tokenizer.eos_id
    rows, count = rows_behind(model, prompt), len(prompt.ids)
    answer = prompt.ids.new_zeros(count, 0)
    t = torch.full((count,), thought.t, dtype=torch.float32, device=prompt.ids.device)
    ended = torch.zeros(count, dtype=torch.bool, device=prompt.ids.device)
    while answer.shape[1] < length and not bool(ended.all()):
        asked = torch.nn.functional.pad(answer, (0, 1), value=eos)
        wanted = torch.zeros_like(asked, dtype=torch.bool)
        wanted[:, -1] = True
        logits = ask(model, thought.vectors, t, rows.asked, before=None, answer=asked, wanted=wanted)
        token = readout.spoken(logits).argmax(-1).masked_fill(ended, eos)
        answer, ended = torch.cat([answer, token[:, None]], 1), ended | (token == eos)
    return answer


def _noise(model: Model, prompt: Prompt, generator: torch.Generator) -> Float[Tensor, "B N W"]:
    process, rows = thought_objective(model).diffusion.process, rows_behind(model, prompt)
    drawn = process.draw_prior(len(prompt.ids), *rows.drawn, generator=generator, dtype=torch.float32)
    return rows.placed(drawn)
