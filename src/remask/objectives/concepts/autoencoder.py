r"""A whole text through concepts with noise on them: what a prior over concepts is built on.

With f the encoder, which reads all of x, and z_{t0} = α f(x) + σ ε at one time t0 of a Gaussian process,

    E_z [ bound on −log p(x | z_{t0}) ],                                                                       (1)

the three terms of masked diffusion for a decoder that is told z_{t0} beside the noisy tokens. A network that passes x
on whole makes (1) small, whatever the text's probability: it is a reconstruction, and becomes part of a likelihood only
together with what z_{t0} costs under a prior (objectives/concepts/prior.py). The noise keeps what can be passed on
below `LatentChannel.capacity`, and makes concepts that lie close together mean similar texts. Of questions with
responses x is the response alone, filled up with ends of text: the latent of a thought.

Shape letters: B rows, L places of a row, C concepts, W features of a concept.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from remask.data.batch import Batch
from remask.objectives.base import Assessment, Loss, Network
from remask.objectives.concepts.channel import LatentChannel
from remask.objectives.concepts.contract import Hear, Sourced
from remask.objectives.likelihood import LikelihoodBound
from remask.objectives.noisy import NoisyBatch
from remask.objectives.responses import AsTexts
from remask.objectives.without_likelihood import WithoutLikelihood, greedy
from remask.randomness import batch_uniform, widest_float


@dataclass(frozen=True, kw_only=True)
class ConceptAutoencoder(WithoutLikelihood):
    """Equation (1) as an objective, for networks that read a source (`ConceptReader`) through narrow concepts.

    Attributes:
        bound: of a row given its noisy concepts.
        channel: between encoder and decoder.
        blind_share: the share of training rows that are decoded without any concept, so that the decoder can also be
            asked what it knows without them; in [0, 1).
        texts: rows of pairs to texts of their responses; None: rows are texts.

    Raises:
        ValueError: when `blind_share` is no such share.
    """

    bound: LikelihoodBound
    channel: LatentChannel
    blind_share: float = 0.0
    texts: AsTexts | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.blind_share < 1.0:
            raise ValueError(f"blind_share: {self.blind_share} was given; give a share of rows in [0, 1)")

    @property
    def quantity(self) -> str:
        """Of all targets, given an encoding of them."""
        return "reconstruction_nats_per_token"

    def at(self, step: int) -> "ConceptAutoencoder":
        """The objective of one optimiser step: the curriculum is that of the bound."""
        return replace(self, bound=self.bound.at(step))

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """The training loss of `LikelihoodBound` on rows that are told their own noisy concepts."""
        if self.texts is not None:
            share = self.texts.share(batch)[:, None]
            loss = replace(self, texts=None)(network, self.texts(batch), generator=generator)
            own = (loss.nats.detach() * self.texts.own(batch)).sum()
            nats, weight = (each * share.to(each.dtype) for each in (loss.nats, loss.weight))
            return Loss(nats, weight, {self.quantity: own})
        hear, kept = self._noise(batch, generator), None
        if self.blind_share:
            blind = batch_uniform(generator, batch) < self.blind_share
            kept = torch.where(blind, 0, self.channel.concepts)
        sourced = _reading(network, batch, hear, kept)
        loss = self.bound(sourced, batch, generator=generator)
        return Loss(loss.nats, loss.weight, {self.quantity: loss.nats.detach().sum()})

    def assess(self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int) -> Assessment:
        """The three terms of (1), each draw with a noise of its own on concepts, at all targets of each draw.

        Of texts that are responses no end of text behind the last target counts: those are told at once.
        """
        judged = batch.targets if self.texts is None else self.texts.own(batch)
        batch = batch if self.texts is None else self.texts(batch)
        rows = []
        for _ in range(draws):
            sourced = _reading(network, batch, self._noise(batch, generator), None)
            terms = self.bound.drawn_terms(sourced, batch, generator=generator, draws=1)
            nats = sum(terms.values(), torch.zeros((), device=batch.ids.device))
            rows.append((nats * judged).sum(1))
        return Assessment(torch.stack(rows).sum(0), draws * judged.sum(1).to(rows[0].dtype))

    def rebuild(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Int[Tensor, "B L"]:
        """The rows with the likeliest token at each target, read off their noisy concepts alone."""
        if self.texts is not None:
            rebuilt = replace(self, texts=None).rebuild(network, self.texts(batch), generator=generator)
            return batch.ids.masked_scatter(batch.targets, self.texts.of(batch).tokens_in_places(rebuilt))
        process, device = self.bound.process, batch.ids.device
        z = torch.where(batch.targets, process.mask_id, batch.ids)
        end = torch.ones(len(batch), dtype=widest_float(device), device=device)
        noisy = NoisyBatch(batch=batch, z=z, t=end, positions=batch.targets)
        logits = noisy.ask(_reading(network, batch, self._noise(batch, generator), None))
        return greedy(process.log_clean(logits), batch, batch.targets)

    def _noise(self, batch: Batch, generator: torch.Generator) -> Hear:
        noise = self.channel.draw(generator, batch)
        return lambda concepts: self.channel.noisy(concepts, noise)


def _reading(network: Network, batch: Batch, hear: Hear, kept: Int[Tensor, "B"] | None) -> Sourced:
    """The network with whole rows as their own source."""
    return Sourced(network=network, source=batch.ids, source_real=batch.segments > 0, kept=kept, hear=hear)
