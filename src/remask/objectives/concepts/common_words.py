r"""What two views of a text have in common without any concept: their tokens, the rarer the weightier.

With v(i) the set of tokens of a view of row i, and n_w the rows of N in which token w stands,

    b_i,w = [w ∈ v(i)] · log(1 + N / n_w)                                                                       (1)

is a bag of words (Spärck Jones, J. Documentation 28, 1972). Its cosines tell texts apart as concepts' do, so whatever
concepts are worth for matching begins below the nats that these get.

Shape letters: B rows, R = 2B their views, L places of a row, V tokens that occur in a batch.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.data.batch import Batch
from remask.randomness import keyed_generator

Views = Callable[[Batch, torch.Generator], tuple[Bool[Tensor, "B L"], Bool[Tensor, "B L"]]]
"""The tokens of a row's two views."""
Matching = Callable[[Float[Tensor, "R V"], float], Float[Tensor, "B"]]
"""(vectors of first views before those of second ones, temperature) → nats of each row."""

TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of which the bags have the one that suits them best on the judged rows."""


def words_in_common(batches: Sequence[Batch], *, views: Views, matching: Matching) -> float:
    """The nats of matching by (1), a mean over all rows; every row is matched within its batch.

    Args:
        batches: the judged rows; n_w is counted over all of them.
        views: draws the two views, here by a key of the batch's place.
        matching: what concepts are judged by.
    """
    rows, most = sum(map(len, batches)), max(int(batch.ids.max()) for batch in batches) + 1
    holding = torch.zeros(most, device=batches[0].ids.device)
    for place, batch in enumerate(batches):
        tokens, bag = _bag(batch, views=views, place=place)
        holding[tokens] += torch.maximum(*bag.chunk(2)).sum(0)
    weights = torch.log1p(rows / holding.clamp_min(1.0))
    nats = dict.fromkeys(TEMPERATURES, 0.0)
    for place, batch in enumerate(batches):
        tokens, bag = _bag(batch, views=views, place=place)
        for each in TEMPERATURES:
            nats[each] += float(matching(bag * weights[tokens], each).sum())
    return min(nats.values()) / rows


def _bag(batch: Batch, *, views: Views, place: int) -> tuple[Int[Tensor, "V"], Float[Tensor, "R V"]]:
    """The tokens of a batch, and which of them stand in each view, 0 or 1, first views before second ones."""
    left = views(batch, keyed_generator(0, "words in common", place, device=batch.ids.device))
    tokens, columns = batch.ids.unique(return_inverse=True)
    bag = torch.zeros(2 * len(batch), len(tokens), device=batch.ids.device)
    return tokens, bag.scatter_reduce(1, torch.cat([columns] * 2), torch.cat(left).to(bag), reduce="amax")
