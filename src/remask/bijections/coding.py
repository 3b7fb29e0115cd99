r"""Text ⇄ noise, in fixed batches: what `samplers.bijection` does to one batch, for any number of rows of a model.

Everything here holds for every model of masking noise, one with a standard transformer included: the bijection between
text and noise is one of the *sampler*, and needs no network that can be inverted.

Shape letters: N rows, L length, B rows of a batch, M places at which logits are wanted, V vocabulary.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.bijections.rows import TokenRows
from remask.model import Model
from remask.processes import Masking
from remask.randomness import keyed_generator
from remask.samplers.bijection import Bijection


@dataclass(frozen=True, kw_only=True, eq=False)
class Coded:
    """Rows and their noise, on the CPU.

    Attributes:
        ids: the tokens [N L].
        noise: u in [0, 1), float64; 0 where a token is not free [N L].
        within: w in [0, 1), where u lies within its token's interval, float64 [N L].
        nats: −log P of each free token under the sampler, 0 elsewhere [N L].
    """

    ids: Int[Tensor, "N L"]
    noise: Float[Tensor, "N L"]
    within: Float[Tensor, "N L"]
    nats: Float[Tensor, "N L"]


@dataclass(frozen=True, kw_only=True)
class Unpadded:
    """A model as a sampler sees it, with padding hidden from the network by segment 0.

    A row is one document, as it is for `remask sample`: noise alone says where a document ends.

    Attributes:
        model: of masking noise.
        valid: places that are no padding [B L].
    """

    model: Model[Masking]
    valid: Bool[Tensor, "B L"]

    @property
    def process(self) -> Masking:
        """The noise that sampling undoes."""
        return self.model.process

    def logits(
        self, z: Int[Tensor, "B L"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "M V"]:
        """Leave-one-out logits at the true places of `positions`."""
        return self.model.network(z, t, segments=self.valid.long(), positions=positions)


@dataclass(frozen=True, kw_only=True)
class Coder:
    """The bijection between a model's texts and noise.

    Attributes:
        model: of masking noise, in evaluation mode.
        bijection: that of its sampler, for rows without padding.
    """

    model: Model[Any]
    bijection: Bijection

    def encode(self, rows: TokenRows, *, within: Float[Tensor, "N L"]) -> Coded:
        """The noise of each row's free tokens.

        Args:
            rows: texts.
            within: w, the place of u within its token's interval, float64 in [0, 1).
        """
        parts = []
        for batch in rows.batches:
            ids, free = rows.ids[batch].to(self.model.device), rows.free[batch].to(self.model.device)
            found = self._bijection(rows, batch).encode(ids, free, within=self._placed(within[batch]))
            parts.append((found.noise.cpu(), found.nats.cpu()))
        noise, nats = (torch.cat(column) for column in zip(*parts, strict=True))
        return Coded(ids=rows.ids, noise=noise, within=within, nats=nats)

    def decode(self, rows: TokenRows, noise: Float[Tensor, "N L"]) -> Coded:
        """The tokens that noise stands for, in batches of the same shapes as `encode`.

        Args:
            rows: says which places are free, and gives the tokens of all others; free tokens are not looked at.
            noise: u, float64 in [0, 1).
        """
        parts = []
        for batch in rows.batches:
            prompt = rows.prompt(batch, device=self.model.device)
            found = self._bijection(rows, batch).decode(self._placed(noise[batch]), prompt)
            parts.append((found.ids.cpu(), found.within.cpu(), found.nats.cpu()))
        ids, within, nats = (torch.cat(column) for column in zip(*parts, strict=True))
        return Coded(ids=ids, noise=noise, within=within, nats=nats)

    def nats(self, rows: TokenRows) -> Float[Tensor, "N L"]:
        """−log P of each free token under the sampler, given the tokens that are not free; 0 elsewhere."""
        device = self.model.device
        return torch.cat(
            [
                self._bijection(rows, batch).nats(rows.ids[batch].to(device), rows.free[batch].to(device)).cpu()
                for batch in rows.batches
            ]
        )

    def _bijection(self, rows: TokenRows, batch: slice) -> Bijection:
        seen = Unpadded(model=self.model, valid=rows.valid[batch].to(self.model.device))
        return replace(self.bijection, model=seen)

    def _placed(self, noise: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        """Noise where the network is; MPS has no float64, and the bijection computes there on the CPU."""
        return noise if self.model.device.type == "mps" else noise.to(self.model.device)


def draw_noise(rows: TokenRows, seed: int, purpose: str) -> Float[Tensor, "N L"]:
    """Uniform draws in [0, 1), float64, one a token; made on the CPU, so that they are the same for every device."""
    generator = keyed_generator(seed, "bijection", purpose)
    return torch.rand(rows.ids.shape, generator=generator, dtype=torch.float64)
