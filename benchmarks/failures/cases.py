"""The failures, each made on purpose, and mended."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from trial import Case, drawn, materials, trained, validation

from remask.data.batch import Batch
from remask.objectives.base import Loss, Objective
from remask.objectives.proofreading import Proofreading, mask_logit_bias

# ── 1. weights in float16 ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Wrapped:
    """An objective with something done to each call of it.

    Attributes:
        inner: the objective.
        call: (objective, network, batch, generator) → loss.
    """

    inner: Objective
    call: Callable[..., Loss]
    exact: bool = False

    def at(self, step: int) -> "Wrapped":
        """The inner one's."""
        return replace(self, inner=self.inner.at(step))

    def __call__(self, network: Any, batch: Batch, *, generator: torch.Generator) -> Loss:
        """What `call` makes of it."""
        return self.call(self.inner, network, batch, generator)

    def likelihood_terms(self, network: Any, batch: Batch, **options: Any) -> dict[str, Tensor]:
        """The inner one's."""
        return self.inner.likelihood_terms(network, batch, **options)


def in_float16(inner: Objective, network: Any, batch: Batch, generator: torch.Generator) -> Loss:
    """The forward pass in half precision."""
    with torch.autocast("cpu", torch.float16):
        return inner(network, batch, generator=generator)


IN_FLOAT16 = (
    *("training.steps=40", "training.optimizer=adamw", "training.learning_rate=3e-2", "training.warmup_ratio=0"),
    "training.batch_size=16",
)


def float16(folder: Path, *changes: str) -> Case:
    """AdamW keeps squared gradients in the weights' own precision, where those below 6e-8 are 0."""
    half, single = (materials(folder, "mdlm", *IN_FLOAT16, *changes) for _ in range(2))
    half.model.network.half()
    return Case(
        what="weights in float16, trained by AdamW without loss scaling",
        kinds=("non_finite",),
        failed=trained(half, objective=Wrapped(half.model.objective, in_float16)),
        mending="weights in float32, the same arithmetic in float16",
        mended=trained(single, objective=Wrapped(single.model.objective, in_float16)),
    )


def float16_thought(folder: Path, *changes: str) -> Case:
    """The same with a network that denoises thoughts: what turns NaN into 0 there goes on, and predicts zero."""
    keys = (*IN_FLOAT16, "data.source=arithmetic", "data.length=36", "data.max_documents=400", *changes)
    half, single = (materials(folder, "thought-arithmetic", *keys) for _ in range(2))
    half.model.network.half()
    runs = [
        trained(each, objective=Wrapped(each.model.objective, in_float16), trivial=each.trivial)
        for each in (half, single)
    ]
    return Case(
        what="a network of thoughts in float16, trained by AdamW without loss scaling",
        kinds=("non_finite",),
        failed=runs[0],
        mending="weights in float32, the same arithmetic in float16",
        mended=runs[1],
    )


# ── 2. a noise-prediction loss pinned at 1.0000 ────────────────────────────────────────────────────────────────


class Predictor(nn.Module):
    """Noisy vectors [B L D] and their noise level [B] to a guess at the noise, place by place.

    Args:
        width: D.
        zeroed: how many of the last layers begin at zero.
    """

    def __init__(self, width: int, *, zeroed: int) -> None:
        super().__init__()
        sizes = [(width + 1, 64), (64, 64), (64, width)]
        self.layers = nn.ModuleList(nn.Linear(before, after, bias=False) for before, after in sizes)
        generator = torch.Generator().manual_seed(1)
        for place, weight in enumerate(self.parameters()):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5, generator=generator)
            if place >= len(sizes) - zeroed:
                nn.init.zeros_(weight)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """The guess [B L D]."""
        x = torch.cat([z, t[:, None, None].expand(*z.shape[:2], 1)], -1)
        first, second, last = self.layers
        return last(second(functional.silu(first(x))))


