"""A run of reversible blocks as one step of autograd, which computes activations again from its outputs.

Each half of a block changes one stream by what it reads from the other, (target, source) → (source, target'), so the
state before it follows from the state behind it: the source is still there, its update can be computed again, and the
coupling is undone. The backward pass walks back through all halves so, and nothing of a block is kept from the forward
pass (RevNet, arXiv:1707.04585, algorithm 1; Reformer, arXiv:2001.04451, section 3).

Streams are float64 inside a stretch, whatever the branches compute in. What is undone then differs from what was there
by 1e-16, and a branch that reads it in float32 reads the same bits but for one in about 1e8. In float32 it differs by
1e-7, which flips the rounding of branches in bfloat16 and the choice of experts, and grows at every block to their full
noise: in 16 blocks of width 128 with random weights, gradients were off by 8 per cent. Streams are few (two, and their
gradients), so what this costs does not grow with depth.

Shape letters: B batch, L length, D width, C condition width.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from remask.networks.cache import Attach
from remask.networks.couplings import Half

Streams = tuple[Tensor, Tensor]
"""The two streams [B L D], as `widened` gives them."""


def widened(x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
    """The stream in float64; in float32 on Apple GPUs, which have no float64."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)


@runtime_checkable
class Halved(Protocol):
    """A block of two halves."""

    training: bool

    def halves(self, *, real: Tensor | None, seed: int | None, **attention: Any) -> tuple[Half, Half]:
        """Both halves, in order."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """All parts of it."""
        ...


class Stretch:
    """Neighbouring reversible blocks: both streams begin as what comes in, and are averaged at the end.

    Args:
        blocks: at least one.
        carry: how streams go through them where gradients are wanted: `stored` or `inverted`.

    Attributes:
        inversion_error: the largest max|x̂ − x| / rms(x) that a backward pass has found since it was last set to None,
            with x the first row of what came in and x̂ what undoing all blocks gave; None before the first, and always
            where nothing is undone. A tensor of one number, on the device of the streams.
    """

    def __init__(self, blocks: Sequence[Halved], *, carry: "Carry") -> None:
        self.blocks, self.carry = tuple(blocks), carry
        self.inversion_error: Tensor | None = None

    def __call__(
        self, x: Float[Tensor, "B L D"], condition: Float[Tensor, "B C"], **shared: Any
    ) -> Float[Tensor, "B L D"]:
        """The mean of both streams behind the last block, in the precision of `x`."""
        wide = widened(x)
        training = self.blocks[0].training
        carry = self.carry if training and torch.is_grad_enabled() else stored
        seed = _draw_seed() if training and self._drops() else None
        y1, y2 = carry(self, (wide, wide), condition, seed=seed, **shared)
        return (0.5 * (y1 + y2)).to(x.dtype)

    def halves(
        self,
        *,
        seed: int | None = None,
        attach: Sequence[Attach] | None = None,
        real: Tensor | None = None,
        **shared: Any,
    ) -> list[Half]:
        """Both halves of every block, in order.

        Args:
            seed: what dropout draws from, another number in each half; None: torch's global generator.
            attach: for each block, where keys and values of places read before come from.
            real: what tells text from padding.
            shared: what attention reads besides.
        """
        found: list[Half] = []
        for place, block in enumerate(self.blocks):
            attached = {} if attach is None else {"attach": attach[place]}
            own = None if seed is None else seed + len(found)
            found += block.halves(real=real, seed=own, **shared, **attached)
        return found

    def inverse(self, streams: Streams, condition: Float[Tensor, "B C"], **shared: Any) -> Streams:
        """The streams that come out as `streams` where nothing is dropped, or all of it is drawn from `seed`."""
        return undone(self.halves(**shared), streams, condition)

    def _drops(self) -> bool:
        return any(isinstance(part, nn.Dropout) and part.p > 0 for block in self.blocks for part in block.modules())

    def note(self, error: Tensor) -> None:
        """Keeps an error if it is the largest so far; one that is no number is."""
        known = self.inversion_error
        self.inversion_error = error if known is None else torch.maximum(known, error)


Carry = Callable[..., Streams]
"""(stretch, streams, condition, seed, what blocks share) → the streams behind the last block."""


def _draw_seed() -> int:
    """One number from torch's global generator: all that a pass takes from it, however many blocks follow."""
    return int(torch.randint(2**62, ()))


