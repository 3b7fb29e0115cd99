"""Text as vectors of mean square 1, which noise lies on: the latent of a thought.

The latent is narrow on purpose: noisy vectors of a wide table round to the right token at nearly all noise levels, and
those then teach nothing. A narrow one can be learned end to end (Diffusion-LM, arXiv:2205.14217, section 4.1). A codec
gives a whole response a few vectors instead; it is trained before, and stays as it is.

Shape letters: B rows, R tokens of a response, S vectors, V vocabulary, W features of a vector.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from remask.networks.concepts.network import ConceptNetwork
from remask.networks.concepts.vectors import Concepts
from remask.networks.normalisation import unit_rms


@runtime_checkable
class TableCodec(Protocol):
    """A vector for every token."""

    @property
    def width(self) -> int:
        """W."""
        ...

    def vectors(self) -> Float[Tensor, "V W"]:
        """All of them, float32; a coordinate has mean square 1."""
        ...


class LearnedTable(nn.Module):
    """A table whose rows are divided by their root mean square, so that each has the norm √W.

    Frozen (`requires_grad_(False)`), it is a table of random directions.

    Args:
        vocab_size: V.
        width: W.

    Weights hold nothing meaningful until `initialise` is called.
    """

    def __init__(self, *, vocab_size: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, width)

    @property
    def width(self) -> int:
        """W."""
        return self.table.embedding_dim

    def vectors(self) -> Float[Tensor, "V W"]:
        """The normalised rows."""
        return unit_rms(self.table.weight)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws the rows from `generator` (on the weights' device), standard normal."""
        nn.init.normal_(self.table.weight, generator=generator)


class OwnTable(nn.Module):
    """The embedding that the trunk reads tokens by, without a gradient and scaled to mean square 1 over all of it.

    Args:
        embedding: of the trunk; it stays the trunk's, and is no part of this module.
    """

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        # in a tuple, so that its weights are not registered, and saved, a second time
        self._embedding = (embedding,)

    @property
    def width(self) -> int:
        """W."""
        return self._weight.shape[1]

    @property
    def _weight(self) -> Float[Tensor, "V W"]:
        weight = self._embedding[0].weight
        assert isinstance(weight, Tensor)
        return weight

    def vectors(self) -> Float[Tensor, "V W"]:
        """The scaled rows."""
        table = self._weight.detach().float()
        return table / table.square().mean().sqrt()


@runtime_checkable
class Autoencoder(Protocol):
    """What a response is read and written by."""

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


class ConceptCodec(nn.Module):
    """A network of concepts as an autoencoder of responses: all tokens are written at once, from concepts alone.

    Args:
        network: of concepts of a narrow width.
        length: R.
        mask_id: what the decoder sees in the place of each token.
        heard: α of the noise between the two; the decoder has learned of concepts times α, and noise.
    """

    def __init__(self, network: ConceptNetwork, *, length: int, mask_id: int, heard: float) -> None:
        super().__init__()
        assert network.concepts is not None, "the schema refuses an encoder without a fixed number of concepts"
        assert network.latent_width is not None, "the schema refuses concepts of full width"
        self.network, self.length, self.mask_id, self.heard = network, length, mask_id, heard
        self.latent_width = network.latent_width

    @property
    def vectors(self) -> int:
        """The concepts of a response."""
        assert self.network.concepts is not None
        return self.network.concepts

    def encode(self, ids: Int[Tensor, "B R"]) -> Float[Tensor, "B S W"]:
        """The concepts, without noise."""
        return self.network.encode(ids, real=torch.ones_like(ids, dtype=torch.bool)).vectors

    def decode(self, vectors: Float[Tensor, "B S W"]) -> Float[Tensor, "B R V"]:
        """Logits of all tokens, none of which is shown."""
        masks = torch.full((len(vectors), self.length), self.mask_id, device=vectors.device)
        told = Concepts(
            vectors=self.heard * vectors,
            real=torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device),
        )
        one, end = torch.ones_like(masks), torch.ones(len(vectors), dtype=vectors.dtype, device=vectors.device)
        logits = self.network.decode(masks, end, told, segments=one, positions=one.bool())
        return logits.unflatten(0, masks.shape)


class FrozenCodec(nn.Module):
    """A finished autoencoder of responses around a diffusion of its vectors.

    What is diffused are vectors less their mean, each feature's own, over one number for all, so that a coordinate has
    mean square 1 over the training text (`measure`); features that say little stay small.

    Args:
        autoencoder: frozen here, and in evaluation mode for good.
        start: the place, as attention counts, of a response's first vector.
        eos_id: what fills up short responses.
        origin: of the autoencoder, JSON values: what it is built from again.
    """

    def __init__(self, autoencoder: nn.Module, *, start: int, eos_id: int, origin: Mapping[str, Any]) -> None:
        super().__init__()
        assert isinstance(autoencoder, Autoencoder)
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.length, self.start, self.eos_id, self.origin = autoencoder.length, start, eos_id, origin
        self.shift = nn.Parameter(torch.zeros(autoencoder.latent_width), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)

    @property
    def width(self) -> int:
        """W."""
        return len(self.shift)

    @property
    def count(self) -> int:
        """S."""
        assert isinstance(self.autoencoder, Autoencoder)
        return self.autoencoder.vectors

    @property
    def filled(self) -> nn.Module:
        """The network whose weights come from elsewhere."""
        return self.autoencoder.network if isinstance(self.autoencoder, ConceptCodec) else self.autoencoder

    @torch.no_grad()
    def encode(self, ids: Int[Tensor, "B R"]) -> Float[Tensor, "B S W"]:
        """The vectors of responses, float32."""
        assert isinstance(self.autoencoder, Autoencoder)
        return (self.autoencoder.encode(ids).float() - self.shift) / self.scale

    def decode(self, vectors: Float[Tensor, "B S W"]) -> Float[Tensor, "B R V"]:
        """Logits of all tokens of responses."""
        assert isinstance(self.autoencoder, Autoencoder)
        wide = vectors.to(self.scale.dtype)
        return self.autoencoder.decode(wide * self.scale + self.shift)

    @torch.no_grad()
    def measure(self, responses: Iterable[Int[Tensor, "B R"]]) -> None:
        """Takes mean and mean square from the vectors of some responses."""
        nn.init.zeros_(self.shift)
        nn.init.ones_(self.scale)
        found = torch.cat([self.encode(ids).flatten(0, 1) for ids in responses])
        self.shift.copy_(found.mean(0))
        self.scale.copy_((found - self.shift).square().mean().sqrt().clamp_min(1e-6))

    def train(self, mode: bool = True) -> "FrozenCodec":
        """As for any module, but that the autoencoder never drops a unit."""
        super().train(mode)
        self.autoencoder.eval()
        return self
