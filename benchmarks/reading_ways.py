"""The ways of reading N tokens that `concept_scaling.py` compares: networks of equal width, and the loss of a row.

Shape letters: B rows, N tokens, H heads, E head width, K chunks, W half the window, D width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from remask.config.build.model import build_network
from remask.config.schema import Recipe
from remask.networks.blocks import Attention, Residual, Timeless
from remask.networks.cache import Attach, alone
from remask.networks.normalisation import unit_rms
from remask.networks.rotary import rotate
from remask.networks.stacks import Inner, Stack, straight
from remask.networks.transformer import BIDIRECTIONAL, Transformer
from remask.randomness import keyed_generator
from remask.tokenizers import ByteTokenizer

HIDDEN = 64
"""Tokens at a row's end that are predicted."""
TOKENS_A_CONCEPT = 64
"""Where the number of concepts grows with the row."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What every point of one benchmark has in common.

    Attributes:
        width: D.
        layers: of each transformer and of each encoder.
        decoder_layers: of the concept networks' decoders.
        heads: H.
        concepts: C, where it is fixed.
        window: tokens that a token sees around itself, 2·W.
        threads: of the processor.
        device: `cpu` or `cuda`.
    """

    width: int
    layers: int
    decoder_layers: int
    heads: int
    concepts: int
    window: int
    threads: int
    device: str


def concepts_of(sizes: Sizes, length: int, *, encoder: str, count: Callable[[Sizes, int], int]) -> nn.Module:
    """A concept network with the denoising decoder."""
    network = {
        "kind": "concept",
        "encoder": encoder,
        "concepts": count(sizes, length),
        "width": sizes.width,
        "heads": sizes.heads,
        "layers": sizes.layers,
        "decoder": "denoising",
        "decoder_layers": sizes.decoder_layers,
    }
    recipe = {
        "name": "concept-scaling",
        "network": network,
        "objective": {"kind": "concept_bound"},
        "data": {"source": "python-docs", "length": length, "prefix": length - HIDDEN},
    }
    return build_network(Recipe.model_validate(recipe), ByteTokenizer(), device=torch.device("cpu"))


def fixed(sizes: Sizes, length: int) -> int:
    """The same number of concepts for every row."""
    del length
    return sizes.concepts


def growing(sizes: Sizes, length: int) -> int:
    """A concept for every so many tokens."""
    del sizes
    return length // TOKENS_A_CONCEPT


def transformer(sizes: Sizes, *, stack: Callable[[int, Sequence[Inner]], Stack]) -> Transformer:
    """A transformer that is told nothing of who sees whom."""
    tokenizer = ByteTokenizer()
    network = Transformer(
        vocab_size=tokenizer.vocab_size,
        mask_id=tokenizer.mask_id,
        width=sizes.width,
        layers=sizes.layers,
        heads=sizes.heads,
        mlp_width=max(32, 32 * round(sizes.width / 12)),
        direction=replace(BIDIRECTIONAL, mask=one_document),
        time=Timeless(),
        stack=stack,
    )
    network.initialise(keyed_generator(1, "weights"))
    return network


def one_document(segments: Tensor, *, since: int = 0) -> Any:
    """No mask: a mask of N² places is what makes fused attention slow and large."""
    del segments, since


def full(sizes: Sizes, length: int) -> nn.Module:
    """Every token attends to every other."""
    del length
    return transformer(sizes, stack=partial(straight, residual=partial(Residual, dropout=0.0)))


