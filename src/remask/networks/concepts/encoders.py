"""Encoders: the tokens of a text to its concept vectors.

Each takes embedded tokens [B N D] and which of them are real, and gives one vector a slot and which slots are real: all
of a text that has a token, none of one that has not; of `TokenStates` as many as there are tokens. Tokens that are not
real change nothing. Encoders whose slots are stretches of a text are in stretches.py.

Shape letters: B rows, N source tokens, C concepts, D width.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from remask.networks.blocks import Attention, GatedMLP, Residual
from remask.networks.concepts.layers import LocalConvolution, Mixing, Reading, TwoWay, never_empty
from remask.networks.concepts.places import reading_turns, texts
from remask.networks.normalisation import unit_rms
from remask.networks.rotary import rotary
from remask.networks.segments import segment_mask
from remask.networks.stacks import Stack

Encoded = tuple[Float[Tensor, "B C D"], Bool[Tensor, "B C"]]
"""Vectors, and which of them are real."""


class NoConcept(nn.Module):
    """Says nothing of the text: the comparator that shows what a decoder does alone."""

    concepts: int | None = 0

    def forward(self, tokens: Float[Tensor, "B N D"], *, real: Bool[Tensor, "B N"]) -> Encoded:
        """No slot at all."""
        return tokens[:, :0], real[:, :0]


class MeanConcept(nn.Module):
    """One concept: the mean of a text's embedded tokens."""

    concepts: int | None = 1

    def forward(self, tokens: Float[Tensor, "B N D"], *, real: Bool[Tensor, "B N"]) -> Encoded:
        """The mean over real tokens."""
        there = real[..., None].to(tokens.dtype)
        total = (tokens * there).sum(1, keepdim=True)
        return total / there.sum(1, keepdim=True).clamp(min=1), real.any(-1, keepdim=True)


class TokenStates(nn.Module):
    """Every token its own concept, after a bidirectional transformer: full attention, without a bottleneck.

    Args:
        blocks: its layers.
        head_width: features a head.
    """

    concepts: int | None = None

    def __init__(self, blocks: Stack, *, head_width: int) -> None:
        super().__init__()
        self.blocks, self.head_width = blocks, head_width

    def forward(self, tokens: Float[Tensor, "B N D"], *, real: Bool[Tensor, "B N"]) -> Encoded:
        """The states of all tokens; slot n is token n."""
        rotation = rotary(tokens.shape[1], self.head_width, device=tokens.device)
        mask = segment_mask(real.long())
        return self.blocks(tokens, timeless(tokens), rotation=rotation, mask=mask, real=real), real


def timeless(x: Float[Tensor, "B N D"]) -> Float[Tensor, "B 0"]:
    """The condition of layers that are told no time."""
    return x.new_zeros(len(x), 0)


class PerceiverLayer(nn.Module):
    """Concepts read the tokens, then attend among themselves, then an MLP (Perceiver, arXiv:2103.03206).

    Args:
        width: D.
        heads: attention heads.
        mlp_width: hidden features of the gated MLP.
        mixing: how concepts share the tokens that they read.
        norm: of the tokens that it reads; `nn.Identity` where they come normalised.
        dropout: share of each branch's output that is dropped in training.
    """

    def __init__(
        self, width: int, heads: int, *, mlp_width: int, mixing: Mixing, norm: nn.Module, dropout: float
    ) -> None:
        super().__init__()
        self.norm = norm
        self.read = Residual(width, Reading(width, heads, mixing=mixing), dropout=dropout)
        self.attend = Residual(width, Attention(width, heads), dropout=dropout)
        self.mlp = Residual(width, GatedMLP(width, mlp_width), dropout=dropout)

    def forward(
        self,
        concepts: Float[Tensor, "B C D"],
        tokens: Float[Tensor, "B N D"],
        *,
        mask: Bool[Tensor, "B 1 1 N"],
        turn: Float[Tensor, "B C F 2"],
        token_turn: Float[Tensor, "B N F 2"],
    ) -> tuple[Float[Tensor, "B C D"], Float[Tensor, "B N D"]]:
        """Concepts that know more, and the tokens as they were."""
        condition, memory = timeless(concepts), self.norm(tokens)
        x = self.read(concepts, condition, memory=memory, mask=mask, turn=turn, memory_turn=token_turn)
        x = among_themselves(self.attend, x, pairs=turn.shape[2])
        return self.mlp(x, condition), tokens


class TwoWayLayer(nn.Module):
    """Concepts and tokens learn of each other, then concepts attend among themselves (BiXT, arXiv:2402.12138).

    Args:
        width: D.
        heads: attention heads.
        mlp_width: hidden features of the gated MLPs, of concepts and of tokens.
        weights: how concepts share the tokens that they read (networks/concepts/competition.py).
        dropout: share of each branch's output that is dropped in training.
    """

    def __init__(
        self, width: int, heads: int, *, mlp_width: int, weights: Callable[[Tensor, Tensor], Tensor], dropout: float
    ) -> None:
        super().__init__()
        self.both = TwoWay(width, heads, weights=weights)
        self.dropout = nn.Dropout(dropout)
        self.attend = Residual(width, Attention(width, heads), dropout=dropout)
        self.mlp = Residual(width, GatedMLP(width, mlp_width), dropout=dropout)
        self.token_mlp = Residual(width, GatedMLP(width, mlp_width), dropout=dropout)

    def forward(
        self,
        concepts: Float[Tensor, "B C D"],
        tokens: Float[Tensor, "B N D"],
        *,
        mask: Bool[Tensor, "B 1 1 N"],
        turn: Float[Tensor, "B C F 2"],
        token_turn: Float[Tensor, "B N F 2"],
    ) -> tuple[Float[Tensor, "B C D"], Float[Tensor, "B N D"]]:
        """Concepts and tokens that know more."""
        condition = timeless(concepts)
        learned, told = self.both(
            unit_rms(concepts).to(concepts.dtype),
            unit_rms(tokens).to(tokens.dtype),
            mask=mask,
            turn=turn,
            token_turn=token_turn,
        )
        x, tokens = concepts + self.dropout(learned), tokens + self.dropout(told)
        x = among_themselves(self.attend, x, pairs=turn.shape[2])
        return self.mlp(x, condition), self.token_mlp(tokens, condition)


