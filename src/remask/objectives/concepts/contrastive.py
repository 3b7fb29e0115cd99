r"""Contrast: two views of one text have concepts that lie closer together than those of two texts.

With a_i and b_i the pooled concepts (their mean) of two views of row i, τ a temperature and n rows,

    ℓ_i = −½ [ log softmax_j(cos(a_i, b_j)/τ)_i + log softmax_j(cos(b_i, a_j)/τ)_i ],                          (1)

InfoNCE (van den Oord et al., arXiv:1807.03748, equation 4) taken both ways, with a text's other view for its positive
(SimCSE, Gao et al., arXiv:2104.08821, equation 1). A model that tells no two texts apart gets log n, and one that has
learned nothing far less, since views share words: it is held against these alone (common_words.py). Views are disjoint
halves of the tokens, or two draws of deletion, or both sides of a pair; every view is closed up, so that places tell
nothing.

Beside it, at a weight, the decoder writes each text from either view's concepts (as in `ConceptTSDAE`). At weight 0
there is no such part: the network has no decoder, and is asked for no token.

Shape letters: B rows, R = 2B their views, L places of a row, D features a concept.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from remask.data.batch import Batch
from remask.data.given import close_up
from remask.deletion import halves, remaining
from remask.objectives.base import Assessment, Loss, Network
from remask.objectives.concepts.common_words import Views, words_in_common
from remask.objectives.concepts.contract import Concepts, Ear, Sourced
from remask.objectives.concepts.deleted import spread_nats, told
from remask.objectives.concepts.diversity import NOTHING, Diversity
from remask.objectives.without_likelihood import WithoutLikelihood, greedy
from remask.processes import Masking
from remask.randomness import batch_uniform, widest_float


def disjoint_views(batch: Batch, generator: torch.Generator) -> tuple[Bool[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """Random halves of a row's targets, without a token in common."""
    return halves(batch, batch_uniform(generator, batch, batch.ids.shape[1]))


def dropped_views(share: float) -> Views:
    """Two independent draws of what deletion of a share of the targets leaves."""

    def draw(batch: Batch, generator: torch.Generator) -> tuple[Bool[Tensor, "B L"], Bool[Tensor, "B L"]]:
        u = batch_uniform(generator, batch, 2, batch.ids.shape[1])
        return remaining(batch, u[:, 0], share=share), remaining(batch, u[:, 1], share=share)

    return draw


