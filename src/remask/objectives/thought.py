r"""Denoising a thought: Gaussian diffusion of the vectors of a response, given its question.

With E a table of token vectors of mean square 1, x = E[token] at each place of a response and z_t = α_t x + σ_t ε,
a network reads the question, z_t and t, and is trained to say which tokens those were,

    E_{t, ε} [ −log p(token_i | z_t, t, question) ],        t = t_0 + (1 − t_0) u^κ,  u uniform,                 (1)

the mean over places (CDCD, arXiv:2211.15089, equation 7). The cross-entropy keeps the table from collapsing, which a
squared error would not. The estimate x̂ = Σ p E is the posterior mean where p is the posterior, and all that a sampler
needs. As ablations, and where the vectors are a codec's, the loss is a weighted squared error instead
(`remask.objectives.gaussian`; `remask.objectives.thought_rows`).

Nothing here is a likelihood of text: at small t the places are shown almost as they are. What the network is judged by
is (1) with u uniform and κ = 1, under a name of its own.

Shape letters: B rows, L places of a row, A places of an answer, K vectors of noise a row, W features of a vector, V
vocabulary, M vectors that are denoised, T tokens that they stand for (as many, where each token has one).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from remask.data.batch import Batch
from remask.objectives.base import Assessment, Loss, Network, scatter_positions
from remask.objectives.gaussian import LatentDiffusion, SkillByTime
from remask.objectives.readouts import Readout, Seen
from remask.objectives.thought_rows import ThoughtRows, rows_of
from remask.objectives.without_likelihood import WithoutLikelihood, clean_nats
from remask.objectives.written_answers import WrittenAnswers
from remask.randomness import batch_normal, batch_uniform
from remask.schedules import stratified

VARIANCE = 1.0
"""Mean square of a coordinate of a vector."""


@runtime_checkable
class Warp(Protocol):
    """What a network knows of its loss at each time, and where it is therefore trained."""

    def __call__(self, u: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) → where in [0, 1) training times are."""
        ...

    def terms(self, loss: Tensor, where: Tensor) -> dict[str, Tensor]:
        """Sums of losses at places in [0, 1], by which it learns."""
        ...

    def learn(self, terms: Mapping[str, float]) -> None:
        """Takes in the sums of a step."""
        ...


ThoughtLoss = Callable[[Readout, Seen], tuple[Float[Tensor, "M"], Float[Tensor, "M W"]]]
"""What a network said of M vectors to the loss of each, and to x̂ without a gradient."""


def cross_entropy(readout: Readout, seen: Seen) -> tuple[Float[Tensor, "T"], Float[Tensor, "M W"]]:
    """−log p of the clean tokens, in nats: equation (1)."""
    estimate = readout.estimate(seen)
    return clean_nats(estimate.log_p, seen.rows.tokens), estimate.clean.detach()


def squared_error(readout: Readout, seen: Seen) -> tuple[Float[Tensor, "M"], Float[Tensor, "M W"]]:
    """The weighted squared error of what the readout speaks of, the mean over a vector's coordinates."""
    error, clean = readout.weighted_error(seen)
    return error.mean(-1), clean


