"""Small networks on reversible stacks, every weight moved away from its start."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from remask.networks import BIDIRECTIONAL, Direction, Transformer
from remask.networks.blocks import (
    Branch,
    Final,
    GatedMLP,
    ModulatedBranch,
    ModulatedFinal,
    ModulatedResidual,
    Residual,
    TimeEmbedding,
    Timeless,
    bounded,
)
from remask.networks.couplings import Additive, Affine
from remask.networks.inverted import inverted
from remask.networks.reversible import ReversibleStack, mixed, reversible
from remask.networks.stacks import Stack, standard, straight
from remask.randomness import keyed_generator

V, MASK, WIDTH = 20, 19, 16
HYBRID = "rrsr"
"""Kinds of blocks by letter: r reversible, s standard."""


def wrappers(*, conditioned: bool, dropout: float, width: int = WIDTH) -> tuple[Callable, Callable]:
    """What standard and what reversible blocks wrap their attention and MLP in."""
    if not conditioned:
        return partial(Residual, dropout=dropout), partial(Branch, dropout=dropout)
    modulated = {"condition_width": width, "bound": bounded, "dropout": dropout}
    return partial(ModulatedResidual, **modulated), partial(ModulatedBranch, **modulated)


def stack(
    kinds: str | None,
    *,
    conditioned: bool = False,
    dropout: float = 0.0,
    coupling=Additive,
    carry=inverted,
    width=WIDTH,
) -> Callable[..., Stack]:
    """Of the kinds of its blocks by letter; None: a stack that knows standard blocks alone."""
    residual, branch = wrappers(conditioned=conditioned, dropout=dropout, width=width)
    if kinds is None:
        return partial(straight, residual=residual)
    makes = {"s": partial(standard, residual=residual), "r": partial(reversible, branch=branch, coupling=coupling)}
    return partial(mixed, makes=[makes[kind] for kind in kinds], carry=carry)


def network(
    kinds: str | None = "rrr",
    *,
    layers: int | None = None,
    direction: Direction = BIDIRECTIONAL,
    conditioned: bool = False,
    tied: bool = False,
    mlp: Callable[[int, int], nn.Module] = GatedMLP,
    stir: float = 0.1,
    **options,
) -> Transformer:
    """A network in training mode."""
    built = Transformer(
        vocab_size=V,
        mask_id=MASK,
        width=WIDTH,
        layers=layers or len(kinds or ""),
        heads=2,
        mlp_width=2 * WIDTH,
        direction=direction,
        time=TimeEmbedding(WIDTH) if conditioned else Timeless(),
        stack=stack(kinds, conditioned=conditioned, **options),
        final=partial(ModulatedFinal, condition_width=WIDTH, bound=bounded) if conditioned else Final,
        mlp=mlp,
    )
    if tied:
        built.tie_head()
    built.initialise(keyed_generator(1))
    return stirred(built, by=stir).train()


def stirred(module: nn.Module, *, by: float) -> nn.Module:
    """The module with every weight moved away from where it was, by name: the same for equal names and shapes."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.add_(by * torch.randn(parameter.shape, generator=keyed_generator(name)))
    return module


def drawn(module: nn.Module, *, by: float) -> nn.Module:
    """The module with every weight drawn anew, by its name, with that deviation."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return stirred(module, by=by)


def blocks_of(built: Transformer) -> ReversibleStack:
    """The network's stack, which is a reversible one."""
    assert isinstance(built.blocks, ReversibleStack)
    return built.blocks


def affine(*, limit: float = 0.5) -> Callable[[int], Affine]:
    """Affine couplings whose log-scales stay below `limit`."""
    return partial(Affine, limit=limit)


def normal(*shape: int, seed: int = 5) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, generator=keyed_generator(seed), dtype=torch.float64)
