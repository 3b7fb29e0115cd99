"""Part of a text drawn anew while the noise of the rest is held, beside two references.

Shape letters: N rows, L length.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.bijections.coding import Coder, draw_noise
from remask.bijections.rows import TokenRows
from remask.evaluation.likelihood import ratio

NOISE_HELD, TEXT_HELD, FRESH = "noise held", "text held", "all fresh"


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampled:
    """What one way of drawing anew made of some rows.

    Attributes:
        ids: the tokens [N L].
        nats: −log P of each free token of the new texts under the sampler [N L].
        noise: what they were decoded from; where text is held the noise there does nothing [N L].
    """

    ids: Int[Tensor, "N L"]
    nats: Float[Tensor, "N L"]
    noise: Float[Tensor, "N L"]


def resample(coder: Coder, rows: TokenRows, fresh: Bool[Tensor, "N L"], *, seed: int) -> dict[str, Resampled]:
    """Draws the tokens of `fresh` anew in three ways, by name.

    - `noise held`: fresh noise at those tokens, the recovered noise u elsewhere. Tokens elsewhere are free to follow:
      each takes the value that its noise gives under what is now revealed before it.
    - `text held`: the same fresh noise, the tokens elsewhere given (filling in).
    - `all fresh`: fresh noise everywhere, which knows nothing of the text.

    The noise of a row is recovered with its own uniform draw within each token's interval, so every row is one draw of
    what its text leaves open. All ways decode the batches that were encoded, with the same draws where they share them.

    Args:
        coder: the bijection.
        rows: the texts.
        fresh: the tokens to draw anew, all of them free.
        seed: keys all draws.
    """
    held = coder.encode(rows, within=draw_noise(rows, seed, "within")).noise
    drawn = draw_noise(rows, seed, "fresh")
    given = TokenRows(ids=rows.ids, valid=rows.valid, free=fresh, byte_lengths=rows.byte_lengths)
    noises = {NOISE_HELD: (rows, torch.where(fresh, drawn, held)), TEXT_HELD: (given, drawn), FRESH: (rows, drawn)}
    found = {}
    for name, (texts, noise) in noises.items():
        decoded = coder.decode(texts, noise)
        nats = decoded.nats if texts is rows else coder.nats(rows.with_ids(decoded.ids))
        found[name] = Resampled(ids=decoded.ids, nats=nats, noise=noise)
    return found


def kept(rows: TokenRows, ids: Int[Tensor, "N L"], where: Bool[Tensor, "N L"]) -> Int[Tensor, "N"]:
    """How many tokens of each row at some places are still those of the row."""
    return ((rows.ids == ids) & where).sum(-1)


def grouped_share(part: Int[Tensor, "N"], whole: Int[Tensor, "N"], *, size: int) -> tuple[float | None, float | None]:
    """Σ part / Σ whole with its standard error over groups of neighbouring rows; None where there is nothing.

    Args:
        part: of each row.
        whole: of each row.
        size: rows of a group, which are not independent of each other.
    """
    counts, totals = (values.view(-1, size).sum(-1).double().numpy() for values in (part, whole))
    return ratio(counts, totals) if totals.sum() else (None, None)
