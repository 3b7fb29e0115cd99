"""Decoders: noisy tokens and concept vectors to what stands at each place.

Each takes embedded noisy tokens [B L D], the times and the concepts, and gives the states that the vocabulary
projection reads at the wanted places.

Shape letters: B rows, L tokens, C concepts, S scratch latents a text, K texts a row, D width, M wanted places.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from remask.networks.blocks import Final, GatedMLP, ModulatedFinal, ModulatedResidual, Residual, TimeEmbedding
from remask.networks.concepts.encoders import timeless
from remask.networks.concepts.layers import LocalConvolution, Reading, never_empty
from remask.networks.concepts.places import distance_turns, reading_turns, sinusoids, texts
from remask.networks.normalisation import unit_rms

COPIED = 0.5
"""The share of what is read of the concepts that a layer begins by adding to its stream."""


class Memory(nn.Module):
    """What a decoder's tokens look at: two learned vectors that say nothing of the text, then the concepts.

    A decoder without a real concept reads the learned vectors alone; there are two, so that there is a choice and its
    queries learn as those of any other. Concept c stands c + 1 places before the first token; where every source token
    is a concept, each stands where it stood, the last one right before the first token.

    Args:
        width: D.
        natural: whether concepts stand in the order of the text (tokens) or in that of slots, which count from its end.
    """

    def __init__(self, width: int, *, natural: bool) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(2, width))
        self.natural = natural

    def forward(
        self, vectors: Float[Tensor, "B C D"], real: Bool[Tensor, "B C"], *, pairs: int
    ) -> tuple[Float[Tensor, "B C+2 D"], Bool[Tensor, "B C+2"], Float[Tensor, "B C+2 F 2"]]:
        """The vectors, which of them are real, and their rotations."""
        batch, slots = len(vectors), torch.arange(real.shape[1], device=real.device)
        # tokens end right before the first place, whatever is missing among them
        places = slots - ((slots + 1) * real).amax(1, keepdim=True) if self.natural else (-1 - slots).expand(batch, -1)
        places = torch.cat([places.new_zeros(batch, len(self.nothing)), places], 1)
        nothing = self.nothing.to(vectors.dtype).expand(batch, -1, -1)
        everyone = torch.cat([real.new_ones(nothing.shape[:2]), real], 1)
        return torch.cat([nothing, vectors], 1), everyone, distance_turns(places, pairs=pairs)


class DenoisingBlock(nn.Module):
    """Tokens learn of their neighbours, of their text through scratch latents, and of the concepts; cost O(L).

    Scratch latents read the noisy tokens of their text, then each other and the concepts, and are read back by the
    tokens: without them a masked token would see revealed ones among its neighbours alone. All that is added to tokens
    passes gates that are zero at the start (AdaLN-Zero, arXiv:2212.09748).

    Args:
        width: D.
        heads: attention heads.
        mlp_width: hidden features of the gated MLP.
        local_width: tokens that the convolution spans; odd.
        dropout: share of each branch's output that is dropped in training.
    """

    def __init__(self, width: int, heads: int, *, mlp_width: int, local_width: int, dropout: float) -> None:
        super().__init__()

        def gated(inner: nn.Module) -> nn.Module:
            return ModulatedResidual(width, inner, dropout=dropout, condition_width=width)

        self.beside = gated(LocalConvolution(width, local_width))
        self.gather = Residual(width, Reading(width, heads), dropout=dropout)
        self.think = Residual(width, Reading(width, heads), dropout=dropout)
        self.back = gated(Reading(width, heads))
        self.look = gated(Reading(width, heads))
        self.mlp = gated(GatedMLP(width, mlp_width))

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        scratch: Float[Tensor, "B S_K D"],
        condition: Float[Tensor, "B D"],
        *,
        segments: Int[Tensor, "B L"],
        own: Bool[Tensor, "B 1 S_K L"],
        scratch_turn: Float[Tensor, "B S_K F 2"],
        stretch_turn: Float[Tensor, "B L F 2"],
        together: Bool[Tensor, "B 1 S_K N"],
        memory: Float[Tensor, "B M D"],
        seen: Bool[Tensor, "B 1 L M"],
        token_turn: Float[Tensor, "B L F 2"],
        memory_turn: Float[Tensor, "B M F 2"],
    ) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B S_K D"]]:
        """Tokens and scratch, one block on.

        Args:
            x: the tokens' stream.
            scratch: the scratch latents', text by text.
            condition: what is known of the time.
            segments: the text of each token, 0 for padding.
            own: which tokens a scratch latent may read.
            scratch_turn: rotations of scratch latents, as readers of tokens.
            stretch_turn: rotations of tokens, as read by scratch latents.
            together: which of [scratch ; memory] a scratch latent may read.
            memory: what says nothing, then the concepts.
            seen: which of the memory a token may read.
            token_turn: rotations of tokens, as readers of the memory.
            memory_turn: rotations of the memory.
        """
        x = self.beside(x, condition, segments=segments)
        tokens, nothing = unit_rms(x).to(x.dtype), timeless(x)
        scratch = self.gather(
            scratch, nothing, memory=tokens, mask=never_empty(own), turn=scratch_turn, memory_turn=stretch_turn
        )
        everything = torch.cat([unit_rms(scratch).to(x.dtype), memory], 1)
        scratch = self.think(scratch, nothing, memory=everything, mask=together)
        x = self.back(
            x,
            condition,
            memory=unit_rms(scratch).to(x.dtype),
            mask=never_empty(own.transpose(2, 3)),
            turn=stretch_turn,
            memory_turn=scratch_turn,
        )
        x = self.look(x, condition, memory=memory, mask=seen, turn=token_turn, memory_turn=memory_turn)
        return self.mlp(x, condition), scratch

    def look_there(self) -> None:
        """Makes scratch latents begin by reading their own stretch of a text, and tokens the latents of theirs."""
        for branch in (self.gather, self.back):
            assert isinstance(branch.inner, Reading)
            branch.inner.look_there()

    def hand_on(self) -> None:
        """Makes concepts begin to reach tokens as they are, once their gate opens, and tokens the scratch latents."""
        assert isinstance(self.look.inner, Reading) and isinstance(self.gather.inner, Reading)  # noqa: PT018
        self.gather.inner.hand_on(1.0)
        self.look.inner.hand_on(COPIED)


class DenoisingDecoder(nn.Module):
    """Tokens that see each other, the time and the concepts.

    Args:
        width: D.
        heads: attention heads.
        blocks: `DenoisingBlock`s.
        scratch: S.
        memory: a `Memory`.
    """

    def __init__(self, width: int, heads: int, blocks: Sequence[nn.Module], *, scratch: int, memory: Memory) -> None:
        super().__init__()
        self.pairs = width // heads // 2
        self.time = TimeEmbedding(width)
        self.place = nn.Linear(width, width, bias=False)
        self.scratch = nn.Parameter(torch.zeros(scratch, width))
        self.memory = memory
        self.blocks = nn.ModuleList(blocks)
        self.norm = ModulatedFinal(width, condition_width=width)

    def forward(
        self,
        tokens: Float[Tensor, "B L D"],
        t: Float[Tensor, "B"],
        vectors: Float[Tensor, "B C D"],
        real: Bool[Tensor, "B C"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
    ) -> Float[Tensor, "M D"]:
        """The states at the true places of `positions`, in row-major order."""
        count, size = max(1, int(segments.max())), len(self.scratch)
        read = texts(segments, count=count)
        scratch_turn, stretch_turn = reading_turns(read, segments, latents=size, pairs=self.pairs)
        memory, known, memory_turn = self.memory(vectors, real, pairs=self.pairs)
        own = read.inside.repeat_interleave(size, 1)[:, None]
        group = torch.arange(count, device=segments.device).repeat_interleave(size)
        together = (group[:, None] == group).expand(len(tokens), -1, -1)
        surroundings = {
            "segments": segments,
            "own": own,
            "scratch_turn": scratch_turn,
            "stretch_turn": stretch_turn,
            "together": torch.cat([together, known[:, None].expand(-1, len(group), -1)], -1)[:, None],
            "memory": memory,
            "seen": known[:, None, None].expand(-1, -1, tokens.shape[1], -1),
            "token_turn": distance_turns(read.offset, pairs=self.pairs),
            "memory_turn": memory_turn,
        }
        condition = self.time(t)
        x = tokens + self.place(sinusoids(read.offset, width=tokens.shape[-1]).to(tokens.dtype))
        scratch = self.scratch.repeat(count, 1).expand(len(tokens), -1, -1)
        for block in self.blocks:
            x, scratch = block(x, scratch, condition, **surroundings)
        rows, places = positions.nonzero(as_tuple=True)
        return self.norm(x[rows, places], condition[rows])

    @torch.no_grad()
    def begin(self, generator: torch.Generator) -> None:
        """Places that matter less than tokens; scratch latents that each look at their own stretch."""
        self.place.weight *= 0.3
        nn.init.normal_(self.scratch, std=0.1, generator=generator)
        nn.init.normal_(self.memory.nothing, std=1.0, generator=generator)
        for block in self.blocks:
            assert isinstance(block, DenoisingBlock)
            block.look_there()
            block.hand_on()


class LookingBlock(nn.Module):
    """Places look at the concepts, then an MLP; no place learns of another.

    Args:
        width: D.
        heads: attention heads.
        mlp_width: hidden features of the gated MLP.
        dropout: share of each branch's output that is dropped in training.
    """

    def __init__(self, width: int, heads: int, *, mlp_width: int, dropout: float) -> None:
        super().__init__()
        self.look = Residual(width, Reading(width, heads), dropout=dropout)
        self.mlp = Residual(width, GatedMLP(width, mlp_width), dropout=dropout)

    def forward(self, x: Float[Tensor, "B L D"], **memory: Tensor) -> Float[Tensor, "B L D"]:
        """The places' stream, one block on; `memory` as `Reading` takes it."""
        return self.mlp(self.look(x, timeless(x), **memory), timeless(x))

    def hand_on(self) -> None:
        """Makes concepts begin to reach the places as they are."""
        assert isinstance(self.look.inner, Reading)
        self.look.inner.hand_on(COPIED)


