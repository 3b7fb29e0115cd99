r"""The likelihood bound's loss at each level of noise, which its average over all levels hides.

The diffusion term of the bound is an integral over time; here it is cut into T bins of equal width,

    ∫_{t0}^{1} E_q [ℓ_t] dt = (1/T) Σ_k v_k,      v_k = (1 − t0) · mean of E_q [ℓ_t] over bin k,

so v_k has the unit of the term itself, nats a token per unit of time, the unit being the whole of [t0, 1], and the
plain mean of the T values is the diffusion term. A model can be good on average and still be worse at high noise than
a predictor that reads nothing; so each value stands beside that of the uniform and of the unigram predictor, which go
through the same bound as networks with constant logits, on the same noise: like the model's, their values are exact in
expectation and not to the last digit. Every draw of noise is the one that the likelihood makes with as many draws a
row, so the mean of the values is that likelihood's diffusion term to rounding.

Shape letters: B batch, L length, V vocabulary, M positions, R rows, T levels, S draws a row (a multiple of T).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from remask.data.batch import Batch
from remask.evaluation.likelihood import ROWS_AT_ONCE, Judged, placed_parts, ratio
from remask.evaluation.measurement import Measurement
from remask.objectives.base import Network, Objective
from remask.objectives.block_diffusion import BlockDiffusion
from remask.objectives.concepts.bound import ConceptBound
from remask.objectives.likelihood import LikelihoodBound
from remask.objectives.noisy import WantedRows
from remask.objectives.prompt_dropout import unwrapped
from remask.randomness import batch_uniform, keyed_generator, widest_float
from remask.schedules import stratified

NAME = "nats_at_level"
TRIVIAL = ("uniform", "unigram")


@runtime_checkable
class Bounded(Protocol):
    """An objective whose likelihood is read off a bound."""

    @property
    def bound(self) -> LikelihoodBound:
        """The bound."""
        ...


@dataclass(frozen=True)
class ConstantNetwork:
    """A predictor that reads nothing, as a network: the same logits at every position.

    Attributes:
        logits: log p of each token up to a constant, float [V].
    """

    logits: Float[Tensor, "V"]

    def __call__(
        self,
        z: Int[Tensor, "B L"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
        **tables: Shaped[Tensor, "B ..."],
    ) -> Float[Tensor, "M V"]:
        """As `Network`."""
        del z, t, segments, tables
        return self.logits.expand(int(positions.sum()), -1)


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelSums:
    """What each judged row adds at each level.

    Attributes:
        edges: the times between which the levels lie, rising from t0 to 1 [T + 1].
        nats: v_k of each row, for each predictor: the model's under "" [R T].
        tokens: target tokens of each row [R].
    """

    edges: npt.NDArray[np.float64]
    nats: Mapping[str, npt.NDArray[np.float64]]
    tokens: npt.NDArray[np.float64]


def has_levels(objective: Objective) -> bool:
    """Whether a model's likelihood is an integral over levels of noise; an autoregressive one's is not."""
    bare = unwrapped(objective)
    return isinstance(bare, LikelihoodBound | Bounded)


def bound_of(objective: Objective) -> LikelihoodBound:
    """The bound that an objective's likelihood is read off, over all of its times.

    Raises:
        ValueError: it has none.
    """
    bare = unwrapped(objective)
    if not isinstance(bare, LikelihoodBound | Bounded):
        raise ValueError(f"a {type(bare).__name__} has no levels of noise")
    return replace(bare if isinstance(bare, LikelihoodBound) else bare.bound, t_max=1.0)


@torch.no_grad()
def row_levels(
    model: Judged,
    batches: Sequence[Batch],
    *,
    levels: int,
    draws: int,
    seed: int,
    unigram: npt.NDArray[np.float64],
    at_once: int = ROWS_AT_ONCE,
) -> LevelSums:
    """The loss of each row at each level, in evaluation mode (no dropout).

    Args:
        model: network and objective, whose likelihood is a bound.
        batches: the judged rows.
        levels: T, at least 1.
        draws: noise draws a row and level, stratified within the level.
        seed: with the batch's place, the key of all noise, as for `row_likelihoods`.
        unigram: −log p of each token under the unigram [V]; infinite for the mask.
        at_once: as for `row_likelihoods`.

    Raises:
        ValueError: the likelihood is exact.
    """
    was_training = model.network.training
    model.network.eval()
    network = cast(Network, model.network)
    logits = -torch.from_numpy(unigram).to(model.device, torch.float32)
    networks: dict[str, Network] = {
        "": WantedRows(network),
        "uniform": ConstantNetwork(torch.zeros_like(logits)),
        "unigram": ConstantNetwork(logits),
    }
    nats: dict[str, list[Tensor]] = {name: [] for name in networks}
    tokens = []
    for place, part in placed_parts(batches, at_once=at_once):
        here = part.to(model.device)
        for name, each in networks.items():
            generator = keyed_generator(seed, "evaluation", place, device=model.device)
            at_draws = _at_draws(model.objective, each, here, generator=generator, draws=levels * draws)
            nats[name].append(at_draws.unflatten(-1, (levels, draws)).mean(-1).cpu())
        tokens.append(here.targets.sum(-1).cpu())
    model.network.train(was_training)
    start = bound_of(model.objective).t_min
    return LevelSums(
        edges=start + (1.0 - start) * np.arange(levels + 1) / levels,
        nats={name: torch.cat(parts).double().numpy() for name, parts in nats.items()},
        tokens=torch.cat(tokens).double().numpy(),
    )


def _at_draws(
    objective: Objective, network: Network, batch: Batch, *, generator: torch.Generator, draws: int
) -> Float[Tensor, "B S"]:
    """The estimate of the diffusion term, summed over each row, at each of a row's stratified times."""
    bare, bound = unwrapped(objective), bound_of(objective)
    asked, rows = network, batch
    if isinstance(bare, BlockDiffusion):  # each block has times of its own
        asked, rows = bare.fold(network, batch), bare.blocks(batch)
    if isinstance(bare, ConceptBound):  # given tokens are read as concepts, and the targets are rows of their own
        bound, asked, rows = bare.apart(network, batch)
    times = bound.t_min + (1.0 - bound.t_min) * stratified(batch_uniform(generator, rows, draws))
    sums = []
    for t in times.unbind(-1):
        noise = bound.draw(generator, rows)
        nats = bound.diffusion(asked, rows, t=t, noise=noise).to(widest_float(batch.ids.device))
        bound.draw(generator, rows)  # the likelihood's reconstruction term draws here
        sums.append(nats.reshape(len(batch), -1).sum(-1))
    return torch.stack(sums, -1)


