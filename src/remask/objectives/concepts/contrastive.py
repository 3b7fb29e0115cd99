r"""Contrast: two views of one text have concepts that lie closer together than those of two texts.

With a_i and b_i the pooled concepts (their mean) of two views of row i, τ a temperature and n rows,

    ℓ_i = −½ [ log softmax_j(cos(a_i, b_j)/τ)_i + log softmax_j(cos(b_i, a_j)/τ)_i ],                          (1)

InfoNCE (van den Oord et al., arXiv:1807.03748, equation 4) taken both ways, with a text's other view for its positive
(SimCSE, Gao et al., arXiv:2104.08821, equation 1). A model that tells no two texts apart gets log n. Views are disjoint
halves of the tokens, or two draws of deletion, or both sides of a pair; every view is closed up, so that places tell
nothing.

Beside it, at a weight, the decoder writes each text from either view's concepts (as in `ConceptTSDAE`).

Shape letters: B rows, R = 2B their views, L places of a row, D features a concept.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from remask.data.batch import Batch
from remask.deletion import halves, remaining
from remask.objectives.base import Assessment, Loss, Network
from remask.objectives.concepts.contract import Concepts, Ear
from remask.objectives.concepts.deleted import spread_nats, told
from remask.objectives.concepts.diversity import NOTHING, Diversity
from remask.objectives.concepts.without_likelihood import WithoutLikelihood, greedy
from remask.processes import Masking
from remask.randomness import batch_uniform

Views = Callable[[Batch, torch.Generator], tuple[Bool[Tensor, "B L"], Bool[Tensor, "B L"]]]
"""The tokens of a row's two views."""


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


@dataclass(frozen=True, kw_only=True)
class ConceptContrastive(WithoutLikelihood):
    """Equation (1) as an objective; judged by the nats of finding a text's other view among those of the batch.

    Attributes:
        process: masking noise, whose end is the row that the decoder starts from.
        views: draws the two views.
        temperature: τ, above 0.
        reconstruction_weight: of the decoder's nats a token, above 0, so that the decoder is trained too.
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
        for name in ("temperature", "reconstruction_weight"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name}: {getattr(self, name)} was given; give a number above 0")

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
        ear, twice = Ear(), doubled(batch)
        nats = spread_nats(self.process, network, twice, left=self._left(batch, generator), ear=ear)
        nats = sum(nats.chunk(2)) / 2
        assert isinstance(nats, Tensor)
        matching = matching_nats(pooled(ear.heard), temperature=self.temperature)
        weight = batch.targets.to(nats.dtype)
        tokens = weight.sum()
        terms = {
            "matching_nats": matching.detach().mean() * tokens,
            "matching_nats_trivial": math.log(len(batch)) * tokens,
            "reconstruction_nats_per_token": nats.detach().sum(),
            "contrastive_steps": tokens,
        }
        loss = Loss(self.reconstruction_weight * nats + matching.mean() * weight, weight, terms)
        first = replace(ear.heard, vectors=ear.heard.vectors[: len(batch)], real=ear.heard.real[: len(batch)])
        return self.diversity.added(loss, first, network)  # both views of a text are not to be pushed apart

    def assess(self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int) -> Assessment:
        """(1) of each row among the rows of this batch."""
        rows = []
        for _ in range(draws):
            ear = Ear()
            told(self.process, network, doubled(batch), left=self._left(batch, generator), ear=ear)
            rows.append(matching_nats(pooled(ear.heard), temperature=self.temperature))
        nats = torch.stack(rows).sum(0)
        return Assessment(nats, torch.full_like(nats, draws))

    def trivial(self, batches: Sequence[Batch], text: Mapping[str, float]) -> Mapping[str, float]:
        """An equal guess: log n, n the rows of a batch, as a mean over rows."""
        del text
        sizes = [len(batch) for batch in batches]
        return {"equal guess": sum(n * math.log(n) for n in sizes) / max(sum(sizes), 1)}

    def rebuild(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Int[Tensor, "B L"]:
        """The rows with the likeliest token at each target, told the concepts of the first view."""
        left, _ = self.views(batch, generator)
        return greedy(told(self.process, network, batch, left=left, ear=Ear()), batch, batch.targets)

    def diagnostics(self, network: torch.nn.Module, terms: Mapping[str, float]) -> dict[str, float]:
        """Both parts of the loss, the first beside log n, and what the diversity terms say."""
        steps = terms.get("contrastive_steps", 0.0)
        names = ("matching_nats", "matching_nats_trivial", "reconstruction_nats_per_token") if steps else ()
        return {name: terms[name] / steps for name in names} | self.diversity.diagnostics(network, terms)

    def _left(self, batch: Batch, generator: torch.Generator) -> Bool[Tensor, "R L"]:
        return torch.cat(self.views(batch, generator))


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
