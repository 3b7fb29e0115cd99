"""Heads that are trained together with the model on a sentence task.

Each reads the model through its vectors: of the joint text of a pair (the two sentences with an end of text between
them), or of each sentence by itself.

Shape letters: B examples, N tokens, C vectors of a text, D width, L places of the decoder, K outputs.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from remask.continuation import SourceNetwork
from remask.networks.normalisation import unit_rms
from remask.sentences.encoders import Encoded, Ids, Read, Wording, before_projection, padded
from remask.sentences.names import Names, own_concepts
from remask.sentences.overlap import CLUES, FAR, SUMS, WHOLE, Found, both_ways, in_bands, trimmed, whole
from remask.sentences.splits import Labelled
from remask.sentences.tasks import COMPARING

STRESS = 5.0
"""What plain cosines are multiplied by, so that a weight of ordinary size gives them their say."""
SHARPNESS = 10.0
"""β of heads that compare concepts; where it is learned, at the start. The nearest vector counts most, and others are
not out of reach."""
OVERLAP_WIDTH, OVERLAP_DROPOUT = 128, 0.2
"""Features a concept of `OverlapHead`, and the share of them that is dropped in training."""
DECODED_PLACES = 16
"""Masked places that the decoder answers at for the head `via_decoder`, at most: no more than the model's rows have."""

Tokens = tuple[Ids, ...]
"""An example's rows of tokens: one of the joint text, or one a sentence."""


class Head(Protocol):
    """What turns a network's reading of a batch into outputs."""

    def __call__(self, network: nn.Module, batch: Sequence[Tokens]) -> Float[Tensor, "B K"]:
        """The outputs of each example: logits of classes, or one degree."""
        ...


class _Reading(nn.Module):
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


class PooledHead(_Reading):
    """The mean vector of the joint text."""

    def forward(self, network: nn.Module, batch: Sequence[Tokens]) -> Float[Tensor, "B K"]:
        """As `Head`."""
        return self.answer(self.encoded(network, [row for (row,) in batch]).pooled)


class _Comparing(_Reading):
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


class PairHead(_Comparing):
    """The two sentences by themselves: [u; v; |u−v|; u·v] and the cosine of their mean vectors."""

    def forward(self, network: nn.Module, batch: Sequence[Tokens]) -> Float[Tensor, "B K"]:
        """As `Head`."""
        u, v = (side.pooled for side in self.sides(network, batch))
        near = functional.cosine_similarity(u, v, dim=-1)
        return self.compared(torch.cat([u, v, (u - v).abs(), u * v], -1), near[:, None])


class MatchHead(_Comparing):
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


class Dropped(nn.Module):
    """Dropout of whole features of a text, the same ones in all of its vectors (arXiv:1512.05287).

    Args:
        share: of the features that are dropped in training.
        generator: draws them, on the CPU.
    """

    def __init__(self, share: float, generator: torch.Generator) -> None:
        super().__init__()
        self.share, self.generator = share, generator

    def forward(self, x: Float[Tensor, "B C F"]) -> Float[Tensor, "B C F"]:
        """The features that are left, larger by what is missing; in evaluation all."""
        if not self.training:
            return x
        kept = torch.rand(len(x), 1, x.shape[-1], generator=self.generator, device="cpu") >= self.share
        return x * (kept.to(x) / (1 - self.share))


class OverlapHead(_Comparing):
    r"""How much of each sentence the other one holds (overlap.py), and what its concepts become beside what they find.

        m_i = gelu(H gelu(W [û_i; f̂_i; |û_i−f̂_i|; û_i·f̂_i] + P c_i)),   f_i = Σ_j A_ij v_j / |v_j|,                (2)

    c_i being the clues of concept i and a hat a length of √D; the mean of m by share of rarity, the even mean and the
    largest go on, of both sentences. The sums of clues go to the outputs beside it.

    Where concepts have bands of features (networks/concepts/stretches.py), what each band finds, by its own features
    and β, is told side by side: f_i and c_i are then those of all bands, one behind the other.

    Args:
        width: D.
        bands: equal parts of D that are compared each by itself.
        read: as for the other heads, and so are `fill`, `outputs` and `generator`.
    """

    def __init__(
        self, *, width: int, bands: int, read: Read, fill: int, outputs: int, generator: torch.Generator
    ) -> None:
        hidden = min(width, OVERLAP_WIDTH)
        sums = bands * (2 * SUMS + WHOLE)
        super().__init__(
            cosines=sums, read=read, fill=fill, width=6 * hidden + sums, outputs=outputs, generator=generator
        )
        self.sharpness = nn.Parameter(torch.full((bands,), SHARPNESS))
        self.compare = nn.Linear(4 * width, hidden, bias=False)
        self.clues = nn.Linear(bands * CLUES, hidden)
        self.mix = nn.Linear(hidden, hidden)
        self.drop = Dropped(OVERLAP_DROPOUT, generator)
        with torch.no_grad():
            for layer in (self.compare, self.clues, self.mix):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
            for layer in (self.clues, self.mix):
                nn.init.zeros_(layer.bias)

    def forward(self, network: nn.Module, batch: Sequence[Tokens]) -> Float[Tensor, "B K"]:
        """As `Head`."""
        return self.overlapping(*(trimmed(side) for side in self.sides(network, batch)))

    def overlapping(self, u: Encoded, v: Encoded) -> Float[Tensor, "B K"]:
        """The outputs of the concepts of both sentences."""
        count = len(self.sharpness)
        parts = list(zip(in_bands(u, count), in_bands(v, count), strict=True))
        found = [tuple(both_ways(*pair, sharpness=beta)) for pair, beta in zip(parts, self.sharpness, strict=True)]
        sums = [(one.sums, other.sums, whole(*pair)) for (one, other), pair in zip(found, parts, strict=True)]
        sums = torch.cat([each for band in sums for each in band], -1) - 0.5
        first, second = zip(*found, strict=True)
        read = [self.compared_concepts(u, v, first), self.compared_concepts(v, u, second)]
        feature = torch.cat([*read, sums], -1)
        return self.compared(self.drop(feature[:, None])[:, 0], sums)

    def compared_concepts(self, u: Encoded, v: Encoded, found: Sequence[Found]) -> Float[Tensor, "B H"]:
        """The three summaries of (2) for u, of what each band found; the first band's shares of rarity count."""
        others = v.vectors.chunk(len(found), -1)
        met = [band.weights @ functional.normalize(other, dim=-1) for band, other in zip(found, others, strict=True)]
        x, y = unit_rms(u.vectors), unit_rms(torch.cat(met, -1))
        clues = torch.cat([band.clues for band in found], -1)
        features = self.compare(self.drop(torch.cat([x, y, (x - y).abs(), x * y], -1))) + self.clues(clues)
        hidden = functional.gelu(self.mix(self.drop(functional.gelu(features))))
        by_share = (hidden * found[0].share[..., None]).sum(1)
        largest = hidden.masked_fill(~u.real[..., None], FAR).amax(1)
        return torch.cat([by_share, Encoded(vectors=hidden, real=u.real).pooled, largest], -1)


