"""A batch with noise in it, and what a network says about the positions that noise hides.

Shape letters: B batch, L length, V vocabulary, M positions at which logits are wanted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from remask.data.batch import Batch
from remask.objectives.base import Network, scatter_positions
from remask.processes import CategoricalProcess


@dataclass(frozen=True, kw_only=True)
class NoisyBatch:
    """One draw of noise on the targets of a batch; every other token is left as it is.

    Attributes:
        batch: the clean rows.
        z: the noisy tokens, int64 [B L].
        t: one time a row, in [0, 1] [B].
        positions: targets that the noise leaves uncertain, bool [B L].
    """

    batch: Batch
    z: Int[Tensor, "B L"]
    t: Float[Tensor, "B"]
    positions: Bool[Tensor, "B L"]

    def ask(self, network: Network) -> Float[Tensor, "M V"]:
        """The network's logits at the uncertain positions."""
        return network(self.z, self.t, segments=self.batch.segments, positions=self.positions)

    def pairs(self) -> tuple[Int[Tensor, "M"], Int[Tensor, "M"], Float[Tensor, "M"]]:
        """Noisy token, clean token and time at each uncertain position, in the order of `ask`."""
        times = self.t[:, None].expand(self.z.shape)
        return self.z[self.positions], self.batch.ids[self.positions], times[self.positions]

    def spread(self, values: Float[Tensor, "M"]) -> Float[Tensor, "B L"]:
        """Values at the uncertain positions put back into their places; zero elsewhere."""
        return scatter_positions(values, self.positions)


def add_noise(
    process: CategoricalProcess, batch: Batch, *, t: Float[Tensor, "B"], noise: Float[Tensor, "B L"]
) -> NoisyBatch:
    """The batch at times `t`, by the process's quantile function at the uniform draws `noise` in [0, 1)."""
    z = torch.where(batch.targets, process.corrupt(batch.ids, t, noise=noise), batch.ids)
    return NoisyBatch(batch=batch, z=z, t=t, positions=batch.targets & process.active(z))


@dataclass(frozen=True)
class WantedRows:
    """A network that is run on the rows with a wanted position only; its answers are those of `network`.

    Near clean text masking noise leaves most rows whole, and a likelihood has nothing to ask about those. Not for
    training, where a batch's shape should not change from step to step.
    """

    network: Callable[..., Tensor]

    def __call__(
        self,
        z: Int[Tensor, "B L"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
        **tables: Shaped[Tensor, "B ..."],
    ) -> Float[Tensor, "M V"]:
        """As `Network`; `tables` are what else it reads of each row: a clean context, or concepts."""
        wanted = positions.any(-1)
        wanted[0] |= ~wanted.any()  # a network cannot be run on no row at all, and none wanted is a valid question
        here = {name: table[wanted] for name, table in tables.items()}
        return self.network(z[wanted], t[wanted], segments=segments[wanted], positions=positions[wanted], **here)
