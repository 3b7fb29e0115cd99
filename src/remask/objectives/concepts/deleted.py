r"""Denoising from deletion: the whole text is read off the concepts of what was left of it.

A share of the targets is taken out and the rest closed up, places and all; with r what remains and f the encoder,

    E_r [ Σ_i −log p(x_i | f(r)) ] / L,                                                                        (1)

the sum running over all targets, each predicted from a row that is masked throughout (TSDAE, Wang et al.,
arXiv:2104.06979, equation 1, with a decoder that writes all places at once instead of left to right).

Shape letters: B rows, L places of a row, V vocabulary, M targets.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.data.batch import Batch
from remask.data.given import close_up
from remask.deletion import masked_everywhere, remaining
from remask.objectives.base import Assessment, Loss, Network, scatter_positions
from remask.objectives.concepts.contract import Ear, Sourced
from remask.objectives.concepts.diversity import NOTHING, Diversity
from remask.objectives.without_likelihood import WithoutLikelihood, clean_nats, greedy
from remask.processes import Masking
from remask.randomness import batch_uniform, widest_float


@dataclass(frozen=True, kw_only=True)
class ConceptTSDAE(WithoutLikelihood):
    """Equation (1) as an objective; judged by the nats of a token, which are a reconstruction's.

    Attributes:
        process: masking noise, whose end is the row that the decoder starts from.
        share: of targets that are deleted, in (0, 1).
        diversity: what concepts are pushed to besides.

    Raises:
        ValueError: when `share` is not in (0, 1).
    """

    process: Masking
    share: float = 0.6
    diversity: Diversity = NOTHING

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"share: {self.share} was given; give a share of deleted tokens above 0 and below 1")

    @property
    def quantity(self) -> str:
        """Of all targets, given what was left of them."""
        return "reconstruction_nats_per_token"

    def at(self, step: int) -> "ConceptTSDAE":
        """Itself, at every step."""
        del step
        return self

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """−log p(x_i | f(r)) at every target."""
        ear = Ear()
        nats = spread_nats(self.process, network, batch, left=self._left(batch, generator), ear=ear)
        loss = Loss(nats, batch.targets.to(nats.dtype), {self.quantity: nats.detach().sum()})
        return self.diversity.added(loss, ear.heard, network)

    def assess(self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int) -> Assessment:
        """The nats of all targets, and how many there are, over all draws."""
        rows = [
            spread_nats(self.process, network, batch, left=self._left(batch, generator), ear=Ear()).sum(1)
            for _ in range(draws)
        ]
        return Assessment(torch.stack(rows).sum(0), draws * batch.targets.sum(1).to(rows[0].dtype))

    def rebuild(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Int[Tensor, "B L"]:
        """The rows with the likeliest token at each target."""
        log_p = told(self.process, network, batch, left=self._left(batch, generator), ear=Ear())
        return greedy(log_p, batch, batch.targets)

    def diagnostics(self, network: torch.nn.Module, terms: Mapping[str, float]) -> dict[str, float]:
        """What the diversity terms say."""
        return self.diversity.diagnostics(network, terms)

    def _left(self, batch: Batch, generator: torch.Generator) -> Bool[Tensor, "B L"]:
        return remaining(batch, batch_uniform(generator, batch, batch.ids.shape[1]), share=self.share)


def told(
    process: Masking, network: Network, batch: Batch, *, left: Bool[Tensor, "B L"], ear: Ear
) -> Float[Tensor, "M V"]:
    """Log-probabilities at each target, from the concepts of what is left, beside a row that is masked throughout.

    Args:
        process: masking noise.
        network: reads a source.
        batch: clean rows.
        left: the tokens that the encoder reads, closed up.
        ear: hears the concepts.
    """
    closed = close_up(left)
    reading = Sourced(network=network, source=closed.gather(batch.ids), source_real=closed.real, hear=ear)
    device = batch.ids.device
    end = torch.ones(len(batch), dtype=widest_float(device), device=device)
    z = masked_everywhere(batch, mask_id=process.mask_id)
    return process.log_clean(reading(z, end, segments=batch.segments, positions=batch.targets))


def spread_nats(
    process: Masking, network: Network, batch: Batch, *, left: Bool[Tensor, "B L"], ear: Ear
) -> Float[Tensor, "B L"]:
    """−log p of each target as `told`, at its place; zero elsewhere."""
    nats = clean_nats(told(process, network, batch, left=left, ear=ear), batch.ids[batch.targets])
    return scatter_positions(nats, batch.targets)