class NamedHead(OverlapHead):
    """`OverlapHead`, and beside it what each named concept counts that one sentence or both hold (names.py).

    Args:
        names: zero at the start.
        width: D.
        bands: as for `OverlapHead`.
        read: as for the other heads, and so are `fill`, `outputs` and `generator`.
    """

    def __init__(
        self,
        *,
        names: Names,
        width: int,
        bands: int,
        read: Read,
        fill: int,
        outputs: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(width=width, bands=bands, read=read, fill=fill, outputs=outputs, generator=generator)
        self.names = names

    def forward(self, network: nn.Module, batch: Sequence[Tokens]) -> Float[Tensor, "B K"]:
        """As `Head`."""
        u, v = (trimmed(side) for side in self.sides(network, batch))
        first = (in_bands(side, len(self.sharpness))[0] for side in (u, v))
        return self.overlapping(u, v) + self.names(*first)


class QueryHead(_Reading):
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


class DecoderHead(_Reading):
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


Make = Callable[[nn.Module, Read, Wording, int, torch.Generator], nn.Module]
"""(network, how it reads, wording, outputs, generator) → a head."""


def make_head(
    name: str, network: nn.Module, read: Read, *, wording: Wording, outputs: int, generator: torch.Generator
) -> nn.Module:
    """A head with fresh weights, on the network's device.

    Args:
        name: one of cls, via_decoder, pooled, pair, match, overlap, named.
        network: what it will read; its vectors' width is found by reading one token.
        read: how.
        wording: its end of text fills up rows, its mask stands in the decoder's places.
        outputs: K.
        generator: draws the weights, on the CPU.
    """
    device = next(network.parameters()).device
    fill = wording.tokenizer.eos_id
    masks = torch.full((min(DECODED_PLACES, wording.length),), wording.tokenizer.mask_id, device=device)
    one = torch.full((1, 1), fill, device=device)
    with torch.no_grad():
        real = torch.ones_like(one, dtype=torch.bool)
        if name == "via_decoder":
            width = decoded(network, one, real, masks=masks).shape[-1]
        else:
            width = read(network, one, real).vectors.shape[-1]
    common = {"read": read, "fill": fill, "outputs": outputs, "generator": generator}
    bands = getattr(network, "bands", 1)

    def names() -> Names:
        own = own_concepts(network, read, tokens=wording.tokenizer.vocab_size, bands=bands)
        return Names(own, outputs=outputs)

    heads: dict[str, Callable[[], nn.Module]] = {
        "cls": lambda: QueryHead(width=width, **common),
        "pooled": lambda: PooledHead(width=width, **common),
        "pair": lambda: PairHead(width=4 * width, cosines=1, **common),
        "match": lambda: MatchHead(width=width, **common),
        "overlap": lambda: OverlapHead(width=width, bands=bands, **common),
        "named": lambda: NamedHead(names=names(), width=width, bands=bands, **common),
        "via_decoder": lambda: DecoderHead(width=width, masks=masks, **common),
    }
    return heads[name]().to(device)


def tokens_for(name: str, examples: Labelled, wording: Wording) -> list[Tokens]:
    """The rows of tokens that a head reads of each example."""
    if len(examples.texts) == 1:
        return [(row,) for row in wording.alone(examples.texts[0])]
    first, second = examples.texts
    if name in COMPARING:
        return list(zip(wording.alone(first), wording.alone(second), strict=True))
    return [(row,) for row in wording.joined(first, second)]
