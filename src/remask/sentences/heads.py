"""Heads that are trained together with the model on a sentence task.

Each reads the model through its vectors: of the joint text of a pair (the two sentences with an end of text between
them), or of each sentence by itself.

Shape letters: B examples, N tokens, C vectors of a text, D width, L places of the decoder, K outputs.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from remask.continuation import SourceNetwork
from remask.sentences.encoders import Encoded, Ids, Read, before_projection, padded

STRESS = 5.0
"""What plain cosines are multiplied by, so that a weight of ordinary size gives them their say."""
SHARPNESS = 10.0
"""β of heads that compare concepts; where it is learned, at the start. The nearest vector counts most, and others are
not out of reach."""
DECODED_PLACES = 16
"""Masked places that the decoder answers at for the head `via_decoder`, at most: no more than the model's rows have."""

Tokens = tuple[Ids, ...]
"""An example's rows of tokens: one of the joint text, or one a sentence."""


class Head(Protocol):
    """What turns a network's reading of a batch into outputs."""

    def __call__(self, network: nn.Module, batch: Sequence[Tokens]) -> Float[Tensor, "B K"]:
        """The outputs of each example: logits of classes, or one degree."""
        ...


class Reading(nn.Module):
    """What all heads have: how rows of tokens become vectors, and what reads a feature.

    Args:
        read: how the network gives vectors.
        fill: the token behind the end of shorter rows.
        width: of the feature that is read.
        outputs: K.
        generator: draws the weights.
    """

    def __init__(self, *, read: Read, fill: int, width: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.read, self.fill = read, fill
        hidden = min(width, 512)
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, outputs)
        with torch.no_grad():
            for layer in (self.inner, self.outer):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
                nn.init.zeros_(layer.bias)

    def encoded(self, network: nn.Module, rows: Sequence[Ids]) -> Encoded:
        """The vectors of rows of tokens."""
        ids, real = padded(rows, fill=self.fill, device=self.outer.weight.device)
        return self.read(network, ids, real)

    def answer(self, feature: Float[Tensor, "B F"]) -> Float[Tensor, "B K"]:
        """The outputs of a feature, which is normalised first."""
        return self.outer(functional.gelu(self.inner(self.norm(feature))))


class PooledHead(Reading):
    """The mean vector of the joint text."""

    def forward(self, network: nn.Module, batch: Sequence[Tokens]) -> Float[Tensor, "B K"]:
        """As `Head`."""
        return self.answer(self.encoded(network, [row for (row,) in batch]).pooled)


class Comparing(Reading):
    """What heads have that compare two sentences: a few plain cosines go to the outputs beside the feature.

    A cosine is one number among hundreds, which the normalisation of a feature would drown.

    Args:
        cosines: how many there are.
        read: as for the other heads, and so are `fill`, `width`, `outputs` and `generator`.
    """

    def __init__(
        self, *, cosines: int, read: Read, fill: int, width: int, outputs: int, generator: torch.Generator
    ) -> None:
        super().__init__(read=read, fill=fill, width=width, outputs=outputs, generator=generator)
        self.direct = nn.Linear(cosines, outputs, bias=False)
        nn.init.zeros_(self.direct.weight)

    def sides(self, network: nn.Module, batch: Sequence[Tokens]) -> tuple[Encoded, Encoded]:
        """The vectors of the first sentences, and of the second ones."""
        both = self.encoded(network, [rows[side] for side in (0, 1) for rows in batch])
        n = len(batch)
        return (
            Encoded(vectors=both.vectors[:n], real=both.real[:n]),
            Encoded(vectors=both.vectors[n:], real=both.real[n:]),
        )

    def compared(self, feature: Float[Tensor, "B F"], near: Float[Tensor, "B M"]) -> Float[Tensor, "B K"]:
        """The outputs of a feature and of some cosines."""
        return self.answer(feature) + self.direct(STRESS * near)


class PairHead(Comparing):
    """The two sentences by themselves: [u; v; |u−v|; u·v] and the cosine of their mean vectors."""

    def forward(self, network: nn.Module, batch: Sequence[Tokens]) -> Float[Tensor, "B K"]:
        """As `Head`."""
        u, v = (side.pooled for side in self.sides(network, batch))
        near = functional.cosine_similarity(u, v, dim=-1)
        return self.compared(torch.cat([u, v, (u - v).abs(), u * v], -1), near[:, None])


