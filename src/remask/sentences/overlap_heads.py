"""Heads that compare the concepts of two sentences one by one (overlap.py), and by name (names.py).

Shape letters: B examples, C concepts of a sentence, D width, F features, H hidden, K outputs.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from remask.networks.normalisation import unit_rms
from remask.sentences.encoders import Encoded, Read
from remask.sentences.heads import SHARPNESS, Comparing, Tokens
from remask.sentences.names import Names
from remask.sentences.overlap import CLUES, FAR, SUMS, WHOLE, Found, both_ways, in_bands, trimmed, whole

OVERLAP_WIDTH, OVERLAP_DROPOUT = 128, 0.2
"""Features a concept of `OverlapHead`, and the share of them that is dropped in training."""


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


class OverlapHead(Comparing):
    r"""How much of each sentence the other one holds (overlap.py), and what its concepts become beside what they find.

        m_i = gelu(H gelu(W [û_i; f̂_i; |û_i−f̂_i|; û_i·f̂_i] + P c_i)),   f_i = Σ_j A_ij v_j / |v_j|,                (1)

    c_i being the clues of concept i and a hat a length of √D; the mean of m by share of rarity, the even mean and the
    largest go on, of both sentences. The sums of clues go to the outputs beside it.

    Where concepts have bands of features (networks/concepts/stretches.py), what each band finds, by its own features
    and β, is told side by side: f_i and c_i are then those of all bands, one behind the other. A band that was counted
    and not trained is not among them (`head_names.without_counted`).

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
        """The three summaries of (1) for u, of what each band found; the first band's shares of rarity count."""
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
