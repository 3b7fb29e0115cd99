r"""A response through a few Gaussian vectors: what a thought in such vectors is built on.

For a network that draws y ~ q(y | x) and writes x again from y alone,

    E_q [−log p(x | y)] + β KL(q(y | x) ‖ N(0, I)),        KL = ½ Σ (μ² + σ² − 1 − log σ²),                     (1)

with the nats of all tokens and of all coordinates of a row summed (β-VAE, arXiv:1312.6114, equation 10, with a weight).
A small β leaves the text readable; what it buys is that vectors lie about the origin and close ones mean alike. What
the network is judged by is the first term alone: it is shown an encoding of the text, so this is no likelihood.

Shape letters: B rows, L places of a row, R tokens of a response, S vectors, W features of a vector, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from remask.data.batch import Batch
from remask.objectives.base import Assessment, Loss, Network, scatter_positions
from remask.objectives.responses import Responses
from remask.objectives.without_likelihood import WithoutLikelihood, clean_nats, greedy
from remask.randomness import batch_normal


@runtime_checkable
class ResponseCodec(Protocol):
    """A network between responses and vectors."""

    length: int
    """R."""
    latent_width: int
    """W."""

    @property
    def vectors(self) -> int:
        """S."""
        ...

    def encode(self, ids: Int[Tensor, "B R"]) -> Float[Tensor, "B S W"]:
        """The vectors that stand for responses."""
        ...

    def decode(self, vectors: Float[Tensor, "B S W"]) -> Float[Tensor, "B R V"]:
        """Logits of their tokens."""
        ...


@dataclass(frozen=True, kw_only=True)
class TextReconstruction(WithoutLikelihood):
    """Equation (1) as an objective.

    Attributes:
        divergence: β.
        eos_id: what fills up short responses.
        mask_id: a token that clean text never holds.
    """

    divergence: float
    eos_id: int
    mask_id: int

    @property
    def quantity(self) -> str:
        """Of all targets, given an encoding of them."""
        return "reconstruction_nats_per_token"

    def at(self, step: int) -> "TextReconstruction":
        """The same at every step."""
        del step
        return self

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """Equation (1) of each row, its divergence held by its targets in equal parts."""
        log_p, divergence = self._written(network, batch, generator=generator)
        ids = batch.ids[batch.targets]
        nats, weight = scatter_positions(clean_nats(log_p, ids), batch.targets), batch.targets.to(log_p.dtype)
        share = weight / weight.sum(-1, keepdim=True).clamp_min(1.0)
        terms = {
            self.quantity: nats.detach().sum(),
            "divergence": divergence.detach().sum(),
            "named": (log_p.argmax(-1) == ids).to(nats.dtype).sum(),
            "named_of": weight.sum(),
        }
        return Loss(nats + self.divergence * divergence[:, None] * share, weight, terms)

    def diagnostics(self, network: nn.Module, terms: Mapping[str, float]) -> dict[str, float]:
        """The share of tokens that the decoder names, and the divergence a token, for the record."""
        del network
        count = terms.get("named_of", 0.0)
        if not count:
            return {}
        return {"tokens_named": terms["named"] / count, "divergence_per_token": terms["divergence"] / count}

    def assess(self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int) -> Assessment:
        """The first term of (1), each draw with vectors of its own."""
        rows = []
        for _ in range(draws):
            log_p, _ = self._written(network, batch, generator=generator)
            rows.append(scatter_positions(clean_nats(log_p, batch.ids[batch.targets]), batch.targets).sum(1))
        return Assessment(torch.stack(rows).sum(0), draws * batch.targets.sum(1).to(rows[0].dtype))

    def rebuild(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Int[Tensor, "B L"]:
        """The rows with the likeliest tokens of their responses, read off vectors that were drawn."""
        return greedy(self._written(network, batch, generator=generator)[0], batch, batch.targets)

    def _written(
        self, network: Network, batch: Batch, *, generator: torch.Generator
    ) -> tuple[Float[Tensor, "T V"], Float[Tensor, "B"]]:
        """Log-probabilities at the targets, and the divergence of each row."""
        codec = cast(ResponseCodec, getattr(network, "module", network))
        responses = Responses(ids=batch.ids, free=batch.targets, length=codec.length, eos_id=self.eos_id)
        noise = batch_normal(generator, batch, codec.vectors, codec.latent_width)
        written = cast(Any, network)(responses.tokens, noise)
        logits = responses.in_places(written.logits.to(torch.promote_types(written.logits.dtype, torch.float32)))
        mask = torch.arange(logits.shape[-1], device=logits.device) == self.mask_id
        mean, log_variance = written.mean, written.log_variance
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).flatten(1).sum(-1)
        return logits.masked_fill(mask, -torch.inf).log_softmax(-1), divergence
