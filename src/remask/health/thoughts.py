"""Detectors of networks that denoise vectors: a loss at what predicting zero gets, no skill at some time, no question.

They look at the training loss beside the trivial values that the objective knows, and at the last thought evaluation.
"""

import math
from collections.abc import Callable
from statistics import fmean

from remask.evaluation.measurement import NEGLIGIBLE
from remask.health.evidence import SPOKEN, Evidence, Record, number
from remask.health.findings import Finding

LINES = 10
"""Training lines whose losses are averaged: single ones are noisy."""
AT_ZERO = 0.02
"""A loss that lies below what predicting zero gets by less than this share of it is that of who predicts zero."""
_NORMAL = 1.96
_SURE = 3.0
"""Standard errors by which a gain is one, of ten that are looked at."""
_ZERO, _FILTER = "zero", "linear filter"


def _above_the_filter(evidence: Evidence) -> list[Finding]:
    """A squared error that the best multiple of the noisy vector already gets, or even who says zero."""
    losses = [loss for _, loss in evidence.losses[-LINES:] if not math.isnan(loss)]
    floor = evidence.loss_trivial.get(_FILTER, math.nan)
    if evidence.is_early or not losses or fmean(losses) < floor or math.isnan(floor):
        return []
    loss, zero = fmean(losses), evidence.loss_trivial.get(_ZERO, math.nan)
    linear = f"{SPOKEN[_FILTER]} gets {floor:.2f}"
    if loss > (1 - AT_ZERO) * zero:
        name = "loss of who predicts zero"
        told = f"loss {loss:.2f} is what predicting zero gets ({zero:.2f}; {linear})"
    else:
        name = "loss above the linear filter"
        beside = "" if math.isnan(zero) else f", predicting zero {zero:.2f}"
        told = f"loss {loss:.2f} is no better than that of a linear filter ({linear}{beside})"
    return [
        Finding(
            level="trivial",
            name=name,
            evidence=f"{told}, over the last {len(losses)} training lines",
            cause="a network that cannot tell noise from text: no time, a latent that is too wide, or what it says is "
            "taken from logits of something else",
            remedy="objective.loss=cross_entropy on a narrow learned table (network.latent=learned), with "
            "network.time=shown",
            told=told,
        )
    ]


def _no_skill_at(evidence: Evidence) -> list[Finding]:
    """Ranges of time in which held-out vectors are denoised no better than by a linear filter."""
    found = [(record, number(record.get("value"))) for record in evidence.levels if record.get("name") == "skill"]
    bad = [(record, value) for record, value in found if not value > 0]
    if not bad:
        return []
    record, worst = min(bad, key=lambda pair: -math.inf if math.isnan(pair[1]) else pair[1])
    told = f"no skill over a linear filter ({worst:.3g} at t = {_range(record)}, where it has 0)"
    return [
        Finding(
            level="trivial" if len(bad) == len(found) else "weak",
            name="no skill over a linear filter",
            evidence=f"skill {worst:.3g} at t = {_range(record)}, where a linear filter has 0; {len(bad)} of "
            f"{len(found)} ranges of t are no better than it",
            cause="too little training, times that are seldom drawn or weigh little, or no time given to the network",
            remedy="longer training, objective.loss=cross_entropy, or objective.time_exponent below 1 for noisy times",
            told=told,
        )
    ]


def _only_rounding(evidence: Evidence) -> list[Finding]:
    """A network that names no more tokens than the vector nearest to its input does, at any time."""
    records = [record for record in evidence.levels if record.get("name") == "rounding_gain"]
    gains = [number(record.get("value")) for record in records]
    errors = [number(record.get("stderr")) for record in records]
    if not gains or any(gain > _SURE * (error or 0.0) for gain, error in zip(gains, errors, strict=True)):
        return []
    return [
        Finding(
            level="weak",
            name="nothing gained over rounding",
            evidence=f"in all {len(gains)} ranges of t no more tokens are named than by the vector nearest to the "
            f"noisy one (at best {max(gains):+.1%})",
            cause="a network that looks at each place alone, or a latent so wide that its vectors round to their "
            "tokens at nearly all times",
            remedy="a narrow learned table (network.latent=learned, network.latent_width=16), then longer training",
        )
    ]


def _unread_question(evidence: Evidence) -> list[Finding]:
    """A thought that is denoised as well behind another question."""
    record = evidence.quality.get("question_gap", {})
    gap, error = number(record.get("value")), number(record.get("stderr"))
    low = gap - _NORMAL * error
    if math.isnan(gap) or low > NEGLIGIBLE:
        return []
    shown = "" if math.isnan(error) else f" (95 % interval {low:.4f} to {gap + _NORMAL * error:.4f})"
    return [
        Finding(
            level="weak",
            name="question not read",
            evidence=f"another question in the place of the row's own costs {gap:.4f} nats a token{shown}",
            cause="a question that the network is not shown, or a thought that is read off its noisy vectors alone",
            remedy="network.question=shown, a narrower latent, objective.time_exponent below 1, longer training",
        )
    ]


def _range(record: Record) -> str:
    protocol = record.get("protocol") or {}
    return f"{number(protocol.get('t_low')):.2g} to {number(protocol.get('t_high')):.2g}"


THOUGHT_DETECTORS: tuple[Callable[[Evidence], list[Finding]], ...] = (
    _above_the_filter,
    _no_skill_at,
    _only_rounding,
    _unread_question,
)
