r"""Block diffusion: left to right over blocks of a row, diffusion inside each (BD3-LM, arXiv:2503.09573).

With x^b the b-th of K blocks of P tokens and x^{<b} the blocks before it (equations 4 to 8):

    −log p(x) = −Σ_b log p(x^b | x^{<b}) ≤ Σ_b L(x^b | x^{<b}),                                              (1)

where L is the likelihood bound of one block, all three terms of it, under a network that also reads x^{<b} clean.
Each block has a time of its own, and one call of the network over the row answers for all blocks (algorithm 1). For
masking noise two block lengths are known models: with P = 1 the sum is −log p(x) itself, the chain rule, since a
hidden token alone in its block is predicted from the tokens before it whatever its time; with P = L it is the bound
of ordinary diffusion.

Shape letters: B batch, L length, K blocks a row, N = B·K blocks, P = L/K tokens a block, V vocabulary, M positions at
which logits are wanted.
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.data.batch import Batch
from remask.objectives.base import BlockNetwork, Loss, Network
from remask.objectives.likelihood import LikelihoodBound
from remask.objectives.noisy import WantedRows


@dataclass(frozen=True, kw_only=True)
class FoldedNetwork:
    """Answers for B·K rows of one block by one call of a block network over the B whole rows.

    Attributes:
        network: called with the noisy rows, and the clean ones as context.
        rows: the whole rows [B L].
    """

    network: BlockNetwork
    rows: Batch

    def __call__(
        self,
        z: Int[Tensor, "N P"],
        t: Float[Tensor, "N"],
        *,
        segments: Int[Tensor, "N P"],
        positions: Bool[Tensor, "N P"],
    ) -> Float[Tensor, "M V"]:
        """As `Network`: rows of blocks and blocks of rows have the same row-major order, so no answer moves.

        The blocks of a row stand at times of their own, so the network is told none of them: it gets 0.
        """
        del segments
        shape = self.rows.ids.shape
        return self.network(
            z.reshape(shape),
            torch.zeros(shape[0], dtype=t.dtype, device=t.device),
            segments=self.rows.segments,
            positions=positions.reshape(shape),
            context=self.rows.ids,
        )


@dataclass(frozen=True, kw_only=True)
class BlockDiffusion:
    """The bound (1) as an objective, for networks that read a clean context (`BlockNetwork`).

    Attributes:
        bound: of one block, with its noise, reweighting and curriculum.
        block_length: P, tokens a block; divides every row's length.
        t_range: the times drawn in training, within [0, 1]. Leaving out both ends, where a block is almost clean or
            all noise, lowers the variance of the gradient for short blocks (section 5.3's clipped schedules); the
            loss is then no estimate of the likelihood, and `likelihood_terms` still integrates over all times.

    Raises:
        ValueError: when `block_length` is below 1 or `t_range` holds no times.
    """

    bound: LikelihoodBound
    block_length: int
    t_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        low, high = self.t_range
        if self.block_length < 1:
            raise ValueError(f"block_length: {self.block_length} was given; give at least 1 token a block")
        if not 0.0 <= low < high <= 1.0 or high <= self.bound.t_min or low >= self.bound.t_max:
            raise ValueError(
                f"t_range: ({low}, {high}) was given; give two rising times in [0, 1], the second above t_min "
                f"({self.bound.t_min}) and the first below where a curriculum begins ({self.bound.t_max})"
            )

    @property
    def exact(self) -> bool:
        """A bound, even where it is tight (one-token blocks): noise is still drawn, so each estimate varies."""
        return False

    def at(self, step: int) -> "BlockDiffusion":
        """The objective of one optimiser step: the curriculum is that of the block's bound."""
        return replace(self, bound=self.bound.at(step))

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """One time a block, stratified over all blocks of the global batch; the diffusion term in nats a token.

        As for `LikelihoodBound`, the record's `diffusion` is left out where not all times are drawn.

        Raises:
            ValueError: when the rows are not a whole number of blocks long.
        """
        low, high = self.t_range
        clipped = replace(self.bound, t_min=max(low, self.bound.t_min), t_max=min(high, self.bound.t_max))
        blocks = shuffled(self.blocks(batch), parts=self.parts(batch), generator=generator)
        loss = clipped(self.fold(network, batch), blocks, generator=generator)
        terms = loss.terms if clipped.t_min == self.bound.t_min else {}
        return Loss(loss.nats.reshape(batch.ids.shape), loss.weight.reshape(batch.ids.shape), terms)

    def likelihood_terms(
        self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B L"]]:
        """The three terms of (1), summed over blocks as they lie in the row; times stratified over a block's draws.

        Args and result as for `LikelihoodBound.likelihood_terms`.
        """
        folded = self.fold(WantedRows(network), batch)
        terms = self.bound.drawn_terms(folded, self.blocks(batch), generator=generator, draws=draws)
        return {name: term.reshape(batch.ids.shape) for name, term in terms.items()}

    def fold(self, network: Network, batch: Batch) -> FoldedNetwork:
        """The network as one of single blocks, for the blocks of this batch."""
        return FoldedNetwork(network=cast(BlockNetwork, network), rows=batch)

    def parts(self, batch: Batch) -> int:
        """K, the blocks of a row."""
        return batch.ids.shape[1] // self.block_length

    def blocks(self, batch: Batch) -> Batch:
        """The batch as B·K rows of one block each, in row-major order.

        Raises:
            ValueError: when the rows are not a whole number of blocks long.
        """
        length, parts = batch.ids.shape[1], self.parts(batch)
        if parts * self.block_length != length:
            raise ValueError(
                f"rows are {length} tokens long, which blocks of {self.block_length} do not fill; give a row length "
                "that is a multiple of block_length"
            )
        inside = torch.arange(parts, device=batch.rows.device)
        return Batch(
            ids=batch.ids.reshape(-1, self.block_length),
            segments=batch.segments.reshape(-1, self.block_length),
            targets=batch.targets.reshape(-1, self.block_length),
            byte_lengths=batch.byte_lengths.reshape(-1, self.block_length),
            rows=(batch.rows[:, None] * parts + inside).flatten(),
            global_size=batch.global_size * parts,
        )


def shuffled(blocks: Batch, *, parts: int, generator: torch.Generator) -> Batch:
    """The same blocks at random places in the global batch, so that each of them may get any stratum of time.

    Rows come in random order, but the first block of a row is always the first: left in place, it would never see
    the noisiest part of its row's share of times, and the loss would be biased by a block's place.

    Args:
        blocks: in row-major order.
        parts: K, blocks a row; with one block a row there is nothing to shuffle, and nothing is drawn.
        generator: on the batch's device; the permutation is of the global batch, so it is the same on every process.
    """
    if parts == 1:
        return blocks
    order = torch.randperm(blocks.global_size, generator=generator, device=generator.device)
    return replace(blocks, rows=order[blocks.rows])
