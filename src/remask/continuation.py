"""A model that reads given tokens apart from those it denoises, as a sampler sees it.

Shape letters: B samples, L places of a row, N given tokens, S free places, V vocabulary, M positions at which logits
are wanted.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.data.given import close_up
from remask.errors import UserError
from remask.objectives.base import SourceNetwork
from remask.processes import CategoricalProcess


@dataclass(kw_only=True, eq=False)
class Continuation:
    """A network of two parts bound to the places that a prompt gives: the given tokens are read once, then kept.

    The free places of each row, closed up to the left, are the row that the second part denoises; that is how rows of a
    prefix or of pairs are trained.

    Attributes:
        process: the noise that sampling undoes.
        network: reads and denoises.
        fixed: given places, the first ones of each row [B L].
        readings: how often given tokens were read.
    """

    process: CategoricalProcess
    network: SourceNetwork
    fixed: Bool[Tensor, "B L"]
    readings: int = 0
    _source: Tensor | None = field(default=None, repr=False)
    _told: Any = field(default=None, repr=False)

    def logits(
        self, z: Int[Tensor, "B L"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "M V"]:
        """Leave-one-out logits at the true places of `positions`, in row-major order.

        Args:
            z: rows of the prompt, with its tokens in their places; a multiple of them, one copy below the other, for
                guidance, which masks the given tokens of the second copy.
            t: times.
            positions: free places.
        """
        copies, rest = divmod(len(z), len(self.fixed))
        assert not rest, "whole copies of the prompt's rows"
        fixed = self.fixed.repeat(copies, 1)
        assert not bool((positions & fixed).any()), "given tokens are not denoised"
        free = close_up(~fixed)
        return self.network.decode(
            free.gather(z),
            t,
            self._concepts(z, fixed),
            segments=free.real.long(),
            positions=free.gather(positions),
        )

    def _concepts(self, z: Int[Tensor, "B L"], fixed: Bool[Tensor, "B L"]) -> Any:
        """What is told of the given tokens, read anew only where they are others than the last time."""
        places = close_up(fixed)
        source = places.gather(z)
        if self._source is None or not torch.equal(source, self._source):
            self._source, self._told = source, self.network.encode(source, real=places.real)
            self.readings += 1
        return self._told


def check_given(fixed: Bool[Tensor, "B L"]) -> None:
    """Refuses given places that are not the first ones of their row.

    Raises:
        UserError: when a free place stands before a given one.
    """
    if bool((fixed[:, 1:] & ~fixed[:, :-1]).any()):
        raise UserError(
            "the prompt has free places before given ones, and this model goes on from given tokens only: give a "
            "prompt without [MASK]"
        )
