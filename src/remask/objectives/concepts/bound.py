r"""The likelihood of a text's end given its beginning, read through a bottleneck of concepts.

With c the given tokens of a row, f the encoder and x the targets that follow,

    −log p(x | f(c)) ≤ diffusion + reconstruction + prior,                                                    (1)

the three terms of `LikelihoodBound` for x alone, under a denoiser that reads f(c) beside the noisy x. No term shows
the network any of x but what noise leaves of it, so (1) is a bound on a conditional likelihood, and it compares with
the bound of a denoiser that sees the given tokens themselves.

Shape letters: B rows, L places of a row, S places of the longest response.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from remask.data.batch import Batch
from remask.data.given import Given, split_given
from remask.objectives.base import Loss, Network
from remask.objectives.concepts.contract import ConceptReader, Ear, Sourced, Told, kept_concepts
from remask.objectives.concepts.diversity import NOTHING, Diversity
from remask.objectives.likelihood import LikelihoodBound
from remask.randomness import batch_uniform


@dataclass(frozen=True, kw_only=True)
class ConceptBound:
    """The bound (1) as an objective, for networks that read a source (`ConceptReader`).

    Attributes:
        bound: of the targets, with its noise, reweighting and curriculum.
        concepts: C, the concepts among which nested dropout chooses; not read where `nested_share` is 0.
        nested_share: the share of training rows that keep only their first k concepts, in [0, 1]. A likelihood keeps
            all of them.
        diversity: what concepts are pushed to besides, in training alone.

    Raises:
        ValueError: when `nested_share` is no share, or there is nothing to drop.
    """

    bound: LikelihoodBound
    concepts: int | None = None
    nested_share: float = 0.0
    diversity: Diversity = NOTHING

    def __post_init__(self) -> None:
        if not 0.0 <= self.nested_share <= 1.0:
            raise ValueError(f"nested_share: {self.nested_share} was given; give a share of rows in [0, 1]")
        if self.nested_share and (self.concepts or 0) < 2:
            raise ValueError(
                f"nested_share: {self.nested_share} was given; it needs at least 2 concepts to choose from"
            )

    @property
    def exact(self) -> bool:
        """A bound, never the likelihood itself."""
        return False

    def at(self, step: int) -> "ConceptBound":
        """The objective of one optimiser step: the curriculum is that of the bound."""
        return replace(self, bound=self.bound.at(step))

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """The training loss of `LikelihoodBound` on the targets, the rest of each row given through concepts."""
        given = split_given(batch)
        kept = None
        if self.nested_share:
            u = batch_uniform(generator, batch, 2)
            kept = kept_concepts(u, share=self.nested_share, concepts=cast(int, self.concepts))
        ear = Ear()
        sourced = Sourced(network=network, source=given.source, source_real=given.source_real, kept=kept, hear=ear)
        loss = self._of(given)(sourced, given.response, generator=generator)
        loss = Loss(given.restore(loss.nats), batch.targets.to(loss.weight.dtype), loss.terms)
        return self.diversity.added(loss, ear.heard, network)

    def diagnostics(self, network: torch.nn.Module, terms: Mapping[str, float]) -> dict[str, float]:
        """What the diversity terms say."""
        return self.diversity.diagnostics(network, terms)

    def likelihood_terms(
        self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B L"]]:
        """The three terms of (1) in nats at the targets, zero elsewhere; the source is read once.

        Args and result as for `LikelihoodBound.likelihood_terms`.
        """
        given, reader = split_given(batch), cast(ConceptReader, network)
        concepts = reader.encode(given.source, real=given.source_real)
        return self.terms_given(reader, given, concepts, generator=generator, draws=draws)

    def apart(self, network: Network, batch: Batch) -> tuple[LikelihoodBound, Network, Batch]:
        """The bound over all times, the network told the given tokens, and the targets as rows: (1) as a plain bound.

        Args:
            network: takes `source` and `source_real` beside what a `Network` takes.
            batch: clean rows.
        """
        given = split_given(batch)
        told = partial(cast(Any, network), source=given.source, source_real=given.source_real)
        return replace(self._of(given), t_max=1.0), told, given.response

    def terms_given(
        self, network: ConceptReader, given: Given, concepts: Any, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B L"]]:
        """The three terms of (1) under concepts that may be others than the row's own.

        Args:
            network: the reader.
            given: the rows, taken apart.
            concepts: `Concepts` for each row: its own, another row's, or some of them.
            generator: on the batch's device; equal states give equal noise, so that differences are paired.
            draws: noise draws a row, at least 1.
        """
        told = Told(network=network, concepts=concepts)
        terms = self._of(given).drawn_terms(told, given.response, generator=generator, draws=draws)
        return {name: given.restore(term) for name, term in terms.items()}

    def _of(self, given: Given) -> LikelihoodBound:
        """The bound with noise drawn for whole rows: a row's does not depend on how many targets others have."""

        def draw(generator: torch.Generator, response: Batch) -> Float[Tensor, "B S"]:
            return given.gather(batch_uniform(generator, response, given.places.length))

        return replace(self.bound, draw=draw)