Queries = Callable[[Tensor, Tensor], Tensor]
"""(embedded noisy tokens, embedded places), both [B L D] → what each place asks with [B L D]."""


def token_and_place(tokens: Float[Tensor, "B L D"], places: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
    """A place asks with its own noisy token: the Perceiver decoder (Perceiver IO, arXiv:2107.14795, section 3.2)."""
    return tokens + places


def place_alone(tokens: Float[Tensor, "B L D"], places: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
    """A place asks with where it is and nothing else: what it answers is in the concepts."""
    del tokens
    return places


class LookingDecoder(nn.Module):
    """Places that see the concepts and not each other; time is not read.

    Args:
        width: D.
        heads: attention heads.
        blocks: `LookingBlock`s.
        memory: a `Memory`.
        queries: `token_and_place` or `place_alone`.
    """

    def __init__(
        self, width: int, heads: int, blocks: Sequence[nn.Module], *, memory: Memory, queries: Queries
    ) -> None:
        super().__init__()
        self.pairs = width // heads // 2
        self.queries = queries
        self.place = nn.Linear(width, width, bias=False)
        self.memory = memory
        self.blocks = nn.ModuleList(blocks)
        self.norm = Final(width)

    def forward(
        self,
        tokens: Float[Tensor, "B L D"],
        t: Float[Tensor, "B"],
        vectors: Float[Tensor, "B C D"],
        real: Bool[Tensor, "B C"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
    ) -> Float[Tensor, "M D"]:
        """The states at the true places of `positions`, in row-major order."""
        offset = texts(segments, count=max(1, int(segments.max()))).offset
        memory, known, memory_turn = self.memory(vectors, real, pairs=self.pairs)
        x = self.queries(tokens, self.place(sinusoids(offset, width=tokens.shape[-1]).to(tokens.dtype)))
        mask = known[:, None, None].expand(-1, -1, x.shape[1], -1)
        turn = distance_turns(offset, pairs=self.pairs)
        for block in self.blocks:
            x = block(x, memory=memory, mask=mask, turn=turn, memory_turn=memory_turn)
        rows, places = positions.nonzero(as_tuple=True)
        return self.norm(x[rows, places], timeless(x)[rows])

    @torch.no_grad()
    def begin(self, generator: torch.Generator) -> None:
        """Concepts that reach the places that look at them as they are."""
        nn.init.normal_(self.memory.nothing, std=1.0, generator=generator)
        for block in self.blocks:
            assert isinstance(block, LookingBlock)
            block.hand_on()


class WeightedDecoder(nn.Module):
    """Each place mixes the concepts with weights of its own, the same for every text; an MLP reads the mixture.

        h_i = Σ_c softmax_c(W_ic) v_c, over the real concepts and a learned vector that says nothing

    Args:
        width: D.
        concepts: C.
        length: rows have so many places at most.
        mlp: reads the mixture, [*N D] → [*N D].
    """

    def __init__(self, width: int, concepts: int, *, length: int, mlp: nn.Module) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(width))
        self.table = nn.Parameter(torch.zeros(length, 1 + concepts))
        self.blocks = nn.ModuleList([mlp])
        self.norm = Final(width)

    def forward(
        self,
        tokens: Float[Tensor, "B L D"],
        t: Float[Tensor, "B"],
        vectors: Float[Tensor, "B C D"],
        real: Bool[Tensor, "B C"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
    ) -> Float[Tensor, "M D"]:
        """The states at the true places of `positions`, in row-major order; tokens and times are not read.

        Raises:
            ValueError: when a wanted place lies behind the table's last.
        """
        offset = texts(segments, count=max(1, int(segments.max()))).offset
        rows, places = positions.nonzero(as_tuple=True)
        here = offset[rows, places]
        if len(here) and int(here.max()) >= len(self.table):
            raise ValueError(
                f"place {int(here.max())} of a text was asked for; this decoder's table has {len(self.table)} places. "
                "Decode shorter texts, or train with a larger data.length"
            )
        everyone = torch.cat([real.new_ones(len(real), 1), real], 1)[rows]
        weights = self.table[here].masked_fill(~everyone, -torch.inf).softmax(-1)
        # one mixture a place, without a copy of the concepts for each: [B L] weights meet [B C] vectors row by row
        spread = weights.new_zeros(*positions.shape, weights.shape[-1])
        spread = spread.index_put((rows, places), weights).to(vectors.dtype)
        mixed = spread[..., 1:] @ vectors + spread[..., :1] * self.nothing.to(vectors.dtype)
        x = mixed[rows, places]
        return self.norm(x + self.blocks[0](unit_rms(x).to(x.dtype)), timeless(tokens)[rows])

    @torch.no_grad()
    def begin(self, generator: torch.Generator) -> None:
        """Places that begin with the concept that reads the same stretch of a text, and its neighbours."""
        nn.init.normal_(self.nothing, std=1.0, generator=generator)
        length, concepts = self.table.shape[0], self.table.shape[1] - 1
        device = self.table.device
        stretch = torch.arange(length, device=device) * (concepts - 1) / max(length - 1, 1)
        slots = concepts - 1 - torch.arange(concepts, device=device)
        self.table.zero_()
        self.table[:, 1:].copy_(-(stretch[:, None] - slots).abs())
