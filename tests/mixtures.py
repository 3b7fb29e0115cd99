"""Mixtures of Gaussians, whose noisy density and posterior mean are known: references for Gaussian diffusion.

Written from the definitions; nothing here imports remask. Letters: K components, D coordinates, N points.
"""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Mixture:
    """Σ_k w_k N(m_k, s_k² I) with weights [K], means [K D] and standard deviations [K], float64."""

    weights: torch.Tensor
    means: torch.Tensor
    spreads: torch.Tensor

    def mean(self) -> torch.Tensor:
        """[D]."""
        return self.weights @ self.means

    def covariance(self) -> torch.Tensor:
        """[D D]."""
        centred = self.means - self.mean()
        inner = (self.weights * self.spreads**2).sum() * torch.eye(self.means.shape[1], dtype=torch.float64)
        return inner + centred.T @ (self.weights[:, None] * centred)

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """log p of points [N D]."""
        return self.joint(x, 1.0, 0.0).logsumexp(-1)

    def joint(self, z: torch.Tensor, alpha, sigma) -> torch.Tensor:
        """log w_k N(z; α m_k, (α² s_k² + σ²) I) of points [N D] and components [N K]; α and σ may be [N 1]."""
        variance = alpha**2 * self.spreads**2 + sigma**2
        scaled = alpha[..., None] if isinstance(alpha, torch.Tensor) else alpha
        squares = (z[:, None] - scaled * self.means).square().sum(-1)
        width = self.means.shape[1]
        return self.weights.log() - 0.5 * squares / variance - 0.5 * width * (2 * math.pi * variance).log()

    def posterior_mean(self, z: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """E[x | z = α x + σ ε] of points [N D]; α, σ [N]."""
        a, s = alpha[:, None], sigma[:, None]
        chance = self.joint(z, a, s).softmax(-1)
        gain = a * self.spreads**2 / (a**2 * self.spreads**2 + s**2)
        within = self.means + gain[..., None] * (z[:, None] - a[..., None] * self.means)
        return (chance[..., None] * within).sum(1)

    def posterior_log_density(self, x: torch.Tensor, z: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
        """log p(x | z) of points [N D] by Bayes' rule."""
        noise = -0.5 * ((z - alpha * x) / sigma).square().sum(-1)
        noise = noise - 0.5 * x.shape[1] * math.log(2 * math.pi * sigma**2)
        return self.log_density(x) + noise - self.joint(z, alpha, sigma).logsumexp(-1)


def two_humps() -> Mixture:
    """An uneven mixture of two on a line."""
    values = ([0.3, 0.7], [[-1.2], [0.8]], [0.3, 0.5])
    return Mixture(*(torch.tensor(value, dtype=torch.float64) for value in values))


def three_clouds() -> Mixture:
    """An uneven mixture of three in the plane."""
    values = ([0.5, 0.2, 0.3], [[1.0, 0.5], [-1.5, 0.0], [0.2, -1.3]], [0.4, 0.2, 0.6])
    return Mixture(*(torch.tensor(value, dtype=torch.float64) for value in values))