@dataclass(frozen=True)
class NoisePrediction:
    """Mean squared error of the noise in z = √ā x + √(1 − ā) ε, ā = cos²(πt/2); guessing 0 costs 1.

    Attributes:
        table: a vector for each token [V D].
    """

    table: Tensor
    exact: bool = False

    def at(self, step: int) -> "NoisePrediction":
        """The same at each step."""
        del step
        return self

    def __call__(self, network: Any, batch: Batch, *, generator: torch.Generator) -> Loss:
        """The error of each place."""
        x = self.table[batch.ids]
        t = torch.rand(len(x), generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        angle = t[:, None, None] * math.pi / 2
        error = (network(angle.cos() * x + angle.sin() * noise, t) - noise).square().mean(-1)
        return Loss(error * batch.targets, batch.targets.float(), {"error": error.detach().sum()})

    def likelihood_terms(self, network: Any, batch: Batch, **options: Any) -> dict[str, Tensor]:
        """It has none."""
        raise NotImplementedError


def pinned(folder: Path, *changes: str) -> Case:
    """Each of two zero layers in series gets its gradient through the other one: it is 0 for ever."""
    given = materials(
        folder, "mdlm", "health.dead=report", "training.optimizer=adamw", "training.batch_size=64", *changes
    )
    table = torch.randn(given.text.tokenizer.vocab_size, 16, generator=torch.Generator().manual_seed(1))
    trials = [
        trained(
            given,
            objective=NoisePrediction(table),
            network=Predictor(16, zeroed=zeroed),
            trivial={"loss": {"guess of no noise": 1.0}},
        )
        for zeroed in (2, 1)
    ]
    return Case(
        what="the last two layers of a noise predictor start at zero",
        kinds=("dead", "trivial"),
        failed=trials[0],
        mending="the last layer alone starts at zero",
        mended=trials[1],
    )


# ── 3. a training step that fails in silence ───────────────────────────────────────────────────────────────────


def forgiving(inner: Objective, network: Any, batch: Batch, generator: torch.Generator) -> Loss:
    """As a loop that passes over bad batches: what fails costs nothing. Here all do, on the wrong device."""
    try:
        ids = batch.ids.to("meta")  # stands for a GPU that the weights are not on
        return inner(network, replace(batch, ids=ids), generator=generator)
    except RuntimeError:
        zero = torch.zeros(batch.ids.shape, requires_grad=True)
        return Loss(zero, batch.targets.float(), {"diffusion": torch.zeros(())})


def silent(folder: Path, *changes: str) -> Case:
    """The loss is 0.0000 from the first step on; held-out text stays where an untrained network has it.

    Its head is drawn with eight times the usual spread, which begins above the perplexity of a uniform guess.
    """
    failing, sound = (materials(folder, "mdlm", "health.dead=report", *changes) for _ in range(2))
    for given in (failing, sound):
        head = given.model.network.head
        assert isinstance(head, nn.Linear)
        nn.init.normal_(head.weight, std=0.16, generator=torch.Generator().manual_seed(1))
    failed = trained(failing, objective=Wrapped(failing.model.objective, forgiving))
    mended = trained(sound)
    for trial, given in ((failed, failing), (mended, sound)):
        trial.figures["perplexity"] = math.exp(validation(given)["nats_per_token"])
        trial.figures["perplexity_of_uniform"] = math.exp(given.trivial["nats_per_token"]["uniform"])
    return Case(
        what="batch and weights on different devices, and a loop that catches the exception",
        kinds=("dead", "trivial"),
        failed=failed,
        mending="the exception is let through, the batch moved",
        mended=mended,
    )


# ── 4. a decoder that says one thing for ever ──────────────────────────────────────────────────────────────────


def one_token(folder: Path, *changes: str) -> Case:
    """A network that knows frequencies alone, asked for its surest token at each place, gives the most frequent one."""
    given = materials(folder, "mdlm", "sampling.steps=32", *changes)
    trial = trained(given)
    failed, mended = (
        drawn(given, trial, "confidence", temperature=0.01),
        drawn(given, trial, "ancestral", temperature=1.0),
    )
    return Case(
        what="samples drawn at temperature 0.01, the surest token first",
        kinds=("collapse",),
        failed=failed,
        mending="sampling.sampler=ancestral sampling.temperature=1",
        mended=mended,
    )


# ── 5. AdaLN without bound ─────────────────────────────────────────────────────────────────────────────────────


def unbounded_scale(folder: Path, *changes: str) -> Case:
    """Shifts and scales that grow multiply from block to block, and the gradient with them."""
    keys = ("training.steps=60", "training.learning_rate=0.2", "training.clip=1e9", "training.warmup_ratio=0.2")
    keys += ("network.layers=4", "network.width=64", "data.length=64", "training.batch_size=16")
    keys += ("training.optimizer=adamw",)
    kinds = ("adaln_zero", "adaln_bounded")
    trials = [
        trained(materials(folder, "mdlm", *keys, f"network.time_conditioning={kind}", *changes)) for kind in kinds
    ]
    return Case(
        what="network.time_conditioning=adaln_zero at a high learning rate, the gradient not clipped",
        kinds=("explosion",),
        failed=trials[0],
        mending="network.time_conditioning=adaln_bounded",
        mended=trials[1],
    )


# ── 6. the mask-logit gap ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class HardTargets(Proofreading):
    """Proofreading whose masked positions give [MASK] no mass at all: the logit of [MASK] can only fall there."""

    def unmask_nats(self, log_q: Tensor, log_q_x: Tensor, gate: Tensor, t: Tensor) -> Tensor:
        """The unmask task with τ = 0 in its target; the bias is steered to τ all the same."""
        tau = self.target_mask_prob
        soft = super().unmask_nats(log_q, log_q_x, gate, t)
        at_mask = functional.softplus(-gate) - (functional.softplus(gate) - log_q_x)
        weight = soft / ((1.0 - tau) * (functional.softplus(gate) - log_q_x) + tau * functional.softplus(-gate))
        return soft - tau * weight.detach() * at_mask


def mask_gap(folder: Path, *changes: str) -> Case:
    """The bias follows a logit that falls without end."""
    keys = ("training.steps=300", "network.layers=1", "network.width=32", "training.batch_size=16")
    keys += ("training.optimizer=adamw", "training.learning_rate=1e-2", "training.decay=constant")
    hard, soft = (materials(folder, "proofread", *keys, *changes) for _ in range(2))
    trials = [trained(hard, objective=HardTargets(**vars(hard.model.objective))), trained(soft)]
    for trial, run in zip(trials, (hard, soft), strict=True):
        trial.figures["mask_logit_bias"] = float(mask_logit_bias(run.model.network).detach())
    return Case(
        what="proofreading whose target gives [MASK] no mass at masked positions",
        kinds=("logit_gap",),
        failed=trials[0],
        mending="a target with the mass objective.target_mask_prob on [MASK]",
        mended=trials[1],
    )


CASES: Mapping[str, Callable[..., Case]] = {
    "float16": float16,
    "float16_thought": float16_thought,
    "pinned": pinned,
    "silent": silent,
    "one_token": one_token,
    "unbounded_scale": unbounded_scale,
    "mask_gap": mask_gap,
}
