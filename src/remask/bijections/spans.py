"""Which tokens of a text are drawn anew: those of some of its words, or a random share.

Shape letters: N rows, L length.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from remask.errors import UserError
from remask.randomness import keyed_generator


def tokens_of_span(text: str, span: str, *, byte_lengths: Sequence[int]) -> list[bool]:
    """The tokens that hold a byte of some words of a text.

    Args:
        text: the text.
        span: the words; they stand in the text exactly once.
        byte_lengths: UTF-8 bytes of each of the text's tokens.

    Raises:
        UserError: when the words are empty, are not in the text, or are there more than once.
    """
    if not span:
        raise UserError("--span is empty: give words of the text, or --share for a random share of its tokens")
    places = [at for at in range(len(text)) if text.startswith(span, at)]
    if not places:
        raise UserError(f"--span {span!r} is not in the text: give words as they stand there, with their signs")
    if len(places) > 1:
        raise UserError(
            f"--span {span!r} stands in the text {len(places)} times: give some words around it, so that it is found "
            "once"
        )
    first = len(text[: places[0]].encode())
    last = first + len(span.encode())
    chosen, start = [], 0
    for size in byte_lengths:
        chosen.append(start < last and start + size > first)
        start += size
    return chosen


def random_share(free: Bool[Tensor, "N L"], share: float, *, seed: int) -> Bool[Tensor, "N L"]:
    """A random share of each row's free tokens, rounded, at least one; each row its own.

    Args:
        free: the tokens to choose among.
        share: above 0 and at most 1.
        seed: keys the choice.
    """
    keys = torch.rand(free.shape, generator=keyed_generator(seed, "share"), dtype=torch.float64)
    rank = torch.where(free, keys, torch.inf).argsort(-1).argsort(-1)
    wanted = (free.sum(-1) * share).round().long().clamp_min(1)
    return free & (rank < wanted[:, None])