class MatchHead(Comparing):
    r"""Each vector of a sentence beside what it finds in the other (decomposable attention, arXiv:1606.01933).

        û_i = Σ_j softmax_j(β cos(u_i, v_j)) v_j,   m_u = mean_i gelu(W [u_i; û_i; |u_i−û_i|; u_i·û_i]),         (1)

    the same of v, and the answer is read off [m_u; m_v] (equations 2 to 5 there). Beside it go the cosine of the mean
    vectors and how well each sentence is covered by the other, mean_i max_j cos(u_i, v_j).

    Args:
        width: D.
        read: as for the other heads, and so are `fill`, `outputs` and `generator`.
    """

    def __init__(self, *, read: Read, fill: int, width: int, outputs: int, generator: torch.Generator) -> None:
        hidden = min(width, 256)
        super().__init__(cosines=3, read=read, fill=fill, width=2 * hidden, outputs=outputs, generator=generator)
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))
        self.compare = nn.Linear(4 * width, hidden)
        with torch.no_grad():
            nn.init.normal_(self.compare.weight, std=(4 * width) ** -0.5, generator=generator)
            nn.init.zeros_(self.compare.bias)

    def forward(self, network: nn.Module, batch: Sequence[Tokens]) -> Float[Tensor, "B K"]:
        """As `Head`."""
        u, v = self.sides(network, batch)
        near = functional.normalize(u.vectors, dim=-1) @ functional.normalize(v.vectors, dim=-1).mT
        first, covered = self.matched(u, v, near)
        second, covers = self.matched(v, u, near.mT)
        whole = functional.cosine_similarity(u.pooled, v.pooled, dim=-1)
        return self.compared(torch.cat([first, second], -1), torch.stack([whole, covered, covers], -1))

    def matched(
        self, u: Encoded, v: Encoded, near: Float[Tensor, "B C M"]
    ) -> tuple[Float[Tensor, "B H"], Float[Tensor, "B"]]:
        """m_u of (1), and how well u is covered by v."""
        near = near.masked_fill(~v.real[:, None], -1.0)
        weights = (self.sharpness * near).masked_fill(~v.real[:, None], -1e4).softmax(-1)
        found = weights @ v.vectors
        x = u.vectors
        compared = functional.gelu(self.compare(torch.cat([x, found, (x - found).abs(), x * found], -1)))
        mean = Encoded(vectors=compared, real=u.real).pooled
        best = Encoded(vectors=near.amax(-1, keepdim=True), real=u.real).pooled
        return mean, best.squeeze(-1)


class QueryHead(Reading):
    """A learned query that attends to the vectors of the joint text, as a CLS token would.

    Args:
        read: as for the other heads, and so are `fill`, `width`, `outputs` and `generator`.
    """

    def __init__(self, *, read: Read, fill: int, width: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__(read=read, fill=fill, width=width, outputs=outputs, generator=generator)
        self.query = nn.Parameter(0.02 * torch.randn(width, generator=generator))
        self.key = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.key.weight, std=width**-0.5, generator=generator)

    def forward(self, network: nn.Module, batch: Sequence[Tokens]) -> Float[Tensor, "B K"]:
        """As `Head`."""
        encoded = self.encoded(network, [row for (row,) in batch])
        return self.answer(self.attended(encoded.vectors, encoded.real))

    def attended(self, vectors: Float[Tensor, "B C D"], real: Bool[Tensor, "B C"]) -> Float[Tensor, "B D"]:
        """softmax(q·k_c / √D) over the real vectors, of the vectors themselves."""
        scores = self.key(vectors) @ self.query / math.sqrt(vectors.shape[-1])
        weights = scores.masked_fill(~real, -math.inf).softmax(-1)
        return torch.einsum("bc,bcd->bd", weights, vectors)


class DecoderHead(Reading):
    """The mean of what the model's own decoder makes of the concepts of the joint text at masked places.

    The decoder is given masks alone: nothing of the text reaches it but through the concepts.

    Args:
        masks: the tokens of its places [L].
        read: as for the other heads, and so are `fill`, `width`, `outputs` and `generator`.
    """

    masks: Tensor

    def __init__(
        self,
        *,
        masks: Int[Tensor, "L"],
        read: Read,
        fill: int,
        width: int,
        outputs: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(read=read, fill=fill, width=width, outputs=outputs, generator=generator)
        self.register_buffer("masks", masks, persistent=False)

    def forward(self, network: nn.Module, batch: Sequence[Tokens]) -> Float[Tensor, "B K"]:
        """As `Head`."""
        ids, real = padded([row for (row,) in batch], fill=self.fill, device=self.outer.weight.device)
        states = decoded(network, ids, real, masks=self.masks)
        return self.answer(states.mean(1))


def decoded(
    network: nn.Module, ids: Int[Tensor, "B N"], real: Bool[Tensor, "B N"], *, masks: Int[Tensor, "L"]
) -> Float[Tensor, "B L D"]:
    """The decoder's last states at masked places, from the concepts of rows of tokens alone."""
    assert isinstance(network, SourceNetwork), "refused by `Bench.fitting`"
    masks = masks.expand(len(ids), -1)
    concepts, wanted = network.encode(ids, real=real), torch.ones_like(masks, dtype=torch.bool)

    def decode() -> Tensor:
        time = torch.ones(len(ids), device=ids.device)
        return network.decode(masks, time, concepts, segments=torch.ones_like(masks), positions=wanted)

    states = before_projection(network, decode)
    return states.reshape(*masks.shape, -1)