def among_themselves(attend: nn.Module, x: Float[Tensor, "B C D"], *, pairs: int) -> Float[Tensor, "B C D"]:
    """A residual attention of all concepts of a text to each other, at the places of their slots."""
    count = x.shape[1]
    everyone = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=x.device).expand(len(x), 1, count, count)
    return attend(x, timeless(x), rotation=rotary(count, 2 * pairs, device=x.device), mask=everyone)


class SlotEncoder(nn.Module):
    """C learned latents that read a text, layer by layer.

    Args:
        width: D.
        concepts: C.
        layers: (concepts, tokens) → (concepts, tokens), each with `mask`, `turn` and `token_turn`.
        norm: of tokens before the first layer: once for all layers, where none changes them; else `nn.Identity`.
        pairs: rotary pairs of a head.
        local: what tokens learn of their neighbours before they are read; None: nothing.
    """

    def __init__(
        self,
        width: int,
        concepts: int,
        layers: Sequence[nn.Module],
        *,
        norm: nn.Module,
        pairs: int,
        local: nn.Module | None,
    ) -> None:
        super().__init__()
        self.concepts: int | None = concepts
        self.norm, self.pairs = norm, pairs
        self.latents = nn.Parameter(torch.zeros(concepts, width))
        self.local = local
        self.layers = nn.ModuleList(layers)

    def forward(self, tokens: Float[Tensor, "B N D"], *, real: Bool[Tensor, "B N"]) -> Encoded:
        """The C concepts of each text."""
        segments = real.long()
        turn, token_turn = reading_turns(
            texts(segments, count=1), segments, latents=len(self.latents), pairs=self.pairs
        )
        if self.local is not None:
            tokens = self.local(tokens, timeless(tokens), segments=segments)
        concepts, tokens = self.latents.expand(len(tokens), -1, -1), self.norm(tokens)
        mask = never_empty(real[:, None, None])
        for layer in self.passes():
            concepts, tokens = layer(concepts, tokens, mask=mask, turn=turn, token_turn=token_turn)
        return concepts, real.any(-1, keepdim=True).expand(-1, len(self.latents))

    def passes(self) -> Iterable[nn.Module]:
        """The layers in the order in which they are computed."""
        return self.layers

    def begin_step(self, step: int) -> None:
        """Hears which optimiser step begins, counted from 1."""
        del step

    @torch.no_grad()
    def begin(self, generator: torch.Generator) -> None:
        """Latents that each look at their own stretch of the text, and take in what stands there as it is.

        They begin small, so that what is read outweighs them; each further layer adds as much again.
        """
        nn.init.normal_(self.latents, std=0.1, generator=generator)
        for layer in self.layers:
            for reading in (module for module in layer.modules() if isinstance(module, Reading | TwoWay)):
                reading.look_there()
                reading.hand_on(1.0)


class RecursiveEncoder(SlotEncoder):
    """One layer, applied again and again with the same weights (as the Universal Transformer, arXiv:1807.03819).

    Args:
        width: D.
        concepts: C.
        layer: the one.
        depth: how many times it is applied; `encoder.depth` may be set to another number for evaluation.
        min_depth: training applies it between so many and `depth` times, a number drawn for each step.
        norm: of tokens, before they are read.
        pairs: rotary pairs of a head.
        local: what tokens learn of their neighbours before they are read; None: nothing.
    """

    def __init__(
        self,
        width: int,
        concepts: int,
        layer: nn.Module,
        *,
        depth: int,
        min_depth: int,
        norm: nn.Module,
        pairs: int,
        local: nn.Module | None,
    ) -> None:
        super().__init__(width, concepts, [layer], norm=norm, pairs=pairs, local=local)
        self.depth, self.min_depth, self.drawn = depth, min_depth, depth

    def passes(self) -> Iterator[nn.Module]:
        """The layer, as often as this step or `depth` says."""
        return repeat(self.layers[0], self.drawn if self.training else self.depth)

    @contextmanager
    def at_depth(self, depth: int) -> Iterator[None]:
        """Applies the layer so often in evaluation."""
        whole, self.depth = self.depth, depth
        try:
            yield
        finally:
            self.depth = whole

    def begin_step(self, step: int) -> None:
        """Draws the step's depth, evenly from `min_depth` to `depth`: a function of the step alone."""
        generator = torch.Generator().manual_seed(step)
        self.drawn = int(torch.randint(self.min_depth, self.depth + 1, (), generator=generator, device="cpu"))


def local_reading(width: int, span: int, *, dropout: float) -> nn.Module | None:
    """A residual `LocalConvolution` over `span` tokens; None for 1."""
    return Residual(width, LocalConvolution(width, span), dropout=dropout) if span > 1 else None