def both_sides(batch: Batch, generator: torch.Generator) -> tuple[Bool[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """What is given of each row, and its targets: the two texts of a pair, which mean the same; nothing is drawn."""
    del generator
    return ~batch.targets & (batch.segments > 0), batch.targets


def thinned_sides(share: float) -> Views:
    """Both sides of a pair, of each what a draw of deletion of a share of its tokens leaves."""

    def draw(batch: Batch, generator: torch.Generator) -> tuple[Bool[Tensor, "B L"], Bool[Tensor, "B L"]]:
        u = batch_uniform(generator, batch, batch.ids.shape[1])
        given, targets = both_sides(batch, generator)
        first, second = (replace(batch, targets=side, segments=batch.segments * side) for side in (given, targets))
        return remaining(first, u, share=share), remaining(second, u, share=share)

    return draw


@dataclass(frozen=True, kw_only=True)
class ConceptContrastive(WithoutLikelihood):
    """Equation (1) as an objective; judged by the nats of finding a text's other view among those of the batch.

    Attributes:
        process: masking noise, whose end is the row that the decoder starts from.
        views: draws the two views.
        temperature: τ, above 0.
        reconstruction_weight: of the decoder's nats a token; 0 for a network without a decoder.
        diversity: what concepts are pushed to besides.

    Raises:
        ValueError: when a number is out of range.
    """

    process: Masking
    views: Views
    temperature: float = 0.05
    reconstruction_weight: float = 0.1
    diversity: Diversity = NOTHING

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise ValueError(f"temperature: {self.temperature} was given; give a number above 0")
        if not self.reconstruction_weight >= 0.0:
            raise ValueError(f"reconstruction_weight: {self.reconstruction_weight} was given; give 0 or more")

    @property
    def quantity(self) -> str:
        """Of a view among the views of the batch; log n where nothing is told apart."""
        return "matching_nats"

    def at(self, step: int) -> "ConceptContrastive":
        """Itself, at every step."""
        del step
        return self

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """The mean of (1) over rows and the weighted reconstruction, spread evenly over the targets."""
        heard, nats = self._read(network, batch, left=self._left(batch, generator))
        matching = matching_nats(pooled(heard), temperature=self.temperature)
        weight = batch.targets.to(matching.dtype)
        tokens = weight.sum()
        terms = {
            "matching_nats": matching.detach().mean() * tokens,
            "matching_nats_trivial": math.log(len(batch)) * tokens,
            "contrastive_steps": tokens,
        }
        total = matching.mean() * weight
        if nats is not None:
            terms["reconstruction_nats_per_token"] = nats.detach().sum()
            total = total + self.reconstruction_weight * nats
        loss = Loss(total, weight, terms)
        first = replace(heard, vectors=heard.vectors[: len(batch)], real=heard.real[: len(batch)])
        return self.diversity.added(loss, first, network)  # both views of a text are not to be pushed apart

    def assess(self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int) -> Assessment:
        """(1) of each row among the rows of this batch."""
        rows = []
        for _ in range(draws):
            heard, _ = self._read(network, batch, left=self._left(batch, generator))
            rows.append(matching_nats(pooled(heard), temperature=self.temperature))
        nats = torch.stack(rows).sum(0)
        return Assessment(nats, torch.full_like(nats, draws))

    def trivial(self, batches: Sequence[Batch], text: Mapping[str, float]) -> Mapping[str, float]:
        """An equal guess, log n with n the rows of a batch, and the tokens that both views hold; means over rows."""
        del text
        sizes = [len(batch) for batch in batches]
        return {
            "equal guess": sum(n * math.log(n) for n in sizes) / max(sum(sizes), 1),
            "words in common": words_in_common(
                batches, views=self.views, matching=lambda bag, tau: matching_nats(bag, temperature=tau)
            ),
        }

    def rebuild(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Int[Tensor, "B L"] | None:
        """The rows with the likeliest token at each target, told the concepts of the first view."""
        if not self.reconstruction_weight:
            return None
        left, _ = self.views(batch, generator)
        return greedy(told(self.process, network, batch, left=left, ear=Ear()), batch, batch.targets)

    def diagnostics(self, network: torch.nn.Module, terms: Mapping[str, float]) -> dict[str, float]:
        """Both parts of the loss, the first beside log n, and what the diversity terms say."""
        steps = terms.get("contrastive_steps", 0.0)
        names = ("matching_nats", "matching_nats_trivial", "reconstruction_nats_per_token") if steps else ()
        told = {name: terms[name] / steps for name in names if name in terms}
        return told | self.diversity.diagnostics(network, terms)

    def _left(self, batch: Batch, generator: torch.Generator) -> Bool[Tensor, "R L"]:
        return torch.cat(self.views(batch, generator))

    def _read(
        self, network: Network, batch: Batch, *, left: Bool[Tensor, "R L"]
    ) -> tuple[Any, Float[Tensor, "B L"] | None]:
        """Both views' concepts, and −log p of each target, the mean over both views; None where nothing is written."""
        twice = doubled(batch)
        if not self.reconstruction_weight:
            return heard_alone(network, twice.ids, left=left, mask_id=self.process.mask_id), None
        ear = Ear()
        first, second = spread_nats(self.process, network, twice, left=left, ear=ear).chunk(2)
        return ear.heard, (first + second) / 2


TOGETHER = 64
"""Texts that are read at once where nothing is written from them."""


def heard_alone(network: Network, ids: Int[Tensor, "R L"], *, left: Bool[Tensor, "R L"], mask_id: int) -> Any:
    """The concepts of what is left of each row, from a network that is asked for no token.

    Texts of about one length are read together, since padding, which changes nothing, would be most of the work.

    Args:
        network: a concept reader.
        ids: rows of tokens.
        left: the tokens of each row that are read, closed up.
        mask_id: what stands at the one place of each row that a forward pass must have.
    """
    order = left.sum(1).argsort(stable=True)
    parts = []
    for chosen in order.split(TOGETHER):
        ear, closed = Ear(), close_up(left[chosen])
        reading = Sourced(network=network, source=closed.gather(ids[chosen]), source_real=closed.real, hear=ear)
        z = torch.full_like(ids[chosen, :1], mask_id)
        end = torch.ones(len(z), dtype=widest_float(z.device), device=z.device)
        reading(z, end, segments=torch.ones_like(z), positions=torch.zeros_like(z, dtype=torch.bool))
        parts.append(ear.heard)
    back, most = order.argsort(), max(part.real.shape[1] for part in parts)
    missing = [most - part.real.shape[1] for part in parts]
    vectors = torch.cat([functional.pad(part.vectors, (0, 0, 0, k)) for part, k in zip(parts, missing, strict=True)])
    real = torch.cat([functional.pad(part.real, (0, k)) for part, k in zip(parts, missing, strict=True)])
    return replace(parts[0], vectors=vectors[back], real=real[back])


def doubled(batch: Batch) -> Batch:
    """The batch's rows twice over, first views before second ones, for one pass of the network."""
    twice = {f.name: torch.cat([getattr(batch, f.name)] * 2) for f in fields(batch) if f.name != "global_size"}
    return replace(batch, **twice)


def pooled(concepts: Concepts) -> Float[Tensor, "B D"]:
    """The mean of a text's real concepts, zero where it has none; at least float32."""
    vectors = concepts.vectors.to(torch.promote_types(concepts.vectors.dtype, torch.float32))
    real = concepts.real[..., None].to(vectors.dtype)
    return (vectors * real).sum(1) / real.sum(1).clamp_min(1.0)


def matching_nats(views: Float[Tensor, "R D"], *, temperature: float) -> Float[Tensor, "B"]:
    """Equation (1) of each row, from its first view and its second, which lies B rows on.

    Args:
        views: pooled concepts.
        temperature: τ.
    """
    first, second = functional.normalize(views, dim=-1).chunk(2)
    scores = first @ second.mT / temperature
    return -0.5 * (scores.log_softmax(1).diagonal() + scores.log_softmax(0).diagonal())