def level_measurements(sums: LevelSums, *, protocol: Mapping[str, Any]) -> list[Measurement]:
    """`nats_at_level` for each level, from little noise to all, beside the uniform and the unigram predictor.

    Args:
        sums: of the judged rows.
        protocol: split, rows, draws and seed; the level's times are added.

    Returns:
        one measurement a level, with `t` (the middle), `t_low` and `t_high` in its protocol.
    """
    figures = []
    for level, (low, high) in enumerate(zip(sums.edges[:-1], sums.edges[1:], strict=True)):
        value, error = ratio(sums.nats[""][:, level], sums.tokens)
        figures.append(
            Measurement(
                name=NAME,
                value=value,
                unit="nats/token per unit time",
                n=len(sums.tokens),
                stderr=error,
                trivial={name: ratio(sums.nats[name][:, level], sums.tokens)[0] for name in TRIVIAL},
                protocol={**protocol, "t": _short((low + high) / 2), "t_low": _short(low), "t_high": _short(high)},
            )
        )
    return figures


def skill(measurement: Measurement) -> float:
    """1 − value/unigram: 1 for a perfect predictor, 0 for the unigram, negative for what is worse than it."""
    return 1.0 - measurement.value / measurement.trivial["unigram"]


def level_warnings(measurements: Sequence[Measurement]) -> list[str]:
    """A sentence for each level at which the model is no better than the unigram."""
    return [
        f"NO BETTER THAN THE UNIGRAM at t = {figure.protocol['t_low']:g} to {figure.protocol['t_high']:g}: "
        f"{figure.value:.3f} nats a token against {figure.trivial['unigram']:.3f}. An average over levels hides that."
        for figure in measurements
        if not figure.value < figure.trivial["unigram"]
    ]


def _short(time: float) -> float:
    return round(float(time), 6)
