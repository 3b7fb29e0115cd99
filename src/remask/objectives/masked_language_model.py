r"""Masked language modelling at one rate of masking (BERT, arXiv:1810.04805, section 3.1), as a baseline.

Each target token is hidden with probability ρ, independently, and the loss is the mean cross-entropy of hidden tokens:

    E_z [ Σ_{i hidden} −log p(x_i | z without i) / ρ ] / L,        q(z_i = mask | x) = ρ.                      (1)

Every hidden position holds the mask: BERT's 10 % of random and 10 % of unchanged tokens serve fine-tuning on text
without masks and have no place in a denoiser.

Such a network is a denoiser that was shown one amount of noise only. It can be sampled from, and its likelihood bound
is a valid bound; both are poor where much is hidden, which is what the baseline is there to show.

Shape letters: B batch, L length.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from remask.data.batch import Batch
from remask.objectives.base import Loss, Network
from remask.objectives.likelihood import LikelihoodBound, masking_integrand
from remask.objectives.noisy import add_noise
from remask.processes import Masking
from remask.randomness import batch_uniform, widest_float


@dataclass(frozen=True, kw_only=True)
class MaskedLanguageModel:
    """Equation (1) as an objective.

    Attributes:
        process: masking noise.
        rate: ρ, the share of targets hidden, in (0, 1).
        t_min: where the diffusion term of the likelihood bound begins, in (0, 1); not used in training.

    Raises:
        ValueError: when `rate` is not in (0, 1), or the process's schedule never hides so much.
    """

    process: Masking
    rate: float = 0.15
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        most = 1.0 - float(self.process.schedule.alpha(torch.ones((), dtype=torch.float64, device="cpu")))
        if not 0.0 < self.rate < 1.0 or self.rate > most:
            raise ValueError(
                f"rate: {self.rate} was given; give a share of hidden tokens above 0, below 1 and at most {most:g}, "
                "where the schedule ends"
            )

    @property
    def exact(self) -> bool:
        """The likelihood of such a network is bounded, not known."""
        return False

    @property
    def bound(self) -> LikelihoodBound:
        """The likelihood bound of the same noise, over all of its times."""
        return LikelihoodBound(process=self.process, integrand=masking_integrand, t_min=self.t_min)

    def at(self, step: int) -> "MaskedLanguageModel":
        """Itself, at every step."""
        del step
        return self

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """−log p(x_i | z)/ρ at hidden targets, 0 at others, weight 1 at every target.

        So the mean over all targets, which the training loop takes, estimates the mean cross-entropy of a hidden
        token: the scale does not depend on the rate, and a constant predictor gets log n in mean. It estimates no
        likelihood, so the record has no `diffusion`.
        """
        device = generator.device
        kept = torch.full((len(batch),), 1.0 - self.rate, dtype=widest_float(device), device=device)
        noise = batch_uniform(generator, batch, batch.ids.shape[1])
        noisy = add_noise(self.process, batch, t=self.process.schedule.time(kept), noise=noise)
        log_p = self.process.log_clean(noisy.ask(network))
        x = batch.ids[noisy.positions]
        nats = noisy.spread(-log_p.gather(-1, x[:, None]).squeeze(-1) / self.rate)
        return Loss(nats, batch.targets.to(nats.dtype), {"hidden_tokens": nats.detach().sum()})

    def likelihood_terms(
        self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B L"]]:
        """The three terms of the masked-diffusion bound on this network, as `LikelihoodBound.likelihood_terms`."""
        return self.bound.likelihood_terms(network, batch, generator=generator, draws=draws)
