r"""Masked language modelling through concepts: what is hidden is read off an encoding of what is not.

Each target is hidden with probability ρ, independently; with v the visible tokens of a row and f the encoder,

    E_v [ Σ_{i hidden} −log p(x_i | f(v), z) / ρ ] / L,                                                        (1)

in which z is the row with masks at hidden places. The encoder reads visible tokens alone, or masks at the places of
the others too (as BERT does, arXiv:1810.04805, section 3.1); what of z the decoder sees is the decoder's own affair
(its own place only, the visible tokens too, or nothing).

Shape letters: B rows, L places of a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from remask.data.batch import Batch
from remask.objectives.base import Assessment, Loss, Network
from remask.objectives.concepts.contract import Ear, Sourced
from remask.objectives.concepts.diversity import NOTHING, Diversity
from remask.objectives.noisy import NoisyBatch, add_noise
from remask.objectives.without_likelihood import WithoutLikelihood, clean_nats, greedy
from remask.processes import Masking
from remask.randomness import batch_uniform, widest_float

Source = Callable[[NoisyBatch], Bool[Tensor, "B L"]]
"""Which places of z are tokens to the encoder."""


def visible_alone(noisy: NoisyBatch) -> Bool[Tensor, "B L"]:
    """Hidden places are no tokens."""
    return (noisy.batch.segments > 0) & ~noisy.positions


def masks_too(noisy: NoisyBatch) -> Bool[Tensor, "B L"]:
    """The encoder meets a mask at hidden places, and so knows where they are."""
    return noisy.batch.segments > 0


@dataclass(frozen=True, kw_only=True)
class ConceptMasked(WithoutLikelihood):
    """Equation (1) as an objective; judged by the nats of a hidden token.

    Attributes:
        process: masking noise.
        rate: ρ, the share of targets hidden, in (0, 1).
        diversity: what concepts are pushed to besides.
        source: what of a noisy row the encoder reads.

    Raises:
        ValueError: when `rate` is not in (0, 1), or the process's schedule never hides so much.
    """

    process: Masking
    rate: float = 0.5
    diversity: Diversity = NOTHING
    source: Source = visible_alone

    def __post_init__(self) -> None:
        most = 1.0 - float(self.process.schedule.alpha(torch.ones((), dtype=torch.float64, device="cpu")))
        if not 0.0 < self.rate < 1.0 or self.rate > most:
            raise ValueError(
                f"rate: {self.rate} was given; give a share of hidden tokens above 0, below 1 and at most {most:g}, "
                "where the schedule ends"
            )

    @property
    def quantity(self) -> str:
        """Of hidden tokens alone."""
        return "hidden_nats_per_token"

    def at(self, step: int) -> "ConceptMasked":
        """Itself, at every step."""
        del step
        return self

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """−log p(x_i | f(v), z)/ρ at hidden targets, 0 at others, weight 1 at every target: a hidden token's mean."""
        noisy, ear = self._hidden(batch, generator), Ear()
        nats = self._nats(network, noisy, ear) / self.rate
        loss = Loss(noisy.spread(nats), batch.targets.to(nats.dtype), {self.quantity: nats.detach().sum()})
        return self.diversity.added(loss, ear.heard, network)

    def assess(self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int) -> Assessment:
        """The nats of hidden tokens, and how many were hidden."""
        nats, weight = [], []
        for _ in range(draws):
            noisy = self._hidden(batch, generator)
            nats.append(noisy.spread(self._nats(network, noisy, Ear())).sum(1))
            weight.append(noisy.positions.sum(1))
        return Assessment(torch.stack(nats).sum(0), torch.stack(weight).sum(0).to(nats[0].dtype))

    def rebuild(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Int[Tensor, "B L"]:
        """The rows with the likeliest token at each hidden place."""
        noisy = self._hidden(batch, generator)
        return greedy(self.process.log_clean(noisy.ask(self._reading(network, noisy, Ear()))), batch, noisy.positions)

    def diagnostics(self, network: torch.nn.Module, terms: Mapping[str, float]) -> dict[str, float]:
        """What the diversity terms say."""
        return self.diversity.diagnostics(network, terms)

    def _hidden(self, batch: Batch, generator: torch.Generator) -> NoisyBatch:
        device = generator.device
        kept = torch.full((len(batch),), 1.0 - self.rate, dtype=widest_float(device), device=device)
        noise = batch_uniform(generator, batch, batch.ids.shape[1])
        return add_noise(self.process, batch, t=self.process.schedule.time(kept), noise=noise)

    def _nats(self, network: Network, noisy: NoisyBatch, ear: Ear) -> Tensor:
        log_p = self.process.log_clean(noisy.ask(self._reading(network, noisy, ear)))
        return clean_nats(log_p, noisy.batch.ids[noisy.positions])

    def _reading(self, network: Network, noisy: NoisyBatch, ear: Ear) -> Sourced:
        """The network with its source of each row."""
        return Sourced(network=network, source=noisy.z, source_real=self.source(noisy), hear=ear)
