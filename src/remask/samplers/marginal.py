r"""The exact likelihood under a uniformly random order of one token a round, by a sum over subsets.

A text of n free tokens has n! orders, and the mean of its probability over them obeys

    f(S) = |S|⁻¹ Σ_{i ∈ S} f(S ∖ i) · p(x_i | x_{S ∖ i}),        f(∅) = 1,                                    (1)

with S the tokens that are revealed: the last to come is each of S with equal chance. 2^n − 1 network calls.

Shape letters: B rows, L length, V vocabulary, n free places of a row.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.samplers.base import Denoiser
from remask.samplers.quantile import exact, exact_device

LARGEST = 12
"""Free places of a row at most: 4095 network calls."""


@torch.no_grad()
def subset_nats(model: Denoiser, ids: Int[Tensor, "B L"], free: Bool[Tensor, "B L"]) -> Float[Tensor, "B"]:
    """−log of the mean over all n! orders of each row's probability, by (1); nats, float64.

    Args:
        model: network and a masking process.
        ids: texts.
        free: places that are drawn; the others are given.

    Raises:
        ValueError: when a row has more than `LARGEST` free places.
    """
    counts = free.sum(-1)
    most = int(counts.max()) if len(counts) else 0
    if most > LARGEST:
        raise ValueError(f"a row has {most} free places; the sum over subsets is for {LARGEST} at most")
    device = exact_device(ids.device)
    rank = torch.where(free, free.long().cumsum(-1) - 1, -1)  # of each place among its row's free ones
    log_f = torch.full((len(ids), 1 << most), -torch.inf, dtype=torch.float64, device=device)
    log_f[:, 0] = 0.0
    for subset in range((1 << most) - 1):
        hidden = free & ((subset >> rank.clamp_min(0)) & 1 == 0)
        log_p = _log_p(model, ids, hidden, counts).to(device)
        reached = log_f[:, subset] - math.log(subset.bit_count() + 1)
        for place in range(most):
            if subset >> place & 1 == 0:
                here = ((rank == place) & hidden).to(device)
                step = torch.where(here.any(-1), torch.where(here, log_p, 0.0).sum(-1), -torch.inf)
                onto = subset | 1 << place
                log_f[:, onto] = torch.logaddexp(log_f[:, onto], reached + step)
    whole = (1 << counts) - 1
    return -log_f.gather(-1, whole.to(device)[:, None]).squeeze(-1)


def _log_p(
    model: Denoiser, ids: Int[Tensor, "B L"], hidden: Bool[Tensor, "B L"], counts: Int[Tensor, "B"]
) -> Float[Tensor, "B L"]:
    """Log p of each hidden token given those that are not, float64; 0 elsewhere. Rows with none hidden are idle."""
    process = model.process
    values = torch.zeros(ids.shape, dtype=torch.float64, device=exact_device(ids.device))
    times = process.time_hiding(hidden.sum(-1), counts)
    logits = model.logits(process.forget(ids, hidden), times, positions=hidden)
    log_p = process.log_clean(exact(logits))
    return values.masked_scatter(
        hidden.to(values.device), log_p.gather(-1, ids[hidden].to(log_p.device)[:, None]).squeeze(-1)
    )
