"""Alarms: what the watch over a training says, as soon as it is so, and what is usually done about it.

An alarm names the step and the term, parameter or layer that shows it. Its kind is the key of the recipe's `health`
section that says what happens then.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from remask.health.evidence import cause_and_remedy

Kind = Literal["non_finite", "explosion", "dead", "trivial", "collapse", "logit_gap", "inversion"]

Terms = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """Something that is wrong with a training.

    Attributes:
        kind: the key of the recipe's `health` section.
        name: the failure in two or three words; the same failure always has the same name.
        step: the optimiser step at which it was seen, from 1.
        evidence: the figures, with the term, parameter or layer they belong to.
        cause: what usually causes it.
        remedy: what to try.
        repeated: whether the step before raised it too: to be acted on again, but not worth another line.
    """

    kind: Kind
    name: str
    step: int
    evidence: str
    cause: str
    remedy: str
    repeated: bool = False

    def __str__(self) -> str:
        return f"step {self.step}: {self.name}: {self.evidence}. Usual cause: {self.cause}. Try: {self.remedy}"

    def to_json(self) -> dict[str, Any]:
        """The line of metrics.jsonl."""
        return {
            "kind": "alarm",
            "alarm": self.kind,
            "step": self.step,
            "name": self.name,
            "evidence": self.evidence,
            "cause": self.cause,
            "remedy": self.remedy,
        }


def non_finite_loss(*, step: int, loss: float, terms: Terms, where: str, half: bool) -> Alarm:
    """The loss is NaN or infinite.

    Args:
        step: when.
        loss: nats a target token.
        terms: of the loss.
        where: the first layer or weight that is not finite, in words.
        half: whether weights are held in float16.
    """
    broken = [f"{name} = {value}" for name, value in terms.items() if not math.isfinite(value)]
    cause, remedy = _of_overflow(half)
    return Alarm(
        kind="non_finite",
        name="non-finite loss",
        step=step,
        evidence=f"the loss is not finite (term: {', '.join(broken) or f'loss = {loss}'}); {where}",
        cause=cause,
        remedy=remedy,
    )


def non_finite_weights(*, step: int, parameters: Sequence[str], half: bool) -> Alarm:
    """Weights are NaN or infinite when a checkpoint of them is due; arguments as those of `non_finite_loss`."""
    cause, remedy = _of_overflow(half)
    return Alarm(
        kind="non_finite",
        name="non-finite weights",
        step=step,
        evidence=f"weights that are not finite, of which no checkpoint is kept (parameter: {listed(parameters)})",
        cause=cause,
        remedy=remedy,
    )


def non_finite_gradient(*, step: int, norm: float, parameters: Sequence[str], half: bool) -> Alarm:
    """The gradient is NaN or infinite though the loss is finite; arguments as those of `non_finite_loss`.

    Finite numbers whose squares overflow make an infinite norm too: then no parameter is to blame.
    """
    which = f"parameter: {listed(parameters)}" if parameters else "parameter: none alone, their squares overflow"
    cause, remedy = _of_overflow(half)
    return Alarm(
        kind="non_finite",
        name="non-finite gradient",
        step=step,
        evidence=f"the gradient is not finite though the loss is ({which}; norm {norm})",
        cause=cause if half else "the square root or logarithm of zero, a division by zero, or overflow",
        remedy=remedy,
    )


def _of_overflow(half: bool) -> tuple[str, str]:
    if half:
        return (
            "weights in float16, where AdamW's eps of 1e-8 and small squared gradients are 0",
            "weights in float32, with training.precision=fp16 for the arithmetic (it scales the loss)",
        )
    return (
        "a learning rate that is too high, or arithmetic that overflows",
        "a learning rate ten times lower, training.precision=float32, or health.non_finite=roll_back",
    )


def exploding_gradient(*, step: int, norm: float, usual: float, shares: Mapping[str, float], modulated: bool) -> Alarm:
    """The gradient is far longer than usual.

    Args:
        step: when.
        norm: of the whole gradient.
        usual: its median over the last steps, or the first ones.
        shares: the parameters with most of the squared norm, largest first, and their share of it.
        modulated: whether one of them sets the scale of a layer from the time (AdaLN).
    """
    parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    size = f"gradient norm {norm:.3g}, {norm / usual:.3g} times what is usual ({usual:.3g})"
    causes = "a learning rate that is too high, too short a warm-up, or one odd batch"
    remedies = "half the training.learning_rate, a longer training.warmup_ratio, or health.explosion=skip"
    return Alarm(
        kind="explosion",
        name="exploding gradient",
        step=step,
        evidence=f"{size}; most of it in {parts}",
        cause=f"an AdaLN scale without bound, {causes}" if modulated else causes,
        remedy=f"network.time_conditioning=adaln_bounded, {remedies}" if modulated else remedies,
    )


def exploding_loss(*, step: int, loss: float, usual: float, terms: Terms) -> Alarm:
    """The loss is far above what it was; `usual` is its median over the last steps, or the first ones."""
    worst = max(terms, key=lambda name: abs(terms[name]), default="loss")
    return Alarm(
        kind="explosion",
        name="exploding loss",
        step=step,
        evidence=f"loss {loss:.4g} where {usual:.4g} is usual (largest term: {worst})",
        cause="a learning rate that is too high, or a batch of rare examples with large weights",
        remedy="half the training.learning_rate, a longer training.warmup_ratio, a larger training.batch_size",
    )


def no_targets(*, step: int) -> Alarm:
    """A step whose batch has no target token."""
    return Alarm(
        kind="dead",
        name="no target tokens",
        step=step,
        evidence="the batch has 0 target tokens, so there is nothing to learn from",
        cause="rows that are all prompt or padding",
        remedy="a larger data.length, or a look at the batch's targets",
    )


def no_gradient(*, step: int, count: int) -> Alarm:
    """The whole gradient was zero for some steps in a row."""
    return Alarm(
        kind="dead",
        name="no gradient",
        step=step,
        evidence=f"the gradient norm was exactly 0 at {count} steps in a row",
        cause="two zero-initialised layers in series, a loss that is detached from the weights, or frozen weights",
        remedy="zero initialisation for the last layer alone, and a look at which parameters require a gradient",
    )


def loss_at_zero(*, step: int, count: int) -> Alarm:
    """The loss was zero for some steps in a row."""
    return Alarm(
        kind="dead",
        name="loss at zero",
        step=step,
        evidence=f"the loss was exactly 0 at {count} steps in a row, which no text costs",
        cause="an error that is caught and passed over in the training step, a device mix-up, or no counted target",
        remedy="letting the exception through, and one forward pass by hand",
    )


def nothing_trained(*, step: int, count: int, scaled: bool) -> Alarm:
    """Loss or gradient were not finite for some steps in a row, so that no step changed a weight."""
    return Alarm(
        kind="dead",
        name="nothing is trained",
        step=step,
        evidence=f"no finite gradient at {count} steps in a row, each of them passed over",
        cause=(
            "activations that overflow in float16, so that no loss scale is low enough"
            if scaled
            else "weights that are no longer finite, so that every batch is skipped"
        ),
        remedy="training.precision=bf16 or float32" if scaled else "health.non_finite=roll_back",
    )


def silent_parameters(*, step: int, names: Sequence[str], count: int) -> Alarm:
    """Some parameters had no gradient in any of the first steps."""
    return Alarm(
        kind="dead",
        name="parameters without gradient",
        step=step,
        evidence=f"{listed(names)} had no gradient at any of the first {count} steps",
        cause="parameters that the loss does not depend on, or zero-initialised layers in series",
        remedy="removing or freezing them, or initialising one of the layers in series away from zero",
    )


def still_parameters(*, step: int, names: Sequence[str], since: int, all_of_them: bool) -> Alarm:
    """Some trained parameters hold the very same numbers as before."""
    return Alarm(
        kind="dead",
        name="parameters that never move",
        step=step,
        evidence=(
            f"{'all parameters' if all_of_them else listed(names)} hold the very numbers of step {since} at step {step}"
        ),
        cause="an optimiser that holds other tensors, a learning rate near 0, or half-precision weights that round "
        "every update away",
        remedy="comparing the optimiser's parameters with the network's, float32 weights, a higher learning rate",
    )


def at_trivial_value(*, step: int, figure: str, reference: str, floor: str) -> Alarm:
    """A figure is no better than a trivial predictor of the name `floor`; both in words, with their values."""
    cause, remedy = cause_and_remedy(floor)
    return Alarm(
        kind="trivial",
        name="loss at its trivial value",
        step=step,
        evidence=f"{figure} is no better than {reference}",
        cause=cause,
        remedy=remedy,
    )


def worse_than_uniform(*, step: int, figure: str, reference: str) -> Alarm:
    """Held-out text is predicted worse than by a uniform guess."""
    return Alarm(
        kind="trivial",
        name="worse than uniform",
        step=step,
        evidence=f"{figure} is worse than {reference}",
        cause="nothing is trained, too high a learning rate, or targets shifted against the input",
        remedy="the loss of the untrained network, which must be log V; then a learning rate ten times lower",
    )


def collapsed_sample(*, step: int, signs: Sequence[str]) -> Alarm:
    """A sample says one thing over and over; `signs` say how that shows."""
    return Alarm(
        kind="collapse",
        name="collapsed samples",
        step=step,
        evidence=f"the sample {', and '.join(signs)}",
        cause="too low a temperature or top_p, an unmasking order that repeats its surest token, or weights that broke",
        remedy="sampling.temperature=1, sampling.top_p=1, sampling.sampler=ancestral; then the loss of this step",
    )


def mask_logit_gap(*, step: int, signs: Sequence[str]) -> Alarm:
    """Proofreading's [MASK] logit is far from where it should be; `signs` say how."""
    return Alarm(
        kind="logit_gap",
        name="mask-logit gap",
        step=step,
        evidence=", and ".join(signs),
        cause="targets that give [MASK] no mass where tokens are masked, so that its logit falls without end and the "
        "bias follows",
        remedy="a larger objective.target_mask_prob, a lower training.learning_rate, or fewer training.steps",
    )


def inversion_lost(*, step: int, error: float, tolerance: float) -> Alarm:
    """Reversible blocks were undone to other activations than those that went in.

    Args:
        step: of the training line.
        error: the largest max|found − given| / rms(given) since the line before; nan where that is not finite.
        tolerance: what it may be.
    """
    missed = f"by {error:.3g} of their size" if math.isfinite(error) else "altogether: they are not finite"
    return Alarm(
        kind="inversion",
        name="inversion error",
        step=step,
        evidence=f"undoing the reversible blocks missed the activations {missed} (tolerance: {tolerance:g}), so the "
        "gradient is not that of the loss",
        cause="affine couplings that scale a stream far down and up again, or updates far larger than the streams they "
        "are added to, over many blocks",
        remedy="network.activations=stored, network.coupling=additive, fewer reversible blocks (network.block_types), "
        "or a lower training.learning_rate",
    )


def listed(names: Iterable[str], *, most: int = 3) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
