"""A denoiser of concept vectors around the finished network that they come from.

Shape letters: B rows, N source tokens, L places denoised, C concepts, W features of a concept, V vocabulary, M places
at which logits are wanted.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from remask.networks.concepts.network import ConceptNetwork
from remask.networks.concepts.vectors import Concepts
from remask.networks.latent import LatentTransformer


class ConceptPriorNetwork(nn.Module):
    """Denoises concept vectors; encodes and decodes them by a network that is not trained any more.

    Args:
        codec: text ⇄ concepts of a narrow width; frozen here, and in evaluation mode for good.
        prior: says of noisy concepts what they were.
        origin: of the codec, JSON values: what it is built from again.
    """

    def __init__(self, codec: ConceptNetwork, prior: LatentTransformer, *, origin: Mapping[str, Any]) -> None:
        super().__init__()
        self.codec = codec.requires_grad_(False).eval()
        self.prior = prior
        self.origin = origin

    @property
    def concepts(self) -> int | None:
        """C."""
        return self.codec.concepts

    @property
    def latent_width(self) -> int | None:
        """W."""
        return self.codec.latent_width

    def forward(self, z: Float[Tensor, "B C W"], t: Float[Tensor, "B"]) -> Float[Tensor, "B C W"]:
        """What the prior says of noisy concepts; the only part that is trained."""
        return self.prior(z, t)

    @torch.no_grad()
    def encode(self, source: Int[Tensor, "B N"], *, real: Bool[Tensor, "B N"]) -> Concepts:
        """The codec's concepts, without noise."""
        return self.codec.encode(source, real=real)

    def told(self, vectors: Float[Tensor, "B C W"]) -> Concepts:
        """Drawn vectors as concepts, all of which are real."""
        return Concepts(vectors=vectors, real=torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device))

    def decode(
        self,
        z: Int[Tensor, "B L"],
        t: Float[Tensor, "B"],
        concepts: Concepts,
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
    ) -> Float[Tensor, "M V"]:
        """The codec's logits of masked tokens, given concepts with the noise that it was trained with."""
        return self.codec.decode(z, t, concepts, segments=segments, positions=positions)

    def train(self, mode: bool = True) -> "ConceptPriorNetwork":
        """As for any module, but that the codec never drops a unit."""
        super().train(mode)
        self.codec.eval()
        return self

    def repeated_layers(self) -> Iterator[nn.Module]:
        """The prior's blocks."""
        return self.prior.repeated_layers()

    def hidden_matrices(self) -> Iterator[nn.Parameter]:
        """The weight matrices inside the prior's blocks: what Muon orthogonalises."""
        return self.prior.hidden_matrices()
