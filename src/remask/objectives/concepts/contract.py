"""What the objectives of this package ask of a network, and a network that has read its source already.

Shape letters: B rows, N source tokens, S places denoised, C concepts, D features a concept, V vocabulary, M wanted.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.objectives.base import Network, SourceNetwork
from remask.objectives.noisy import WantedRows


@runtime_checkable
class Concepts(Protocol):
    """What an encoder says of its source.

    Attributes:
        vectors: [B C D].
        real: which of them may be read [B C].
    """

    @property
    def vectors(self) -> Float[Tensor, "B C D"]:
        """What the concepts say."""
        ...

    @property
    def real(self) -> Bool[Tensor, "B C"]:
        """Which of them say anything."""
        ...


Hear = Callable[[Any], Any]
"""Is handed the `Concepts` of a forward pass, with their gradient, before any of them is dropped; see `Ear`.

What it returns takes their place; None leaves them."""


class Ear:
    """Keeps the `Concepts` that a forward pass lets it hear, as the network's weights made them."""

    def __init__(self) -> None:
        self._heard: Any = None

    def __call__(self, concepts: Any) -> None:
        """Is handed to the network as `hear`."""
        self._heard = concepts

    @property
    def heard(self) -> Any:
        """The concepts of the last forward pass."""
        assert self._heard is not None, "a concept reader hands its concepts over in each forward pass"
        return self._heard


@runtime_checkable
class ConceptReader(SourceNetwork, Protocol):
    """A denoiser that reads a source through `Concepts`, in two calls or in one."""

    def __call__(
        self,
        z: Int[Tensor, "B S"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B S"],
        positions: Bool[Tensor, "B S"],
        source: Int[Tensor, "B N"] | None = None,
        source_real: Bool[Tensor, "B N"] | None = None,
        kept: Int[Tensor, "B"] | None = None,
        hear: Hear | None = None,
    ) -> Float[Tensor, "M V"]:
        """Both parts in one call; `kept` is the number of first concepts that each row keeps, None: all of them."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sourced:
    """A concept reader as a `Network`, whose source is settled; it is read anew at each call, with its gradient.

    Attributes:
        network: the reader, maybe wrapped for training.
        source: the tokens given [B N].
        source_real: which of them are no padding [B N].
        kept: the number of first concepts that each row keeps [B]; None: all.
        hear: is handed the concepts.
    """

    network: Network
    source: Int[Tensor, "B N"]
    source_real: Bool[Tensor, "B N"]
    kept: Int[Tensor, "B"] | None = None
    hear: Hear | None = None

    def __call__(
        self,
        z: Int[Tensor, "B S"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B S"],
        positions: Bool[Tensor, "B S"],
    ) -> Float[Tensor, "M V"]:
        """As `Network`."""
        return cast(ConceptReader, self.network)(
            z,
            t,
            segments=segments,
            positions=positions,
            source=self.source,
            source_real=self.source_real,
            kept=self.kept,
            hear=self.hear,
        )


@dataclass(frozen=True, kw_only=True)
class Told:
    """A concept reader as a `Network`, which was told the concepts once; for evaluation.

    Attributes:
        network: the reader.
        concepts: of all rows, as `network.encode` gives them, or changed by whoever asks what that does.
    """

    network: ConceptReader
    concepts: Any

    def __call__(
        self,
        z: Int[Tensor, "B S"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B S"],
        positions: Bool[Tensor, "B S"],
    ) -> Float[Tensor, "M V"]:
        """As `Network`, run on the rows with a wanted position only."""
        concepts = cast(Concepts, self.concepts)
        return WantedRows(self._decode)(
            z, t, segments=segments, positions=positions, vectors=concepts.vectors, real=concepts.real
        )

    def _decode(
        self,
        z: Int[Tensor, "B S"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B S"],
        positions: Bool[Tensor, "B S"],
        vectors: Float[Tensor, "B C D"],
        real: Bool[Tensor, "B C"],
    ) -> Float[Tensor, "M V"]:
        some = replace(self.concepts, vectors=vectors, real=real)
        return self.network.decode(z, t, some, segments=segments, positions=positions)


def kept_concepts(u: Float[Tensor, "B 2"], *, share: float, concepts: int) -> Int[Tensor, "B"]:
    r"""How many of its first concepts each row keeps: a share of the rows a random number k, the others all.

    k is log-uniform, P(k) = log((k + 1)/k) / log(C + 1) for k in 1..C, so that small numbers are seen as often as
    large ones (nested dropout, Rippel et al., arXiv:1402.0915, whose k is geometric; Matryoshka representations,
    arXiv:2205.13147, take powers of two).

    Args:
        u: two uniform draws in [0, 1) a row: whether it drops concepts, and how many it keeps.
        share: of rows that drop some, in [0, 1].
        concepts: C.
    """
    k = torch.exp(u[:, 1] * torch.log(torch.tensor(concepts + 1.0, dtype=u.dtype, device=u.device)))
    return torch.where(u[:, 0] < share, k.long().clamp(1, concepts), concepts)
