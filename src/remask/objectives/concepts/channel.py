"""What lies between encoder and decoder of an autoencoder of texts: concept vectors with the noise of one time.

Shape letters: B rows, C concepts, W features of a concept.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from remask.data.batch import Batch
from remask.gaussian import GaussianProcess
from remask.randomness import batch_normal


@dataclass(frozen=True, kw_only=True)
class LatentChannel:
    """q(z_{t0} | x) = N(α f(x), σ² I) of the concept vectors f(x), at one time t0.

    Attributes:
        process: the noise.
        time: t0, in (0, 1).
        concepts: C.
        width: W; the encoder's vectors have mean square 1.

    Raises:
        ValueError: when t0 lies outside (0, 1).
    """

    process: GaussianProcess
    time: float
    concepts: int
    width: int

    def __post_init__(self) -> None:
        if not 0.0 < self.time < 1.0:
            raise ValueError(f"time: {self.time} was given; the noise between encoder and decoder lies within (0, 1)")

    @property
    def capacity(self) -> float:
        """Nats a row that can pass at most: C·W · ½ log(1 + SNR_{t0}), of white vectors of mean square 1."""
        snr = float(self.process.snr(torch.tensor(self.time, dtype=torch.float64, device="cpu")))
        return 0.5 * self.concepts * self.width * math.log1p(snr)

    def draw(self, generator: torch.Generator, batch: Batch) -> Float[Tensor, "B C W"]:
        """Standard normal noise for the rows of a batch."""
        return batch_normal(generator, batch, self.concepts, self.width)

    def noisy(self, concepts: Any, noise: Float[Tensor, "B C W"]) -> Any:
        """The same `Concepts`, their vectors at t0."""
        vectors = concepts.vectors
        t = torch.full((len(vectors),), self.time, dtype=noise.dtype, device=vectors.device)
        return replace(concepts, vectors=self.process.corrupt(vectors, t, noise=noise.to(vectors.dtype)))