@dataclass(frozen=True, kw_only=True)
class ThoughtDiffusion(WithoutLikelihood):
    """Equation (1) as an objective.

    Attributes:
        diffusion: noise, times and, for a squared error, its weights.
        loss: `cross_entropy` or `squared_error`.
        readout: what the network's words amount to.
        memory: share of the steps in which the network reads its own first estimate, made without a gradient
            (self-conditioning, arXiv:2208.04202, section 3.2), in [0, 1].
        answers: what of a response is also written from left to right behind its thought; None: nothing.
        skill: by ranges of t, for the record.
        remembering: whether this step is one in which the estimate is read.
    """

    diffusion: LatentDiffusion
    loss: ThoughtLoss
    readout: Readout
    memory: float
    answers: WrittenAnswers | None
    skill: SkillByTime
    remembering: bool = False

    @property
    def quantity(self) -> str:
        """Equation (1) at uniform times."""
        return "thought_nats_per_token"

    @property
    def trivial_loss(self) -> Mapping[str, float]:
        """The training loss of who has learned nothing.

        None for the cross-entropy, which is judged as it is, nor where nats of written answers are part of the loss.
        """
        alone = self.loss is not cross_entropy and self.answers is None
        return self.readout.trivial_loss(variance=VARIANCE) if alone else {}

    def at(self, step: int) -> "ThoughtDiffusion":
        """The objective of a step: the first remembers, and as many of those after it as the share says."""
        return replace(self, remembering=math.ceil(step * self.memory) > math.ceil((step - 1) * self.memory))

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """The loss of the thought of every row at one time a row; noise is keyed by an example's place in the batch."""
        t = self._times(network, generator, batch)
        rows = rows_in(batch, network)
        noise = batch_normal(generator, batch, *rows.drawn)
        seen = self.look(network, rows, t=t, noise=noise, remembering=self.remembering)
        loss, clean = self.loss(self.readout, seen)
        nats = rows.held(loss)
        with torch.no_grad():
            terms = {"thought_loss": nats.sum(), **self.skill.terms(clean - seen.x, seen.t)}
            if (warp := warp_of(network)) is not None:
                terms |= warp.terms(loss, self.diffusion.placed(seen.t))
        if self.answers is not None:
            written, places = self._answer_nats(network, batch, generator=generator)
            terms |= {"answer_nats": written.detach().sum(), "answer_tokens": places.sum().to(nats.dtype)}
            nats = nats + written * self.answers.factor(places, batch)
        return Loss(nats, batch.targets.to(nats.dtype), terms)

    def diagnostics(self, network: nn.Module, terms: Mapping[str, float]) -> dict[str, float]:
        """Skill by ranges of t (see `SkillByTime.figures`), and nats a token of written answers, for the record."""
        del network
        count = terms.get("answer_tokens", 0.0)
        written = {"answer_nats_per_token": terms["answer_nats"] / count} if count else {}
        return {**self.skill.figures(terms), **written}

    def steer(self, network: nn.Module, terms: Mapping[str, float]) -> None:
        """Tells the network's time warp, where it has one, what the step's loss was at each range of times."""
        if (warp := warp_of(network)) is not None:
            warp.learn(terms)

    # ── what it is judged by ───────────────────────────────────────────────────────────────────────────────────

    def assess(self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int) -> Assessment:
        """Cross-entropy at times uniform in [t_0, t_max], stratified over a row's draws; nothing is remembered."""
        rows = rows_in(batch, network)
        times = self.diffusion.spread(stratified(batch_uniform(generator, batch, draws)))
        nats = []
        for t in times.unbind(-1):
            noise = batch_normal(generator, batch, *rows.drawn)
            seen = self.look(network, rows, t=t, noise=noise, remembering=False)
            nats.append(rows.of_tokens(token_nats(self.readout, seen)).sum(1))
        return Assessment(torch.stack(nats).sum(0), draws * batch.targets.sum(1).to(nats[0].dtype))

    def trivial(self, batches: Sequence[Batch], text: Mapping[str, float]) -> Mapping[str, float]:
        """Who looks at no noisy vector and at no neighbour: a uniform guess, and the frequencies of tokens."""
        del batches
        return {name: text[name] for name in ("uniform", "unigram") if name in text}

    def rebuild(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Int[Tensor, "B L"]:
        """The rows with the likeliest token at each place of a thought, seen at one drawn time a row."""
        rows = rows_in(batch, network)
        t, noise = self._times(network, generator, batch), batch_normal(generator, batch, *rows.drawn)
        seen = self.look(network, rows, t=t, noise=noise, remembering=False)
        return batch.ids.masked_scatter(batch.targets, self.readout.estimate(seen).log_p.argmax(-1))

    # ── parts ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _times(self, network: Network, generator: torch.Generator, batch: Batch) -> Float[Tensor, "B"]:
        warp = warp_of(network)
        return (self.diffusion if warp is None else replace(self.diffusion, warp=warp)).times(generator, batch)

    def look(
        self,
        network: Network,
        rows: ThoughtRows,
        *,
        t: Float[Tensor, "B"],
        noise: Float[Tensor, "B K W"],
        remembering: bool,
    ) -> Seen:
        """What the network says of rows with noise on their thoughts, after a first look where it is remembering.

        Args:
            network: of thoughts.
            rows: as its codec has them.
            t: the time of each row.
            noise: ε, as the rows say it is drawn.
            remembering: whether the network looks twice, the second time with its first estimate.
        """
        x, noise, here = rows.clean, rows.placed(noise), rows.noisy
        z = self.diffusion.process.corrupt(x, t, noise=noise)
        call, each = cast(Any, network), here.nonzero()[:, 0]

        def look(before: Tensor | None) -> Seen:
            said = call(z, t, before=before, **rows.asked)
            return Seen(said=said, z=z[here], x=x[here], noise=noise[here], t=t[each], rows=rows)

        if not remembering:
            return look(None)
        with torch.no_grad():
            first = self.readout.vector(look(None))
        return look(rows.in_places(first))

    def _answer_nats(
        self, network: Network, batch: Batch, *, generator: torch.Generator
    ) -> tuple[Float[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """−log p of the tokens of some rows' answers behind a noisy thought, in their places; and which those are."""
        assert self.answers is not None
        t_min = self.diffusion.t_min
        t = t_min + (self.answers.latest - t_min) * batch_uniform(generator, batch)
        rows = rows_in(batch, network)
        noise = batch_normal(generator, batch, *rows.drawn)
        chosen = self.answers.rows(batch)
        found = self.answers.find(batch)
        wanted, places = found.real & chosen[:, None], found.places & chosen[:, None]
        nats = torch.zeros(batch.ids.shape, dtype=torch.float32, device=batch.ids.device)
        if bool(wanted.any()):
            z = self.diffusion.process.corrupt(rows.clean, t, noise=rows.placed(noise))
            logits = cast(Any, network)(
                z[chosen],
                t[chosen],
                **{name: table[chosen] for name, table in rows.asked.items()},
                answer=found.ids[chosen],
                wanted=wanted[chosen],
            )
            log_p = self.readout.spoken(logits).gather(-1, found.ids[wanted][:, None])
            nats = scatter_positions(-log_p.squeeze(-1), places)
        return nats, places


def token_nats(readout: Readout, seen: Seen) -> Float[Tensor, "T"]:
    """−log p of the clean tokens, in nats, by whatever the network was trained."""
    return clean_nats(readout.estimate(seen).log_p, seen.rows.tokens)


def rows_in(batch: Batch, network: Network) -> ThoughtRows:
    """A batch as the codec of a network has it: its targets are thought."""
    return rows_of(network, ids=batch.ids, free=batch.targets, segments=batch.segments)


def warp_of(network: object) -> Warp | None:
    """What a network knows of its loss at each time; it may be wrapped."""
    warp = getattr(getattr(network, "module", network), "warp", None)
    assert warp is None or isinstance(warp, Warp)
    return warp


def skill_of(diffusion: LatentDiffusion) -> SkillByTime:
    """Skill of a diffusion of token vectors."""
    return SkillByTime(diffusion=diffusion, variance=VARIANCE)
