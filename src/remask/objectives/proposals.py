"""Where the wrong words of proofreading come from.

Shape letters: B batch, L length, M positions that get a word.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.data.batch import Batch
from remask.objectives.base import Network
from remask.processes import Masking
from remask.randomness import widest_float

Propose = Callable[..., Tensor]
"""(process, network, batch, z [B L], t [B], positions [B L], noise [B L]) → words for the true places of `positions`
[M], as a function of the uniform draws `noise` there; `z` holds the mask at all of them."""


def uniform_proposals(
    process: Masking,
    network: Network,
    batch: Batch,
    *,
    z: Int[Tensor, "B L"],
    t: Float[Tensor, "B"],
    positions: Bool[Tensor, "B L"],
    noise: Float[Tensor, "B L"],
) -> Int[Tensor, "M"]:
    """Any word, each with the same chance. What is then learned is to tell words from noise.

    A word y is as likely true as false where p(y | the rest) = s / ((1 − s) n) for a share s of n words: far below
    what a denoiser's own slips have, so a threshold of 1/2 finds gross errors only.
    """
    del network, batch, t, z
    words = (noise[positions] * process.data_size).long()
    return words + (words >= process.mask_id)


@torch.no_grad()
def own_proposals(
    process: Masking,
    network: Network,
    batch: Batch,
    *,
    z: Int[Tensor, "B L"],
    t: Float[Tensor, "B"],
    positions: Bool[Tensor, "B L"],
    noise: Float[Tensor, "B L"],
) -> Int[Tensor, "M"]:
    """What the network itself draws there, all at once, as a sampler's step does: one more forward pass.

    The answers [MASK] and "leave it" are then about slips of the kind that a sampler makes (as in PRISM,
    arXiv:2510.01384, whose visible tokens are all the network's own; here a share s is). Without a penalty P at the
    minimum is the probability in this mixture that the word y is wrong: with q(y) what proposed it and p(y) its
    probability given all that is visible, s q (1 − p) / ((1 − s) p + s q). That is s (1 − p) where nothing speaks
    against the word, and near 1 only where p falls far below q; a penalty lowers it further (`remask_nats`). So the
    threshold of a sampler belongs near s, not at 1/2.
    """
    logits = network(z, t, segments=batch.segments, positions=positions)
    weights = process.log_clean(logits).exp().to(widest_float(logits.device))
    cumulative = weights.cumsum(-1)
    reach = (1.0 - noise[positions]).to(cumulative.dtype)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, reach).squeeze(-1)
