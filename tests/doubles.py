"""Stand-ins for networks and models at toy size, whose answers are known.

Letters: B rows, L length, V ids, M wanted positions.
"""

import numpy as np
import torch

from exact import SCHEDULES, Joint, Noise, posteriors
from remask.data.batch import Batch
from remask.processes import CategoricalProcess, Hybrid, Masking, Uniform
from remask.schedules import Cosine, Linear, LogLinear, Polynomial

CURVES = {"linear": Linear(), "cosine": Cosine(), "polynomial": Polynomial(2.0), "log_linear": LogLinear(0.1)}
KINDS = ["masking", "uniform", "hybrid"]
ALL_NOISES = [(kind, schedule) for kind in KINDS for schedule in CURVES]
UNIFORM_SHARE = 0.3


def make_process(kind: str, schedule: str, *, vocab_size: int = 4, mask_id: int = 1) -> CategoricalProcess:
    """The code under test."""
    common = {"schedule": CURVES[schedule], "vocab_size": vocab_size, "mask_id": mask_id}
    match kind:
        case "masking":
            return Masking(**common)
        case "uniform":
            return Uniform(**common)
        case _:
            return Hybrid(**common, uniform_share=UNIFORM_SHARE)


def make_noise(kind: str, schedule: str, *, vocab_size: int = 4, mask_id: int = 1) -> Noise:
    """The same noise from its definition."""
    return Noise(kind, SCHEDULES[schedule], vocab_size, mask_id, UNIFORM_SHARE if kind == "hybrid" else 0.0)


class Double:
    """Serves as a network and as a sampler's model; subclasses say what it predicts [B L V]."""

    def __init__(self, process: CategoricalProcess) -> None:
        self.process = process
        self.calls = 0

    @property
    def mask_id(self) -> int:
        return self.process.mask_id

    def predict(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Logits everywhere [B L V]."""
        raise NotImplementedError

    def __call__(self, z, t, *, segments, positions):
        del segments
        return self.logits(z, t, positions=positions)

    def logits(self, z, t, *, positions):
        self.calls += 1
        return self.predict(z, t)[positions]

    def probabilities(self, z: np.ndarray, t: float) -> np.ndarray:
        """Leave-one-out probabilities over clean tokens, for the references [B L V]."""
        logits = self.predict(torch.from_numpy(z), torch.full((len(z),), t, dtype=torch.float64))
        return self.process.log_clean(logits).exp().numpy()


class Posterior(Double):
    """The true posterior of a joint distribution, by enumeration: leave-one-out, or given all of z."""

    def __init__(self, process: CategoricalProcess, noise: Noise, joint: Joint, *, leave_out: bool = True) -> None:
        super().__init__(process)
        self.noise, self.joint, self.leave_out = noise, joint, leave_out

    def predict(self, z, t):
        matrix = self.noise.matrix(t.numpy())
        p = posteriors(self.joint, matrix, z.numpy(), leave_out=self.leave_out)
        return torch.from_numpy(p).log()


class Table(Double):
    """A wrong network: logits are fixed random functions of every token of z and of t."""

    def __init__(self, process: CategoricalProcess, length: int, *, seed: int, scale: float = 1.0) -> None:
        super().__init__(process)
        generator = torch.Generator().manual_seed(seed)
        v = process.vocab_size
        self.effect = scale * torch.randn(length, length, v, v, generator=generator, dtype=torch.float64)
        self.drift = scale * torch.randn(length, v, generator=generator, dtype=torch.float64)

    def predict(self, z, t):
        length = z.shape[1]
        seen = sum(self.effect[j, :, z[:, j]].transpose(0, 1) for j in range(length))
        return seen + t[:, None, None] * self.drift


class Constant(Double):
    """Every token is as likely as every other: logits zero everywhere, the mask's included."""

    def predict(self, z, t):
        del t
        return torch.zeros(*z.shape, self.process.vocab_size, dtype=torch.float64)


class LeftToRight(Double):
    """Logits at i are a fixed random function of the tokens before i."""

    def __init__(self, process: CategoricalProcess, *, seed: int) -> None:
        super().__init__(process)
        self.seed = seed

    def predict(self, z, t):
        del t
        logits = torch.empty(*z.shape, self.process.vocab_size, dtype=torch.float64)
        for b, row in enumerate(z.tolist()):
            for i in range(len(row)):
                key = hash((self.seed, *row[:i])) % 2**31
                logits[b, i] = 1.5 * torch.randn(
                    self.process.vocab_size, generator=torch.Generator().manual_seed(key), dtype=torch.float64
                )
        return logits


def full_batch(ids, *, rows=None, global_size: int | None = None) -> Batch:
    """Rows of one document each, without padding; every token counts and stands for one byte."""
    ids = torch.as_tensor(ids)
    count = len(ids)
    return Batch(
        ids=ids,
        segments=torch.ones_like(ids),
        targets=torch.ones_like(ids, dtype=torch.bool),
        byte_lengths=torch.ones_like(ids),
        rows=torch.arange(count) if rows is None else torch.as_tensor(rows),
        global_size=count if global_size is None else global_size,
    )
