"""Blocks one after another: what carries a transformer's stream from the embedding to the final norm.

Shape letters: B batch, L length, D width, C condition width.
"""

from collections.abc import Callable, Iterator, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from remask.networks.blocks import Block
from remask.networks.cache import Attach, alone

Inner = tuple[nn.Module, nn.Module]
"""A block's attention and its MLP, before a stack decides how they meet the stream."""


class Stack(nn.ModuleList):
    """Standard blocks on one stream: x ← block(x), for each in turn.

    Other kinds of stack override `forward`, `repeated_layers` and `begin_step`. The blocks themselves are the list's
    items, so that weights have the names N.attention.… and N.mlp.… in every kind.
    """

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        condition: Float[Tensor, "B C"],
        *,
        attach: Sequence[Attach] | None = None,
        **shared: object,
    ) -> Float[Tensor, "B L D"]:
        """The stream behind the last block.

        Args:
            x: the stream before the first.
            condition: what a network learns of the time.
            attach: for each block, where keys and values of places read before come from; None: there are none.
            shared: what all blocks read: `rotation`, `mask` and `real`, as `Block` takes them.
        """
        for block, attached in zip(self, attach or [alone] * len(self), strict=True):
            x = block(x, condition, attach=attached, **shared)
        return x

    def repeated_layers(self) -> Iterator[nn.Module]:
        """The blocks, in order: what is sharded, compiled or computed again as one."""
        return iter(self)

    def begin_step(self, step: int) -> None:
        """Hears which optimiser step begins, counted from 1."""
        del step


def standard(width: int, inner: Inner, *, residual: Callable[[int, nn.Module], nn.Module]) -> Block:
    """A block on one stream.

    Args:
        width: D.
        inner: its attention and its MLP.
        residual: (width, attention or MLP) → a `Residual` or a `ModulatedResidual`.
    """
    attention, mlp = inner
    return Block(residual(width, attention), residual(width, mlp))


def straight(width: int, inner: Sequence[Inner], *, residual: Callable[[int, nn.Module], nn.Module]) -> Stack:
    """Standard blocks alone; arguments as those of `standard`, `inner` for each block."""
    return Stack(standard(width, one, residual=residual) for one in inner)
