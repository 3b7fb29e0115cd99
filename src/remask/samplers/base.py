"""What every sampler takes and gives.

Shape letters: B samples, L length, V vocabulary, M positions at which logits are wanted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.processes import CategoricalProcess


@runtime_checkable
class Denoiser(Protocol):
    """A model as a sampler sees it."""

    @property
    def process(self) -> CategoricalProcess:
        """The noise that sampling undoes."""
        ...

    def logits(
        self, z: Int[Tensor, "B L"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "M V"]:
        """Leave-one-out logits at the true places of `positions`, in row-major order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Tokens that are given: a prefix, the surroundings of a gap, or nothing.

    Attributes:
        ids: tokens; read where `fixed` is true [B L].
        fixed: positions that no sampler changes [B L].
    """

    ids: Int[Tensor, "B L"]
    fixed: Bool[Tensor, "B L"]

    def over(self, z: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """`z` with the given tokens in their places."""
        return torch.where(self.fixed, self.ids, z)

    def behind(self) -> Bool[Tensor, "B L"]:
        """True behind each row's last given token [B L]."""
        return self.fixed.flip(-1).cumsum(-1).flip(-1) == 0


def blank_prompt(count: int, length: int, *, device: torch.device | str = "cpu") -> Prompt:
    """A prompt that fixes nothing: `count` samples of `length` tokens."""
    shape = (count, length)
    return Prompt(
        ids=torch.zeros(shape, dtype=torch.int64, device=device),
        fixed=torch.zeros(shape, dtype=torch.bool, device=device),
    )


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The state after a step, handed to `on_step`.

    Attributes:
        step: 0 for the start, then 1, 2, … up to the number of steps.
        t: the time reached, in [0, 1].
        z: the tokens, noise included [B L].
    """

    step: int
    t: float
    z: Int[Tensor, "B L"]


OnStep = Callable[[Frame], None]
Transform = Callable[[Float[Tensor, "M V"]], Float[Tensor, "M V"]]
"""Changes logits before a draw; the mask's are −∞ already, so it takes no share of a nucleus."""


def silent(frame: Frame) -> None:
    """Watches nothing."""
    del frame
