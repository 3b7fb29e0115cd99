r"""How much of each sentence's concepts the other one holds, alone and among the same neighbours.

With u_i and v_j the concepts of two sentences in the order of their texts,

    S_ij = cos(u_i, v_j),   A_ij = softmax_j(β S_ij),   w_i = |u_i| / Σ_k |u_k|.                              (1)

A network that weighs tokens by their rarity makes w_i the share of a sentence's rarity that concept i holds, so that
Σ_i w_i max_j S_ij says how much of the first sentence the second one covers (Mihalcea, Corley and Strapparava,
"Corpus-based and knowledge-based measures of text semantic similarity", AAAI 2006, equation 1, with cosines for word
similarities and w for inverse document frequency). Order is seen along the diagonals of S (MatchPyramid,
arXiv:1602.06359): (S_ij + S_{i+1,j+1})/2 is near 1 where two neighbours are found side by side, which an n-gram
overlap counts (BLEU, Papineni et al., ACL 2002), and the place where concept i is found, Σ_j A_ij j/M, moves back where
words changed sides. All of it is differentiable, and taken in both directions.

Shape letters: B pairs, C concepts of one sentence, M of the other, D width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from remask.sentences.encoders import Encoded

CLUES = 9
"""What `Found.clues` says of a concept."""
SUMS = 13
"""What `Found.sums` says of a sentence."""
WHOLE = 5
"""What `whole` says of a pair."""
FAR = -1e4
"""A similarity that no real one falls below."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What of a sentence's concepts is found in another.

    Attributes:
        near: S of (1), 0 where either is not real.
        weights: A of (1).
        share: w of (1), 0 where a concept is not real.
        here: which concepts of the sentence are real.
        there: which of the other.
    """

    near: Float[Tensor, "B C M"]
    weights: Float[Tensor, "B C M"]
    share: Float[Tensor, "B C"]
    here: Bool[Tensor, "B C"]
    there: Bool[Tensor, "B M"]

    @cached_property
    def clues(self) -> Float[Tensor, "B C 9"]:
        """Of each concept: how near what it finds is, and the nearest, alone, with the next one, with both beside it.

        Then how near the next ones and the ones before are where it is found; how far it moved, as a share of the
        text; how far the next one is found before it; its share times the number of concepts.
        """
        after, before = beside(self.near, 1), beside(self.near, -1)
        found = (self.weights * self.near).sum(-1)
        two, three = (self.near + after) / 2, (before + self.near + after) / 3
        size = self.here.sum(1, keepdim=True).clamp(min=1)
        at = (self.weights * places(self.there)[:, None]).sum(-1)
        following = functional.pad(self.here[:, 1:], (0, 1)) & self.here
        back = (at - functional.pad(at[:, 1:], (0, 1))).clamp(min=0) * following
        moved = (at - places(self.here)).abs()
        gone = [(self.weights * there).sum(-1) for there in (after, before)]
        best = [self._best(near) for near in (self.near, two, three)]
        return torch.stack([found, *best, *gone, moved, back, self.share * size], -1)

    @property
    def sums(self) -> Float[Tensor, "B 13"]:
        """The clues of all concepts of a sentence as sums, by their share of rarity and evenly."""
        found, best, two, three, _, _, moved, back, much = self.clues.unbind(-1)
        even = self.here / self.here.sum(1, keepdim=True).clamp(min=1)
        squared = self.share.square()
        squared = squared / squared.sum(1, keepdim=True).clamp(min=1e-9)
        by = {"share": self.share, "even": even, "squared": squared}
        wanted = [
            (found, "share"),
            (best, "share"),
            (best, "even"),
            (best, "squared"),
            (two, "share"),
            (two, "even"),
            (three, "share"),
            (three, "even"),
            (moved * best, "even"),
            (back * best, "even"),
            (best.clamp(min=0) ** 3, "share"),
            (two.clamp(min=0) ** 3, "even"),
        ]
        missed = (much * (1 - best)).masked_fill(~self.here, 0).amax(1)
        return torch.stack([*((clue * by[name]).sum(1) for clue, name in wanted), missed], -1)

    def _best(self, near: Float[Tensor, "B C M"]) -> Float[Tensor, "B C"]:
        return near.masked_fill(~self.there[:, None], -1.0).amax(-1)


def both_ways(u: Encoded, v: Encoded, *, sharpness: Tensor) -> Iterator[Found]:
    """What of the first sentence is found in the second, and the other way.

    Args:
        u: concepts of the first sentences.
        v: of the second.
        sharpness: β of (1).
    """
    real = u.real[:, :, None] & v.real[:, None]
    near = functional.normalize(u.vectors, dim=-1) @ functional.normalize(v.vectors, dim=-1).mT * real
    for one, other, similarity in ((u, v, near), (v, u, near.mT)):
        size = one.vectors.norm(dim=-1) * one.real
        yield Found(
            near=similarity,
            weights=(sharpness * similarity).masked_fill(~other.real[:, None], FAR).softmax(-1),
            share=size / size.sum(1, keepdim=True).clamp(min=1e-9),
            here=one.real,
            there=other.real,
        )


def beside(near: Float[Tensor, "B C M"], step: int) -> Float[Tensor, "B C M"]:
    """S_{i+step, j+step}, 0 beyond the ends."""
    if step > 0:
        return functional.pad(near[:, step:, step:], (0, step, 0, step))
    return functional.pad(near[:, :step, :step], (-step, 0, -step, 0))


def places(real: Bool[Tensor, "B C"]) -> Float[Tensor, "B C"]:
    """Where each concept stands, from 0 up to 1."""
    return torch.arange(real.shape[1], device=real.device) / real.sum(1, keepdim=True).clamp(min=1)


def whole(u: Encoded, v: Encoded) -> Float[Tensor, "B 5"]:
    """The cosine of the mean vectors, as they are and of concepts all made as large; how long the two are."""
    cosines = [
        functional.cosine_similarity(one.pooled, other.pooled, dim=-1) for one, other in ((u, v), (alike(u), alike(v)))
    ]
    n, m = (each.real.sum(1).clamp(min=1) for each in (u, v))
    ratio = (n / m).log()
    return torch.stack([*cosines, ratio, ratio.abs(), (n + m).log() / 4], -1)


def alike(sentence: Encoded) -> Encoded:
    """The concepts, all of length 1."""
    return Encoded(vectors=functional.normalize(sentence.vectors, dim=-1), real=sentence.real)


def trimmed(sentences: Encoded) -> Encoded:
    """Without the last slots that are real in no sentence; one is kept."""
    slots = torch.arange(1, sentences.real.shape[1] + 1, device=sentences.real.device)
    last = max(1, int((sentences.real.any(0) * slots).max()))
    return Encoded(vectors=sentences.vectors[:, :last], real=sentences.real[:, :last])


def in_bands(sentences: Encoded, count: int) -> list[Encoded]:
    """The same concepts by each of `count` equal parts of their features."""
    return [Encoded(vectors=part, real=sentences.real) for part in sentences.vectors.chunk(count, -1)]
