r"""Tokens by the letters in them, and by how rare they are.

A small text says little of most of its words, and much of their letters. So a token's vector may be the sum of its own
and of one vector for each letter n-gram of its text, boundaries included (fastText, Bojanowski et al.,
arXiv:1607.04606, equation 2; over bytes: Byte Latent Transformer, arXiv:2412.09871, section 3.2.1). N-grams share
`buckets` vectors by a hash. Their sum over a text, drawn at random, is a random projection of the counts of its
n-grams, whose cosines it keeps (Johnson–Lindenstrauss).

The tokens of a text may count the more the rarer they are,

    w_v = LOUD · exp(EAGER · g_v) · s_v / √(Σ_u p_u s_u²),   s_v = a / (a + p_v),                        (1)

p_v being the share of token v in the training text and g_v learned, from 0 (smooth inverse frequency: Arora, Liang and
Ma, "A simple but tough-to-beat baseline for sentence embeddings", ICLR 2017, section 3). A mask, which stands in no
text, would be the rarest of all and drown what shares a concept with it: it counts LOUD, as tokens do on average.

Shape letters: V vocabulary, K n-grams of a token at most, U different tokens, N tokens, D width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from remask.networks.normalisation import unit_rms

LOUD = 4.0
"""Root mean square of (1) over a training text: the mean of some 16 tokens is then as large as one of their vectors."""

TINY = 1e-6
"""Share of real slots below which a text counts as having none."""

EAGER = 10.0
"""How many times faster tokens learn what they count than other weights learn: it is one number for each."""


class Letters(nn.Module):
    """The sum of the vectors of a token's letter n-grams.

    Args:
        grams: the bucket of each n-gram of each token, `buckets` behind the last (tokenizers/letters.py).
        width: D.
        buckets: vectors that all n-grams share.
    """

    grams: Tensor

    def __init__(self, grams: Int[Tensor, "V K"], *, width: int, buckets: int) -> None:
        super().__init__()
        self.register_buffer("grams", grams, persistent=False)
        self.table = nn.Embedding(buckets + 1, width)  # the last stands for no n-gram, and is not read

    def forward(self, ids: Int[Tensor, "*N"]) -> Float[Tensor, "*N D"]:
        """The sums; a token that stands at several places is added up once."""
        different, where = ids.unique(return_inverse=True)
        nothing = self.table.num_embeddings - 1
        sums = functional.embedding_bag(self.grams[different], self.table.weight, mode="sum", padding_idx=nothing)
        return sums[where]


class Rarity(nn.Module):
    """Equation (1); every token counts the same until `hear` was told how often they stand in the training text.

    Args:
        vocab_size: V.
        smoothing: a, above 0: a token of that share counts half as much as one that is hardly ever met.
        mask_id: the mask.
    """

    def __init__(self, vocab_size: int, *, smoothing: float, mask_id: int) -> None:
        super().__init__()
        self.smoothing, self.mask_id = smoothing, mask_id
        self.shares = nn.Parameter(torch.full((vocab_size,), 1.0 / vocab_size), requires_grad=False)
        self.gain = nn.Parameter(torch.zeros(vocab_size))

    @torch.no_grad()
    def hear(self, counts: Int[Tensor, "V"]) -> None:
        """Takes p from how often each token stands in the training text; a text of none changes nothing."""
        if counts.sum() > 0:
            self.shares.copy_((counts.double() / counts.sum()).to(self.shares))

    def forward(self, ids: Int[Tensor, "*N"]) -> Float[Tensor, "*N 1"]:
        """The weight of each token."""
        smooth = self.smoothing / (self.smoothing + self.shares)
        usual = (self.shares * smooth.square()).sum().sqrt()
        share = torch.where(ids == self.mask_id, 1.0, smooth[ids] / usual)
        return (LOUD * share * (EAGER * self.gain[ids]).exp()).unsqueeze(-1)

    @torch.no_grad()
    def begin(self) -> None:
        """All tokens alike."""
        self.shares.fill_(1.0 / len(self.shares))
        self.gain.zero_()


class UnitTogether(nn.Module):
    """The real vectors of a text over their common root mean square: one that heard of rare tokens stays the larger."""

    def forward(self, x: Float[Tensor, "B C D"], *, real: Bool[Tensor, "B C"]) -> Float[Tensor, "B C D"]:
        """The normalised vectors; zeros where they are not real."""
        x = x * real[..., None]
        share = real.to(torch.float32).mean(1)[:, None, None].clamp(min=TINY)  # of the slots that hold something
        return (unit_rms(x.flatten(1)).view_as(x) * share.sqrt()).to(x.dtype)
