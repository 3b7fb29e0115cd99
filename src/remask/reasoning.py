"""A thought drawn behind a question, and the answer to it: read off the thought, or written behind it token by token.

A writer can hide a useless thought, because it reads the question, too. So answers are to be written behind three of
them: the thought that was drawn, one of pure noise (`random_thought`), and one of another question (`exchanged`).

Shape letters: B samples, L places of a row, A tokens of an answer, W features of a vector, V vocabulary, M places of
thoughts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.errors import UserError
from remask.gaussian import GaussianProcess
from remask.model import Model
from remask.objectives.prompt_dropout import unwrapped
from remask.objectives.readouts import Estimate
from remask.objectives.thought import ThoughtDiffusion, codec_of
from remask.samplers.base import Frame, OnStep, Prompt, Transform, silent
from remask.samplers.gaussian import LatentFrame

Walk = Callable[..., Tensor]
"""`samplers.gaussian.ddpm`, `ddim` or `heun`."""


@dataclass(frozen=True, kw_only=True)
class Thought:
    """What stands in the free places of some rows.

    Attributes:
        ids: the rows, given tokens in their places [B L].
        vectors: of the free places; not read elsewhere [B L W].
        t: the time at which a network is to read them.
    """

    ids: Int[Tensor, "B L"]
    vectors: Float[Tensor, "B L W"]
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
        self, z: Float[Tensor, "B L W"], t: Float[Tensor, "B"], *, before: Float[Tensor, "B L W"] | None
    ) -> Float[Tensor, "B L W"]:
        """The estimate of the clean vectors, zero at given tokens."""
        free, vectors = ~self.prompt.fixed, codec_of(self.model.network).vectors()
        estimate = self._estimate(z, t, before, free=free, vectors=vectors)
        self.ids = self.prompt.ids.masked_scatter(free, estimate.log_p.argmax(-1))
        full = torch.zeros_like(z)
        full[free] = estimate.clean.to(z.dtype)
        return full

    def _estimate(
        self,
        z: Float[Tensor, "B L W"],
        t: Float[Tensor, "B"],
        before: Float[Tensor, "B L W"] | None,
        *,
        free: Bool[Tensor, "B L"],
        vectors: Float[Tensor, "V W"],
    ) -> Estimate:
        readout, rows = self.objective.readout, free.nonzero()[:, 0]
        before = before if self.objective.memory else None
        told = t.clamp_min(self.objective.diffusion.t_min)  # the network has learned of no less noise
        ids = self.prompt.ids
        if not self.guidance or not bool(self.prompt.fixed.any()):
            said = ask(self.model, z, told, ids=ids, free=free, before=before)
            return readout.reshaped(readout.read(said, z[free], t[rows], vectors), vectors, self.transform)
        blind = torch.where(free, ids, self.model.mask_id)
        twice = None if before is None else torch.cat([before, before])
        said = ask(
            self.model,
            torch.cat([z, z]),
            torch.cat([told, told]),
            ids=torch.cat([ids, blind]),
            free=torch.cat([free, free]),
            before=twice,
        )
        given, dropped = (readout.read(part, z[free], t[rows], vectors) for part in said.chunk(2))
        guided = readout.away(given, dropped, vectors, scale=self.guidance)
        return readout.reshaped(guided, vectors, self.transform)


def ask(
    model: Model,
    z: Float[Tensor, "B L W"],
    t: Float[Tensor, "B"],
    *,
    ids: Int[Tensor, "B L"],
    free: Bool[Tensor, "B L"],
    before: Float[Tensor, "B L W"] | None,
    **answer: Tensor,
) -> Float[Tensor, "M X"]:
    """What the network of a model says at the free places of whole rows; each row is one document.

    Args:
        model: of thoughts.
        z: vectors of the free places.
        t: the time of each row.
        ids: tokens of the others.
        free: the thought.
        before: the estimate made just before, or None.
        answer: `answer` and `wanted`, as `ThoughtNetwork` takes them.
    """
    network = cast(Any, model.network)
    segments = torch.ones_like(ids)
    return network(z, t, ids=ids, noisy=free, segments=segments, before=before, positions=free, **answer)


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
            "this model was not trained to write answers behind its thoughts: train one with objective.answer_weight=1"
        )
    readout, eos = thought_objective(model).readout, model.tokenizer.eos_id
    rows = len(prompt.ids)
    answer = prompt.ids.new_zeros(rows, 0)
    t = torch.full((rows,), thought.t, dtype=torch.float32, device=prompt.ids.device)
    ended = torch.zeros(rows, dtype=torch.bool, device=prompt.ids.device)
    while answer.shape[1] < length and not bool(ended.all()):
        asked = torch.nn.functional.pad(answer, (0, 1), value=eos)
        wanted = torch.zeros_like(asked, dtype=torch.bool)
        wanted[:, -1] = True
        logits = ask(
            model,
            thought.vectors,
            t,
            ids=prompt.ids,
            free=~prompt.fixed,
            before=None,
            answer=asked,
            wanted=wanted,
        )
        token = readout.spoken(logits).argmax(-1).masked_fill(ended, eos)
        answer, ended = torch.cat([answer, token[:, None]], 1), ended | (token == eos)
    return answer


def _noise(model: Model, prompt: Prompt, generator: torch.Generator) -> Float[Tensor, "B L W"]:
    process = thought_objective(model).diffusion.process
    width = codec_of(model.network).width
    return process.draw_prior(*prompt.ids.shape, width, generator=generator, dtype=torch.float32)
