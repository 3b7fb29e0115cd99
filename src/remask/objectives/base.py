"""The contracts between objective, network and training loop.

Shape letters: B batch, L length, V vocabulary, M positions at which logits are wanted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.data.batch import Batch


@runtime_checkable
class Network(Protocol):
    """Emits leave-one-out logits log p(x_i | z without i), up to a constant a position."""

    def __call__(
        self,
        z: Int[Tensor, "B L"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
    ) -> Float[Tensor, "M V"]:
        """Logits at the M true places of `positions`, in row-major order; attention stays within a segment."""
        ...


@runtime_checkable
class BlockNetwork(Protocol):
    """A network that can also read clean text: each block of `z` sees itself and the blocks of `context` before it."""

    def __call__(
        self,
        z: Int[Tensor, "B L"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
        context: Int[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "M V"]:
        """As `Network`; with `context`, the clean row of each noisy row, an answer depends on no later block's."""
        ...


@runtime_checkable
class SourceNetwork(Protocol):
    """A network in two parts: one reads what is given (N tokens), one denoises what is not (S places)."""

    def encode(self, source: Int[Tensor, "B N"], *, real: Bool[Tensor, "B N"]) -> Any:
        """What the other part is told of the given tokens; padding is not `real`."""
        ...

    def decode(
        self,
        z: Int[Tensor, "B S"],
        t: Float[Tensor, "B"],
        concepts: Any,
        *,
        segments: Int[Tensor, "B S"],
        positions: Bool[Tensor, "B S"],
    ) -> Float[Tensor, "M V"]:
        """Leave-one-out logits at the true places of `positions`."""
        ...


@dataclass(frozen=True)
class Loss:
    """Sums and weights of one batch; the caller divides, after adding over processes and micro-batches.

    Attributes:
        nats: the loss of each token in nats, zero where it does not count [B L].
        weight: 1 where a token counts, else 0 [B L].
        terms: named sums in nats for the record; one that estimates the likelihood has its likelihood term's name.
    """

    nats: Float[Tensor, "B L"]
    weight: Float[Tensor, "B L"]
    terms: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """What a network is trained to make small, and how the same network's likelihood is measured."""

    @property
    def exact(self) -> bool:
        """Whether `likelihood_terms` sums to −log p(x) itself, rather than to an upper bound on it."""
        ...

    def at(self, step: int) -> "Objective":
        """The objective of one optimiser step, from 1: itself, unless it changes as training goes on."""
        ...

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """The training loss of a batch."""
        ...

    def likelihood_terms(
        self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B L"]]:
        """Named terms in nats whose sum is −log p(x), or an upper bound on it; no smoothing, clipping or floor."""
        ...


@runtime_checkable
class Parted(Protocol):
    """An objective whose likelihood has parts that are told apart, such as what a latent costs and what is left."""

    @property
    def parts(self) -> Mapping[str, Sequence[str]]:
        """Part → the likelihood terms that add up to it; every term is in one of them."""
        ...

    def trivial_parts(self, network: Network, batches: Sequence[Batch]) -> Mapping[str, Mapping[str, float]]:
        """Part → predictor → nats a row, of predictors that are trivial for this part alone.

        Args:
            network: what encodes the rows.
            batches: the rows that are judged, on the network's device.
        """
        ...


@dataclass(frozen=True)
class Assessment:
    """What each row adds to a figure that is no likelihood: the figure is Σ nats / Σ weight.

    Attributes:
        nats: of each row [B].
        weight: what they are divided by: tokens that were predicted, or 1 where a row is one example [B].
    """

    nats: Float[Tensor, "B"]
    weight: Float[Tensor, "B"]


@runtime_checkable
class Assessed(Protocol):
    """An objective whose network is judged by a figure of its own, because it gives text no likelihood.

    A decoder that is told an encoding of the very text it predicts says nothing of how probable that text is. So such
    an objective has no likelihood terms, and its figure is never named nats per token or bits per byte.
    """

    @property
    def quantity(self) -> str:
        """The figure's name, one of those that `remask.health` knows the units of."""
        ...

    def assess(self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int) -> Assessment:
        """The figure on a batch; `draws` draws of what is hidden or deleted a row are added up."""
        ...

    def trivial(self, batches: Sequence[Batch], text: Mapping[str, float]) -> Mapping[str, float]:
        """What trivial predictors get for the figure.

        Args:
            batches: the rows that will be judged, in the batches in which they will be.
            text: nats a token of predictors of text, which read what lies to the left of a token.
        """
        ...

    def rebuild(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Int[Tensor, "B L"] | None:
        """The rows with everything that was hidden or deleted written greedily, to be shown beside the rows.

        None where the network writes nothing.
        """
        ...


def scatter_positions(values: Float[Tensor, "M"], positions: Bool[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """Puts values of the true positions, in row-major order, back into their places; zero elsewhere."""
    full = torch.zeros(positions.shape, dtype=values.dtype, device=values.device)
    return full.masked_scatter(positions, values)
