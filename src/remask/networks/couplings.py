"""Couplings: one stream changed by what is read from another, so that the change can be undone.

With x the stream that is changed and h = f(source) the update that a branch f reads from the other stream, the two
kinds are, componentwise,

    additive   y = x + h               x = y − h                  log|det ∂y/∂x| = 0
    affine     y = x · exp(s) + h      x = (y − h) · exp(−s)      log|det ∂y/∂x| = Σ s

(NICE, arXiv:1410.8516, section 3.2; Real NVP, arXiv:1605.08803, equations 4 to 8), whatever f is: f itself is never
inverted. The affine kind's log-scales are bounded, s = limit · tanh(W h / limit), with
W zero at the start, where both kinds are the same.

Shape letters: B batch, L length, D width, C condition width.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

SCALE_LIMIT = 0.5
"""What an affine coupling's log-scales stay below: sixteen blocks then scale a stream by less than e^8 = 3000, and
rounding stays rounding when it is undone."""


@runtime_checkable
class Coupling(Protocol):
    """One of the two kinds."""

    def __call__(self, x: Float[Tensor, "B L D"], update: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """The stream behind it, y."""
        ...

    def inverse(self, y: Float[Tensor, "B L D"], update: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """The stream before it, x."""
        ...

    def log_determinants(self, update: Float[Tensor, "B L D"]) -> Float[Tensor, "B"]:
        """log|det ∂y/∂x| of each row, in nats."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The coupling's own weights."""
        ...


class Additive(nn.Module):
    """y = x + h: volume is kept, and there is nothing to learn.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        del width

    def forward(self, x: Float[Tensor, "B L D"], update: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """y, in the precision of x."""
        return x + update.to(x.dtype)

    def inverse(self, y: Float[Tensor, "B L D"], update: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """x, in the precision of y."""
        return y - update.to(y.dtype)

    def log_determinants(self, update: Float[Tensor, "B L D"]) -> Float[Tensor, "B"]:
        """Zero for each row."""
        return torch.zeros(len(update), dtype=_wide(update), device=update.device)


class Affine(nn.Module):
    """y = x · exp(s) + h with s = limit · tanh(W h / limit).

    Args:
        width: D.
        limit: |s| stays below it; positive.
    """

    def __init__(self, width: int, *, limit: float = SCALE_LIMIT) -> None:
        super().__init__()
        self.limit = limit
        self.log_scale = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "B L D"], update: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """y, in the precision of x."""
        return x * self._log_scales(update).exp().to(x.dtype) + update.to(x.dtype)

    def inverse(self, y: Float[Tensor, "B L D"], update: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """x, in the precision of y."""
        return (y - update.to(y.dtype)) / self._log_scales(update).exp().to(y.dtype)

    def log_determinants(self, update: Float[Tensor, "B L D"]) -> Float[Tensor, "B"]:
        """Σ s over a row's places and features."""
        return self._log_scales(update).flatten(1).sum(1)

    def _log_scales(self, update: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return self.limit * torch.tanh(self.log_scale(update).to(_wide(update)) / self.limit)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


@dataclass(frozen=True, eq=False)
class Half:
    """Half of a reversible block in one pass: the target stream changed by what a branch reads from the source.

    Attributes:
        branch: a `Branch` or a `ModulatedBranch`.
        coupling: how its update meets the target.
        inner: what the branch reads besides source and condition.
        seed: what its dropout draws from; None: torch's global generator.
    """

    branch: nn.Module
    coupling: Coupling
    inner: Mapping[str, Any]
    seed: int | None = None

    def update(self, source: Float[Tensor, "B L D"], condition: Float[Tensor, "B C"]) -> Float[Tensor, "B L D"]:
        """What the branch makes of the source, which it reads in the precision of its weights."""
        weights = next(self.branch.parameters()).dtype
        with _drawn_from(self.seed, source.device):
            return self.branch(source.to(weights), condition, **self.inner)

    def parameters(self) -> list[nn.Parameter]:
        """The weights of branch and coupling."""
        return [*self.branch.parameters(), *self.coupling.parameters()]


@contextmanager
def _drawn_from(seed: int | None, device: torch.device) -> Iterator[None]:
    """Inside, torch's global generator begins at `seed`; outside, it is as it was. None leaves it alone."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
