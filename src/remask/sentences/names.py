r"""How much more of each word one of two sentences holds, and how much both hold, by name.

Concepts have no names; each is called by the token whose own concept is nearest to it, read alone when the head is made
(before it is fine-tuned, after what was taught) and kept so:

    n(u_i) = argmax_k cos(u_i, e_k),   x_k(u) = Σ_{i: n(u_i) = k} |u_i| / √(Σ_j |u_j|²),                       (1)

e_k being the concept of a text that is token k alone. Where concepts have bands of features, the first one is read. The
outputs are then linear in what names say,

    Σ_k a_k |x_k(u) − x_k(v)| + b_k x_k(u) x_k(v),                                                            (2)

much as in logistic regression on TF-IDF weights (the wide part of "Wide & deep learning", arXiv:1606.07792): some
words make two questions different ones and some never do, which cosines cannot tell. Nothing is read but the concepts.

Shape letters: B pairs, C concepts of a sentence, N concepts, V tokens, D width, K outputs.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from remask.sentences.encoders import Encoded, Read

AT_ONCE = 256
"""Tokens that are read at once for their own concepts."""
EAGER = 10.0
"""How many times faster names learn what they count than other weights of a head: each is met seldom. Their share of
the gradient that is clipped is as much larger."""
NAMED_AT_ONCE = 1 << 24
"""Similarities of concepts and tokens that are held at once."""
BOTH = 3.0
"""What the products of (2) are multiplied by: they are about so much smaller than the differences."""


class Naming(nn.Module):
    """Equation (1): nothing in it is learned.

    Args:
        own: e, of length 1 each; frozen.
    """

    own: Tensor

    def __init__(self, own: Float[Tensor, "V D"]) -> None:
        super().__init__()
        self.register_buffer("own", own, persistent=False)

    @torch.no_grad()
    def amounts(self, sentences: Encoded) -> Float[Tensor, "B V"]:
        """The amounts x of (1); zeros for a sentence without a concept."""
        size = sentences.vectors.norm(dim=-1) * sentences.real
        share = size / size.norm(dim=1, keepdim=True).clamp(min=1e-9)
        found = share.new_zeros(len(share), len(self.own))
        named = torch.zeros_like(sentences.real, dtype=torch.long)
        named[sentences.real] = self.named(sentences.vectors[sentences.real])
        return found.scatter_add(1, named, share)

    @torch.no_grad()
    def named(self, vectors: Float[Tensor, "N D"]) -> Int[Tensor, "N"]:
        """The names n of (1) of some concepts."""
        parts = vectors.split(max(1, NAMED_AT_ONCE // len(self.own)))
        return torch.cat([(part @ self.own.mT).argmax(-1) for part in parts])


class Names(Naming):
    """Equation (2), zero at the start.

    Args:
        own: as for `Naming`.
        outputs: K.
    """

    def __init__(self, own: Float[Tensor, "V D"], *, outputs: int) -> None:
        super().__init__(own)
        self.apart = nn.Parameter(torch.zeros(len(own), outputs))
        self.shared = nn.Parameter(torch.zeros(len(own), outputs))

    def forward(self, u: Encoded, v: Encoded) -> Float[Tensor, "B K"]:
        """What the names in two sentences say; no gradient reaches the concepts."""
        x, y = self.amounts(u), self.amounts(v)
        return EAGER * ((x - y).abs() @ self.apart + BOTH * (x * y) @ self.shared)


@torch.no_grad()
def own_concepts(network: nn.Module, read: Read, *, tokens: int, bands: int) -> Float[Tensor, "V D"]:
    """The vectors e of (1): the first band of each token's concepts when it is read alone, of length 1.

    Args:
        network: what is read; it stays as it was.
        read: how.
        tokens: V.
        bands: equal parts of the concepts' features.
    """
    training, device = network.training, next(network.parameters()).device
    network.eval()
    ids = torch.arange(tokens, device=device)[:, None]
    parts = [read(network, part, torch.ones_like(part, dtype=torch.bool)).pooled for part in ids.split(AT_ONCE)]
    network.train(training)
    return functional.normalize(torch.cat(parts).chunk(bands, -1)[0], dim=-1)
