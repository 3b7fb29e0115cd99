"""Concepts that are stretches of a text: C runs of neighbouring tokens in order, or a token each where there are fewer.

Token n of a text of N belongs to stretch

    c(n) = ⌊n·C/N⌋ where N > C, else n.                                                                       (1)

Shape letters: B rows, N source tokens, L places decoded, C stretches at most, D width, M wanted places.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from remask.networks.blocks import Final
from remask.networks.concepts.encoders import Encoded, timeless
from remask.networks.concepts.places import sinusoids, texts
from remask.networks.normalisation import UnitRMS, unit_rms
from remask.networks.rotary import rotary
from remask.networks.segments import segment_mask
from remask.networks.stacks import Stack


def stretch_of(place: Int[Tensor, "*N"], size: Int[Tensor, "*#N"], *, most: int) -> Int[Tensor, "*N"]:
    """The stretches c(n) of (1); without meaning, but within 0 … C − 1, for places outside their text.

    Args:
        place: n, from 0.
        size: N, tokens of the text that the place stands in.
        most: C.
    """
    return torch.where(size > most, place * most // size.clamp(min=1), place).clamp(0, most - 1)


def stretch_means(
    tokens: Float[Tensor, "B N D"], *, real: Bool[Tensor, "B N"], most: int
) -> tuple[Float[Tensor, "B C D"], Bool[Tensor, "B C"]]:
    """The means over the real tokens of each stretch, and which stretches have one; real tokens alone are counted."""
    stretch = stretch_of(real.cumsum(1) - 1, real.sum(1, keepdim=True), most=most)
    there = real[..., None].to(tokens.dtype)
    total = tokens.new_zeros(len(tokens), most, tokens.shape[-1])
    total = total.scatter_add(1, stretch[..., None].expand_as(tokens), tokens * there)
    count = there.new_zeros(len(tokens), most, 1).scatter_add(1, stretch[..., None], there)
    return total / count.clamp(min=1), count.squeeze(-1) > 0


class StretchMeans(nn.Module):
    """The means of the tokens of each stretch. Nothing here is learned.

    Args:
        most: C.
    """

    concepts: int | None = None

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, tokens: Float[Tensor, "B N D"], *, real: Bool[Tensor, "B N"]) -> Encoded:
        """The mean over the real tokens of each stretch; a short text has real vectors in its first slots alone."""
        return stretch_means(tokens, real=real, most=self.most)


class StretchStates(nn.Module):
    r"""Stretches by the words in them and by what those say where they stand, a part of a concept's features each.

    A token's features are K bands of D/K. With w the mean over a stretch of the first of them, c that of the others but
    the last, and s that of its tokens' states, of root mean square 1, behind a bidirectional transformer of width D/K
    which reads all their features,

        concept = [w ; c ; s · |w| / |s|].                                                                    (2)

    States are as large as the words, so that rarity weighs them too; c is a mean as w is. What stands in a stretch can
    be compared apart from its context (sentences/overlap.py).

    Args:
        width: D, a multiple of K.
        most: C.
        blocks: of width D/K.
        head_width: features a head.
        bands: K, 2 (there is no c) or 3 (co_occurrence.py gives c).
    """

    concepts: int | None = None

    def __init__(self, width: int, most: int, blocks: Stack, *, head_width: int, bands: int = 2) -> None:
        super().__init__()
        self.most, self.head_width, self.bands = most, head_width, bands
        self.inward = nn.Linear(width, width // bands - 1, bias=False)
        self.blocks = blocks
        self.norm = UnitRMS()

    def forward(self, tokens: Float[Tensor, "B N D"], *, real: Bool[Tensor, "B N"]) -> Encoded:
        """The concepts (2); a short text has real ones in its first slots alone."""
        x = self.inward(self.norm(tokens))
        here = x.new_full((*x.shape[:-1], 1), 0.5 * math.sqrt(x.shape[-1] + 1))  # for `Attention.look_beside`
        x = torch.cat([here, x], -1)
        rotation = rotary(x.shape[1], self.head_width, device=x.device)
        states = self.blocks(x, timeless(x), rotation=rotation, mask=segment_mask(real.long()), real=real)
        kept, states = tokens[..., : -x.shape[-1]], unit_rms(states).to(tokens.dtype)
        means, there = stretch_means(torch.cat([kept, states], -1), real=real, most=self.most)
        words, *company, states = means.chunk(self.bands, -1)
        size = words.square().mean(-1, keepdim=True).clamp(min=1e-12).sqrt()
        return torch.cat([words, *company, (unit_rms(states) * size).to(words.dtype)], -1), there


class StretchDecoder(nn.Module):
    """Each place reads the concept of its own stretch, and an MLP makes of it what stands at the place.

        h_i = x + MLP(x / rms(x)),  x = v_c(i) / rms(v_c(i)) + P[i − first place of c(i)]                      (3)

    No place learns of another but through its concept. The row that is decoded must have the tokens of the one that
    was encoded: concepts are those of its own stretches. A place without a real concept reads zeros.

    Args:
        width: D.
        most: C, of the encoder.
        mlp: reads what a place reads, [*N D] → [*N D].
    """

    def __init__(self, width: int, most: int, *, mlp: nn.Module) -> None:
        super().__init__()
        self.most = most
        self.place = nn.Linear(width, width, bias=False)
        self.blocks = nn.ModuleList([mlp])
        self.norm = Final(width)

    def forward(
        self,
        tokens: Float[Tensor, "B L D"],
        t: Float[Tensor, "B"],
        vectors: Float[Tensor, "B C D"],
        real: Bool[Tensor, "B C"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
    ) -> Float[Tensor, "M D"]:
        """The states at the true places of `positions`, in row-major order; tokens and times are not read."""
        read = texts(segments, count=max(1, int(segments.max())))
        rows, places = positions.nonzero(as_tuple=True)
        place, size = read.offset[rows, places], 1 + read.extent[rows, (segments[rows, places] - 1).clamp(min=0)]
        stretch = stretch_of(place, size, most=self.most)
        first = torch.where(size > self.most, -(-stretch * size // self.most), stretch)  # the least n of (1)
        x = vectors[rows, stretch] * real[rows, stretch][:, None]
        within = sinusoids((place - first)[None], width=x.shape[-1])[0]
        x = unit_rms(x).to(x.dtype) + self.place(within.to(x.dtype))
        return self.norm(x + self.blocks[0](unit_rms(x).to(x.dtype)), timeless(tokens)[rows])

    @torch.no_grad()
    def begin(self, generator: torch.Generator) -> None:
        """Places that matter less than concepts."""
        del generator
        self.place.weight *= 0.1
