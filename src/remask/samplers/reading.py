"""Rows that are read from left to right while they are drawn: what a sampler asks of a model that can read on.

Shape letters: B samples, L length, V vocabulary, P tokens read, K places that come next, M wanted positions.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.processes import Masking
from remask.samplers.base import Denoiser, Prompt


@runtime_checkable
class NextTokenModel(Protocol):
    """A model whose logits at position i depend on the tokens before i alone."""

    @property
    def mask_id(self) -> int:
        """The id that text never holds; it stands for what is not drawn yet."""
        ...

    def logits(
        self, z: Int[Tensor, "B L"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "M V"]:
        """Logits at the true places of `positions`, in row-major order."""
        ...


@runtime_checkable
class Reading(Protocol):
    """The first P tokens of B rows, read in lockstep."""

    def extend(self, tokens: Int[Tensor, "B K"]) -> None:
        """Reads the K tokens that come next; they will not change."""
        ...

    def logits(
        self, z: Int[Tensor, "B K"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B K"]
    ) -> Float[Tensor, "M V"]:
        """Logits at the true places of `positions` among the next K places, which hold `z`; reads nothing."""
        ...


@runtime_checkable
class Reader(Protocol):
    """Opens readings that compute no place twice."""

    @property
    def block_length(self) -> int:
        """Tokens that the network sees at once; later ones it does not see."""
        ...

    def begin(self, count: int, length: int, *, device: torch.device) -> Reading:
        """The start of `count` rows of at most `length` tokens."""
        ...


@runtime_checkable
class CachedModel(Protocol):
    """A model that may have a key-value cache."""

    @property
    def reader(self) -> Reader | None:
        """None where the network sees both sides, so that nothing it computed can be kept."""
        ...


def reader_of(model: object) -> Reader | None:
    """The model's reader, if it is one that has any."""
    return model.reader if isinstance(model, CachedModel) else None


@dataclass(kw_only=True)
class PrefixReading:
    """A reading without a cache, of a model that sees the tokens before a place alone: every call reads them again.

    Attributes:
        model: causal.
        tokens: read so far [B P].
    """

    model: NextTokenModel
    tokens: Int[Tensor, "B P"]

    def extend(self, tokens: Int[Tensor, "B K"]) -> None:
        """Reads on."""
        self.tokens = torch.cat([self.tokens, tokens], 1)

    def logits(
        self, z: Int[Tensor, "B K"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B K"]
    ) -> Float[Tensor, "M V"]:
        """Logits at `positions` of the next places, from one call over all tokens up to them."""
        before = torch.zeros_like(self.tokens, dtype=torch.bool)
        return self.model.logits(torch.cat([self.tokens, z], 1), t, positions=torch.cat([before, positions], 1))


@dataclass(kw_only=True)
class RowReading:
    """A reading of a denoiser that sees whole rows: what comes later is shown masked, but for the prompt's tokens.

    Such a row is as noisy as the masked share of its free places says; the network is told the time of that share,
    α_t = 1 − share, and not that of the block (semi-autoregressive sampling, LLaDA, arXiv:2502.09992, section 2.4).

    Attributes:
        model: a network and a masking process.
        prompt: given tokens, shown wherever they are [B L].
        row: the whole row [B L]; the first `read` tokens are final.
        read: P.
    """

    model: Denoiser
    prompt: Prompt
    row: Int[Tensor, "B L"]
    read: int = 0

    def extend(self, tokens: Int[Tensor, "B K"]) -> None:
        """Reads on."""
        self.row, self.read = self._with(tokens), self.read + tokens.shape[1]

    def logits(
        self, z: Int[Tensor, "B K"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B K"]
    ) -> Float[Tensor, "M V"]:
        """Logits at `positions` of the next places, from one call over the whole row."""
        wanted = torch.zeros_like(self.prompt.fixed)
        wanted[:, self.read : self.read + z.shape[1]] = positions
        return self.model.logits(self._with(z), self._row_time(t, z.shape[1]), positions=wanted)

    def _with(self, z: Int[Tensor, "B K"]) -> Int[Tensor, "B L"]:
        return torch.cat([self.row[:, : self.read], z, self.row[:, self.read + z.shape[1] :]], 1)

    def _row_time(self, t: Float[Tensor, "B"], width: int) -> Float[Tensor, "B"]:
        free = ~self.prompt.fixed
        here = free[:, self.read : self.read + width].sum(-1)
        later = free[:, self.read + width :].sum(-1)
        schedule = self.model.process.schedule
        hidden = (here * (1.0 - schedule.alpha(t)) + later) / free.sum(-1).clamp_min(1)
        return schedule.time(1.0 - hidden)


def row_reading(model: Denoiser, prompt: Prompt) -> RowReading:
    """The start of a reading of whole rows.

    Raises:
        ValueError: when the model's noise has no mask to show for what is not drawn yet.
    """
    if not isinstance(model.process, Masking):
        raise ValueError(
            f"a model of {type(model.process).__name__} noise that sees both sides was given; later blocks are shown "
            "masked, so its noise must be Masking. Draw whole rows from it instead"
        )
    row = prompt.over(torch.full_like(prompt.ids, model.process.mask_id))
    return RowReading(model=model, prompt=prompt, row=row)