def stored(stretch: Stretch, streams: Streams, condition: Float[Tensor, "B C"], **shared: Any) -> Streams:
    """Through all halves by plain autograd, which keeps every activation."""
    return done(stretch.halves(**shared), streams, condition)


def done(halves: Iterable[Half], streams: Streams, condition: Float[Tensor, "B C"]) -> Streams:
    """The streams behind some halves."""
    target, source = streams
    for half in halves:
        target, source = source, half.coupling(target, half.update(source, condition))
    return target, source


def undone(halves: Sequence[Half], streams: Streams, condition: Float[Tensor, "B C"]) -> Streams:
    """The streams before some halves, from those behind them."""
    source, changed = streams
    for half in reversed(halves):
        source, changed = half.coupling.inverse(changed, half.update(source, condition)), source
    return source, changed


def inverted(
    stretch: Stretch, streams: Streams, condition: Float[Tensor, "B C"], *, seed: int | None, **shared: Any
) -> Streams:
    """Through all halves without keeping an activation; the backward pass computes them again.

    Args:
        stretch: the blocks; their weights that are trained get gradients. A hook on a weight (`Tensor.register_hook`)
            is called with each half's part of its gradient, and again with the sum.
        streams: as `widened` gives them.
        condition: gets a gradient where it wants one.
        seed: of dropout, which so draws the same units both times; None where nothing is dropped.
        shared: tensors that the blocks share, which get no gradient.
    """
    weights = _weights(stretch.halves())
    region = _Region.here(condition.device.type)
    return _Inverted.apply(stretch, seed, region, [*shared], *streams, condition, *shared.values(), *weights)  # pyright: ignore[reportReturnType]


def _weights(halves: Iterable[Half]) -> list[nn.Parameter]:
    """The weights that are trained, each once."""
    return [p for p in dict.fromkeys(p for half in halves for p in half.parameters()) if p.requires_grad]


class _Region:
    """The autocast under which a forward pass ran, to be entered again in the backward pass.

    Casts of weights are not kept between branches: one made without a gradient would be used where one is wanted.
    """

    def __init__(self, device: str, *, enabled: bool, dtype: torch.dtype) -> None:
        self.device, self.enabled, self.dtype = device, enabled, dtype

    @classmethod
    def here(cls, device: str) -> "_Region | None":
        """The autocast of this moment; None on devices that have none."""
        if not torch.amp.is_autocast_available(device):
            return None
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        return cls(device, enabled=enabled, dtype=dtype)

    def enter(self) -> AbstractContextManager[Any]:
        """A context in which it holds."""
        return torch.autocast(self.device, dtype=self.dtype, enabled=self.enabled, cache_enabled=False)


def _entered(region: _Region | None) -> AbstractContextManager[Any]:
    return nullcontext() if region is None else region.enter()


def _update(half: Half, source: Tensor, condition: Tensor, region: _Region | None) -> Tensor:
    """A half's update with its graph, of leaves: computed alike in both passes.

    torch chooses kernels, and compilers make programs, by whether a gradient is wanted. A forward pass without one
    could differ from the second computation by rounding, or by the units that compiled dropout leaves out. The graph of
    the forward pass is let go at once, so its tensors are none that a caller's hooks on kept tensors should see. They
    are kept detached: a node that keeps its own output by a hook would hold itself, and all of it, for ever.
    """
    with torch.enable_grad(), saved_tensors_hooks(torch.detach, _as_it_is), _entered(region):
        return half.update(source, condition)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