def sliding(sizes: Sizes, length: int) -> nn.Module:
    """Every token attends to those around it."""
    del length
    return transformer(sizes, stack=partial(windowed, heads=sizes.heads, reach=sizes.window // 2))


def windowed(width: int, inner: Sequence[Inner], *, heads: int, reach: int) -> Stack:
    """Standard blocks whose attention is a window's."""
    near = [(WindowAttention(width, heads, reach=reach), mlp) for _, mlp in inner]
    return straight(width, near, residual=partial(Residual, dropout=0.0))


class WindowAttention(Attention):
    """Attention of place i to places j with |i − j| ≤ W, in chunks of W queries that see three chunks of keys.

    Args:
        width: D.
        heads: H.
        reach: W; rows must be a multiple of it.
    """

    def __init__(self, width: int, heads: int, *, reach: int) -> None:
        super().__init__(width, heads)
        self.reach = reach

    def forward(self, x: Tensor, *, rotation: Tensor, mask: Any, attach: Attach = alone) -> Tensor:
        """The rows [B N D] after attention; `mask` is unread."""
        del mask, attach
        batch, length, width = x.shape
        qk, v = self.qkv(x).view(batch, length, 3 * self.heads, -1).split((2 * self.heads, self.heads), 2)
        q, k = rotate(unit_rms(qk), rotation).to(v.dtype).chunk(2, 2)
        queries = q.unflatten(1, (-1, self.reach)).flatten(0, 1).transpose(1, 2)  # [B·K H W E]
        keys, values = (self._around(places) for places in (k, v))
        seen = self._seen(length, device=x.device).repeat(batch, 1, 1, 1)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))

    def _around(self, places: Tensor) -> Tensor:
        """[B N H E] → what each chunk may see: itself and its neighbours [B·K H 3W E]."""
        padded = functional.pad(places, (0, 0, 0, 0, self.reach, self.reach))
        return padded.unfold(1, 3 * self.reach, self.reach).flatten(0, 1).transpose(-1, -2)

    def _seen(self, length: int, *, device: torch.device) -> Tensor:
        """Which keys of its three chunks a query sees: those at most W away that lie in the row [K 1 W 3W]."""
        place = torch.arange(length, device=device).view(-1, self.reach, 1)
        key = place[:, :1] - self.reach + torch.arange(3 * self.reach, device=device)
        return (((key - place).abs() <= self.reach) & (key >= 0) & (key < length))[:, None]


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a row is read.

    Attributes:
        build: (sizes, N) → the network.
        loss: (network, row) → its loss.
        dashes: of its line in the figure.
    """

    build: Callable[[Sizes, int], nn.Module]
    loss: Callable[[nn.Module, Tensor], Tensor]
    dashes: str = "-"


def loss_through_concepts(network: nn.Module, row: Tensor) -> Tensor:
    """The loss of the hidden tokens, of which the network sees none and the others through its concepts."""
    source, hidden = row[:, :-HIDDEN], row[:, -HIDDEN:]
    every = torch.ones_like(hidden, dtype=torch.bool)
    z, t = torch.full_like(hidden, ByteTokenizer().mask_id), torch.ones(len(row), device=row.device)
    shown = {"source": source, "source_real": torch.ones_like(source, dtype=torch.bool)}
    logits = network(z, t, segments=every.long(), positions=every, **shown)
    return functional.cross_entropy(logits, hidden.flatten())


def loss_of_row(network: nn.Module, row: Tensor) -> Tensor:
    """The loss of the hidden tokens in their row."""
    here = torch.zeros_like(row, dtype=torch.bool)
    here[:, -HIDDEN:] = True
    z, t = row.masked_fill(here, ByteTokenizer().mask_id), torch.ones(len(row), device=row.device)
    logits = network(z, t, segments=torch.ones_like(row), positions=here)
    return functional.cross_entropy(logits, row[here])


FIXED, GROWING, FULL = "concepts, C fixed", "concepts, C = N / 64", "full attention"
WAYS: Mapping[str, Way] = {
    FIXED: Way(build=partial(concepts_of, encoder="perceiver", count=fixed), loss=loss_through_concepts),
    "two-way, C fixed": Way(build=partial(concepts_of, encoder="two_way", count=fixed), loss=loss_through_concepts),
    GROWING: Way(
        build=partial(concepts_of, encoder="perceiver", count=growing), loss=loss_through_concepts, dashes="--"
    ),
    "sliding window": Way(build=sliding, loss=loss_of_row, dashes=":"),
    FULL: Way(build=full, loss=loss_of_row, dashes="-."),
}


def row_of(length: int, device: torch.device) -> Tensor:
    """A row of random bytes [1 N]."""
    return torch.randint(256, (1, length), generator=keyed_generator(2, "row")).to(device)
