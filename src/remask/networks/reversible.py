"""Reversible blocks, and stacks of them with standard blocks in between.

A reversible block (RevNet, arXiv:1707.04585, equations 6 and 7; Reformer, arXiv:2001.04451, section 3) carries two
streams of full width, with F its attention and G its MLP:

    y1 = x1 + F(x2),    y2 = x2 + G(y1)        and back        x2 = y2 − G(y1),    x1 = y1 − F(x2).          (1)

Norms are inside F and G, never on a stream: a norm forgets the length of what it divides, so that its Jacobian has
rank D − 1 and no inverse (that of LayerNorm, which forgets the mean too, has rank D − 2). Both streams of a run of
reversible blocks begin as what comes in, the embedding or a standard block's output, and their mean goes on; so a stack
has the weights of a standard one, name by name.

What is undone, and whose log-determinants are given, are hidden activations: they say nothing of how likely a text is.

Shape letters: B batch, L length, D width, C condition width, R reversible blocks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor, nn

from remask.networks.cache import Attach, alone
from remask.networks.couplings import Additive, Half
from remask.networks.inverted import Carry, Streams, Stretch, done, inverted, undone, widened
from remask.networks.stacks import Inner, Stack


class ReversibleBlock(nn.Module):
    """Equation (1), or the same with affine couplings.

    Args:
        attention: F, a `Branch` or a `ModulatedBranch`.
        mlp: G, alike.
        width: D.
        coupling: width → how an update meets its stream, made once for F and once for G.
    """

    def __init__(
        self, attention: nn.Module, mlp: nn.Module, *, width: int, coupling: Callable[[int], nn.Module] = Additive
    ) -> None:
        super().__init__()
        self.attention = attention
        self.mlp = mlp
        self.attention_coupling = coupling(width)
        self.mlp_coupling = coupling(width)

    def halves(self, *, real: Tensor | None = None, seed: int | None = None, **attention: object) -> tuple[Half, Half]:
        """F with its coupling, then G with its own.

        Args:
            real: what tells text from padding, for G.
            seed: F's dropout draws from it, G's from the next number; None: both from torch's global generator.
            attention: for F: `rotation`, `mask` and `attach`.
        """
        first: Half = Half(self.attention, self.attention_coupling, attention, seed)  # pyright: ignore[reportArgumentType]
        later = None if seed is None else seed + 1
        return first, Half(self.mlp, self.mlp_coupling, {"real": real}, later)  # pyright: ignore[reportArgumentType]

    def forward(
        self, x1: Float[Tensor, "B L D"], x2: Float[Tensor, "B L D"], condition: Float[Tensor, "B C"], **shared: object
    ) -> Streams:
        """(y1, y2); `shared` as in `halves`."""
        return done(self.halves(**shared), (x1, x2), condition)  # pyright: ignore[reportArgumentType]

    def inverse(
        self, y1: Float[Tensor, "B L D"], y2: Float[Tensor, "B L D"], condition: Float[Tensor, "B C"], **shared: object
    ) -> Streams:
        """(x1, x2), exact up to rounding; with dropout in training only from the seed of the forward pass."""
        return undone(self.halves(**shared), (y1, y2), condition)  # pyright: ignore[reportArgumentType]

    def log_determinants(
        self, x1: Float[Tensor, "B L D"], x2: Float[Tensor, "B L D"], condition: Float[Tensor, "B C"], **shared: object
    ) -> Float[Tensor, "B"]:
        """log|det ∂(y1, y2)/∂(x1, x2)| of each row, in nats: exactly 0 for additive couplings."""
        total = torch.zeros(len(x1), dtype=x1.dtype, device=x1.device)
        target, source = x1, x2
        for half in self.halves(**shared):  # pyright: ignore[reportArgumentType]
            update = half.update(source, condition)
            total = total + half.coupling.log_determinants(update).to(total.dtype)
            target, source = source, half.coupling(target, update)
        return total


def reversible(
    width: int,
    inner: Inner,
    *,
    branch: Callable[[int, nn.Module], nn.Module],
    coupling: Callable[[int], nn.Module] = Additive,
) -> ReversibleBlock:
    """A block on two streams.

    Args:
        width: D.
        inner: its attention and its MLP.
        branch: (width, attention or MLP) → a `Branch` or a `ModulatedBranch`.
        coupling: width → `Additive` or `Affine`.
    """
    attention, mlp = inner
    return ReversibleBlock(branch(width, attention), branch(width, mlp), width=width, coupling=coupling)


class ReversibleStack(Stack):
    """Reversible and standard blocks in any order.

    Args:
        blocks: `ReversibleBlock`s and `Block`s.
        carry: how streams go through reversible blocks where gradients are wanted: `inverted` keeps no activations of
            theirs, `stored` all.

    Attributes:
        stretches: the runs of neighbouring reversible blocks, in order.
    """

    def __init__(self, blocks: Iterable[nn.Module], *, carry: Carry = inverted) -> None:
        super().__init__(blocks)
        runs = groupby(self, key=lambda block: isinstance(block, ReversibleBlock))
        parts = [Stretch([*run], carry=carry) if reversible else [*run] for reversible, run in runs]  # pyright: ignore[reportArgumentType]
        self._parts: list[Stretch | list[nn.Module]] = parts

    @property
    def stretches(self) -> list[Stretch]:
        """The runs of neighbouring reversible blocks, in order."""
        return [part for part in self._parts if isinstance(part, Stretch)]

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        condition: Float[Tensor, "B C"],
        *,
        attach: Sequence[Attach] | None = None,
        **shared: object,
    ) -> Float[Tensor, "B L D"]:
        """As `Stack.forward`."""
        places = iter([None] * len(self) if attach is None else attach)
        for part in self._parts:
            if isinstance(part, Stretch):
                own = [next(places) for _ in part.blocks]
                x = part(x, condition, **shared, **({} if attach is None else {"attach": own}))
            else:
                for block in part:
                    x = block(x, condition, attach=next(places) or alone, **shared)
        return x

    def log_determinants(
        self, x: Float[Tensor, "B L D"], condition: Float[Tensor, "B C"], **shared: object
    ) -> Float[Tensor, "R B"]:
        """log|det| of each reversible block at the streams that it gets, in nats; standard blocks have none.

        Those of one stretch add up to that of the stretch as a map of two streams. A measure of how much hidden volume
        changes, and no part of a likelihood.
        """
        found: list[Tensor] = []
        for part in self._parts:
            if isinstance(part, Stretch):
                x1 = x2 = widened(x)
                for block in part.blocks:
                    assert isinstance(block, ReversibleBlock)
                    found.append(block.log_determinants(x1, x2, condition, **shared))
                    x1, x2 = block(x1, x2, condition, **shared)
                x = (0.5 * (x1 + x2)).to(x.dtype)
            else:
                for block in part:
                    x = block(x, condition, **shared)
        return torch.stack(found) if found else x.new_zeros(0, len(x))

    def inverse(
        self, y1: Float[Tensor, "B L D"], y2: Float[Tensor, "B L D"], condition: Float[Tensor, "B C"], **shared: object
    ) -> Streams:
        """The streams (x1, x2) before the first block, from those behind the last.

        Raises:
            ValueError: when a standard block, which has no inverse, is among them.
        """
        if len(self.stretches) != 1 or len(self._parts) != 1:
            kinds = ", ".join(type(block).__name__ for block in self)
            raise ValueError(f"a stack of {kinds} has no inverse; undo its stretches, one by one")
        return self.stretches[0].inverse((y1, y2), condition, **shared)

    def repeated_layers(self) -> Iterator[nn.Module]:
        """Standard blocks whole and reversible ones branch by branch: what is sharded, compiled or computed again."""
        for block in self:
            yield from (block.attention, block.mlp) if isinstance(block, ReversibleBlock) else (block,)

    def begin_step(self, step: int) -> None:
        """Forgets the inversion errors of earlier optimiser steps."""
        del step
        for stretch in self.stretches:
            stretch.inversion_error = None


Make = Callable[[int, Inner], nn.Module]
"""(width, attention and MLP) → a block: `standard` or `reversible` with their options."""


def mixed(width: int, inner: Sequence[Inner], *, makes: Sequence[Make], carry: Carry = inverted) -> ReversibleStack:
    """Blocks of several kinds.

    Args:
        width: D.
        inner: attention and MLP of each block.
        makes: what makes each block.
        carry: as in `ReversibleStack`.
    """
    return ReversibleStack([make(width, one) for make, one in zip(makes, inner, strict=True)], carry=carry)


def inversion_error(network: nn.Module) -> float | None:
    """The largest `Stretch.inversion_error` of a network since its last `begin_step`; None where nothing was undone.

    Args:
        network: with a `ReversibleStack` somewhere inside, or none. Reading it waits for the network's device.
    """
    stacks = [module for module in network.modules() if isinstance(module, ReversibleStack)]
    errors = [stretch.inversion_error for stack in stacks for stretch in stack.stretches]
    found = [error.float() for error in errors if error is not None]
    return float(torch.stack(found).max()) if found else None
