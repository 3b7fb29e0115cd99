"""Heads by their names: which there are, what each is given of a network, and which rows of tokens each reads.

Shape letters: B rows, N tokens, K outputs.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from remask.sentences.encoders import Encoded, Read, Wording
from remask.sentences.heads import (
    DECODED_PLACES,
    DecoderHead,
    MatchHead,
    PairHead,
    PooledHead,
    QueryHead,
    Tokens,
    decoded,
)
from remask.sentences.names import Names, own_concepts
from remask.sentences.overlap import in_bands
from remask.sentences.overlap_heads import NamedHead, OverlapHead
from remask.sentences.splits import Labelled
from remask.sentences.tasks import COMPARING


def without_counted(read: Read, network: nn.Module) -> tuple[Read, int]:
    """How concepts are read but for their band that was counted (co_occurrence.py), and how many bands those have.

    Args:
        read: how whole concepts are read.
        network: what will be read.
    """
    bands, counted = getattr(network, "bands", 1), getattr(network, "counted_band", None)
    if counted is None:
        return read, bands

    def learned(network: nn.Module, ids: Int[Tensor, "B N"], real: Bool[Tensor, "B N"]) -> Encoded:
        concepts = read(network, ids, real)
        parts = in_bands(concepts, bands)
        kept = [part.vectors for part in (*parts[:counted], *parts[counted + 1 :])]
        return Encoded(vectors=torch.cat(kept, -1), real=concepts.real)

    return learned, bands - 1


def make_head(
    name: str, network: nn.Module, read: Read, *, wording: Wording, outputs: int, generator: torch.Generator
) -> nn.Module:
    """A head with fresh weights, on the network's device.

    Args:
        name: one of cls, via_decoder, pooled, pair, match, overlap, named.
        network: what it will read; its vectors' width is found by reading one token.
        read: how.
        wording: its end of text fills up rows, its mask stands in the decoder's places.
        outputs: K.
        generator: draws the weights, on the CPU.
    """
    device = next(network.parameters()).device
    fill = wording.tokenizer.eos_id
    masks = torch.full((min(DECODED_PLACES, wording.length),), wording.tokenizer.mask_id, device=device)
    one = torch.full((1, 1), fill, device=device)
    learned, bands = without_counted(read, network)
    with torch.no_grad():
        real = torch.ones_like(one, dtype=torch.bool)
        if name == "via_decoder":
            width = decoded(network, one, real, masks=masks).shape[-1]
        else:
            width = read(network, one, real).vectors.shape[-1]
        learned_width = learned(network, one, real).vectors.shape[-1]
    common = {"read": read, "fill": fill, "outputs": outputs, "generator": generator}
    banded = {**common, "read": learned, "width": learned_width, "bands": bands}

    def names() -> Names:
        own = own_concepts(network, learned, tokens=wording.tokenizer.vocab_size, bands=bands)
        return Names(own, outputs=outputs)

    heads: dict[str, Callable[[], nn.Module]] = {
        "cls": lambda: QueryHead(width=width, **common),
        "pooled": lambda: PooledHead(width=width, **common),
        "pair": lambda: PairHead(width=4 * width, cosines=1, **common),
        "match": lambda: MatchHead(width=width, **common),
        "overlap": lambda: OverlapHead(**banded),
        "named": lambda: NamedHead(names=names(), **banded),
        "via_decoder": lambda: DecoderHead(width=width, masks=masks, **common),
    }
    return heads[name]().to(device)


def tokens_for(name: str, examples: Labelled, wording: Wording) -> list[Tokens]:
    """The rows of tokens that a head reads of each example."""
    if len(examples.texts) == 1:
        return [(row,) for row in wording.alone(examples.texts[0])]
    first, second = examples.texts
    if name in COMPARING:
        return list(zip(wording.alone(first), wording.alone(second), strict=True))
    return [(row,) for row in wording.joined(first, second)]
