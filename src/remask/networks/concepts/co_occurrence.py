r"""Tokens by the company that they keep in the training text: counted and factored before training begins.

With n_vw how often v and w stand near each other, n_v = Σ_w n_vw and p_w = n_w^¾ / Σ_u n_u^¾,

    M_vw = max(0, log(n_vw / (n_v p_w)) − SHIFT) ≈ U Σ Vᵀ,   c_v = U_v √Σ / |U_v √Σ|,                        (1)

positive pointwise mutual information, its contexts smoothed, factored at rank W (Levy, Goldberg and Dagan, "Improving
distributional similarity with lessons learned from word embeddings", TACL 2015, sections 2 and 3): what skip-gram with
negative samples factors too (Levy and Goldberg, NIPS 2014, equation 11), found at once. Words that keep the same
company are near each other ("guitar" and "drums"), whatever their letters.

Shape letters: V vocabulary, N tokens, W width.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from remask.networks.normalisation import unit_rms

SHIFT = 1.0
"""Nats of mutual information that are no company yet: pairs met by chance."""
SMOOTH = 0.75
MORE, PASSES = 32, 3
"""Directions that are followed beyond W while it is factored, and how often."""
TINY = 1e-6
"""Root mean square below which a vector is rounding, and has no direction."""


class CoOccurrence(nn.Module):
    """The vectors c of (1), of root mean square 1; as they were drawn until `hear` was told of a text.

    They are counted, not trained: no gradient reaches them.

    Args:
        vocab_size: V.
        width: W.
    """

    def __init__(self, vocab_size: int, *, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(vocab_size, width), requires_grad=False)

    def forward(self, ids: Int[Tensor, "*N"]) -> Float[Tensor, "*N W"]:
        """The vectors of tokens; zeros for those that keep no company."""
        return self.table[ids]

    @torch.no_grad()
    def hear(self, counts: Any) -> None:
        """Takes c from n, a symmetric sparse matrix [V V]; where no two tokens keep company nothing changes."""
        told = information(counts)
        if told.nnz:
            self.table.copy_(torch.from_numpy(factored(told, width=self.table.shape[1])))

    @torch.no_grad()
    def begin(self, generator: torch.Generator) -> None:
        """Random vectors: a token is like itself alone."""
        self.table.copy_(unit_rms(torch.randn(self.table.shape, generator=generator, device=self.table.device)))


def information(counts: Any) -> Any:
    """M of (1), sparse [V V].

    Args:
        counts: n, a symmetric sparse matrix [V V].
    """
    import numpy as np
    from scipy import sparse

    n = counts.tocoo()
    often = np.asarray(counts.sum(1)).ravel()
    smooth = often**SMOOTH
    nats = np.log(n.data * smooth.sum() / (often[n.row] * smooth[n.col])) - SHIFT
    told = nats > 0
    return sparse.csr_matrix((nats[told], (n.row[told], n.col[told])), shape=n.shape)


def factored(matrix: Any, *, width: int) -> Any:
    """The vectors c of (1) times √W, float32 [V W]; zeros for tokens that keep no company, and beyond the rank of M.

    Args:
        matrix: M, sparse [V V].
        width: W.
    """
    import numpy as np
    from sklearn.utils.extmath import randomized_svd

    rank = min(width, matrix.shape[0])
    u, values, _ = randomized_svd(matrix, rank, n_oversamples=MORE, n_iter=PASSES, random_state=0)
    vectors = np.zeros((matrix.shape[0], width), dtype=np.float32)
    vectors[:, :rank] = u * np.sqrt(values)
    size = np.sqrt(np.square(vectors).mean(1, keepdims=True))
    return np.divide(vectors, size, out=np.zeros_like(vectors), where=size > TINY)