class _Inverted(torch.autograd.Function):
    """Streams in, streams out; kept are the outputs, the condition, what blocks share, and the first row that came in.

    All that a pass needs is on its own context, so several forward passes may come before a backward pass. Weights are
    kept too, which takes no memory: autograd then refuses a backward pass through weights that have changed since.
    """

    @staticmethod
    def forward(
        ctx: Any,
        stretch: Stretch,
        seed: int | None,
        region: _Region | None,
        names: list[str],
        x1: Tensor,
        x2: Tensor,
        condition: Tensor,
        *others: Tensor | None,
    ) -> Streams:
        shared, weights = others[: len(names)], others[len(names) :]
        first = torch.stack([x1[0], x2[0]])
        target, source, told = x1, x2, condition.detach().requires_grad_(ctx.needs_input_grad[6])
        tables: dict[str, Any] = dict(zip(names, shared, strict=True))
        for half in stretch.halves(seed=seed, **tables):
            update = _update(half, _leaf(source), told, region).detach()
            with _entered(region):
                target, source = source, half.coupling(target, update)
        ctx.stretch, ctx.seed, ctx.region, ctx.names, ctx.weights = stretch, seed, region, names, weights
        ctx.save_for_backward(target, source, condition, first, *shared, *weights)
        return target, source

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        *state, condition, first = ctx.saved_tensors[:4]
        shared: dict[str, Any] = dict(zip(ctx.names, ctx.saved_tensors[4 : 4 + len(ctx.names)], strict=True))
        streams, towards = (state[0], state[1]), (gradients[0], gradients[1])
        halves: list[Half] = ctx.stretch.halves(seed=ctx.seed, **shared)
        condition = condition.detach().requires_grad_(ctx.needs_input_grad[6])
        found: dict[Tensor, Tensor] = {}
        for half in reversed(halves):
            streams, towards = _undo(half, streams, towards, condition, region=ctx.region, found=found)
        ctx.stretch.note(_error(torch.stack([streams[0][0], streams[1][0]]), first))
        unmoved = [None] * len(shared)
        return None, None, None, None, *towards, found.get(condition), *unmoved, *(found.get(p) for p in ctx.weights)


def _undo(
    half: Half,
    streams: Streams,
    gradients: Streams,
    condition: Tensor,
    *,
    region: _Region | None,
    found: dict[Tensor, Tensor],
) -> tuple[Streams, Streams]:
    """The streams before a half, and the gradients towards them.

    Args:
        half: the last that is not undone.
        streams: (source, target') behind it.
        gradients: towards these.
        condition: a leaf, or without gradient.
        region: the autocast of the forward pass.
        found: gradients towards condition and weights, to which this half's are added.
    """
    source, changed = _leaf(streams[0]), streams[1]
    update = _update(half, source, condition, region)
    with torch.no_grad(), _entered(region):
        target = half.coupling.inverse(changed, update)
    target.requires_grad_()
    with torch.enable_grad(), _entered(region):
        again = half.coupling(target, update)
    others = [p for p in (condition, *half.parameters()) if p.requires_grad]
    towards = torch.autograd.grad(again, [target, source, *others], gradients[1], allow_unused=True)
    for tensor, gradient in zip(others, towards[2:], strict=True):
        if gradient is not None:
            found[tensor] = found[tensor] + gradient if tensor in found else gradient
    before = gradients[0] if towards[1] is None else gradients[0] + towards[1]
    return (target.detach(), source.detach()), (towards[0], before)


def _error(found: Float[Tensor, "2 L D"], given: Float[Tensor, "2 L D"]) -> Float[Tensor, ""]:
    """max|found − given| / rms(given)."""
    size = given.square().mean().sqrt().clamp_min(torch.finfo(given.dtype).tiny)
    return (found - given).abs().max() / size
