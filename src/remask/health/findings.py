"""Detectors: each looks for one kind of failure in a run's evidence and gives none or one finding."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, pvariance

from remask.health.evidence import BEATS, EARLY_STEPS, Evidence, Record, cause_and_remedy, number
from remask.health.judging import Level, is_worse_than_uniform, judge

_HELD_OUT = "held-out text"
_SKILL_LINES = 10  # training lines whose skills are averaged: single ones are noisy
LEAST_SHARE, LEAST_RANK = 0.01, 2.0
"""Below these, concept vectors have collapsed."""
_NEAR_ZERO = 1e-3  # bits/byte or nats/token that no text has


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something noticed; the run is at least as bad as `level`. The verdict's sentence says `told`, else the name."""

    level: Level
    name: str
    evidence: str
    cause: str
    remedy: str
    told: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.evidence}. Usual cause: {self.cause}. Try: {self.remedy}."


def _non_finite(evidence: Evidence) -> list[Finding]:
    losses = [step for step, value in (*evidence.losses, *evidence.validations) if math.isnan(value)]
    gradients = [step for step, value in evidence.gradients if math.isnan(value)]
    # Loss scaling for half precision overflows now and then by design: only many, or the last, say something.
    last = bool(gradients) and gradients[-1] == evidence.gradients[-1][0]
    if losses:
        said = f"the loss was not finite at step {min(losses)}"
    elif evidence.unmeasured:
        said = "the likelihood that was last evaluated is not finite"
    elif last or len(gradients) > len(evidence.gradients) / 10:
        said = f"the gradient norm was not finite at step {min(gradients)}"
    else:
        return []
    return [
        Finding(
            level="broken",
            name="non-finite numbers",
            evidence=said,
            cause="too high a learning rate, half precision without loss scaling, or the logarithm of 0",
            remedy="a learning rate ten times lower, training.precision=float32, a lower training.clip",
        )
    ]


def _loss_at_zero(evidence: Evidence) -> list[Finding]:
    if evidence.figure is not None and not evidence.figure.is_likelihood:
        return []  # a text that is told can cost nothing; a loss of exactly zero raises an alarm in training
    if evidence.answers_right:
        return []  # what a question decides costs nothing, once it is known; drawn answers have seen no targets
    values = [loss for _, loss in evidence.losses[-1:]] + ([evidence.figure.value] if evidence.figure else [])
    if not any(value < _NEAR_ZERO for value in values):
        return []
    return [
        Finding(
            level="broken",
            name="loss at zero",
            evidence=f"{min(values):.4f} is less than any text costs",
            cause="no target is counted, a device mix-up, or the network sees the tokens it predicts",
            remedy="counting the targets of one batch; changing one target must leave its logits alone; where a "
            "question decides its answer, remask evaluate with a task that draws answers",
        )
    ]


def _no_gradient(evidence: Evidence) -> list[Finding]:
    if len(evidence.gradients) < 2 or any(norm != 0 for _, norm in evidence.gradients):
        return []
    return [
        Finding(
            level="broken",
            name="no gradient",
            evidence="the gradient norm was 0 at every step",
            cause="the loss is detached from the parameters, all of them are frozen, or no target is counted",
            remedy="one backward pass by hand and a look at which parameters have a gradient",
        )
    ]


def _unmoved(evidence: Evidence) -> list[Finding]:
    losses = [loss for _, loss in evidence.losses if not math.isnan(loss)]
    still = _is_constant(losses) or (evidence.comparable and not evidence.is_early and _is_flat(losses))
    if evidence.beats_unigrams or not still:
        return []
    # At a unigram's level the loss has moved before the first record; that is `loss at its trivial value`.
    uniform = evidence.uniform_nats
    if uniform is not None and fmean(losses) < uniform * 0.9:
        return []
    return [
        Finding(
            level="broken",
            name="loss has not moved",
            evidence=f"{losses[0]:.4f} nats/token at first and {losses[-1]:.4f} at step {evidence.last_step}",
            cause="a learning rate near 0, frozen parameters, or an optimiser that holds others",
            remedy="comparing all parameters before and after a step, then ten times the learning rate",
        )
    ]


def _is_constant(losses: Sequence[float]) -> bool:
    return len(losses) >= 3 and max(losses) - min(losses) < 1e-6


def _is_flat(losses: Sequence[float]) -> bool:
    """Whether the first and the last fifth differ by less than 0.5 % or two standard errors."""
    fifth = len(losses) // 5
    if fifth < 2:
        return False
    first, last = losses[:fifth], losses[-fifth:]
    error = math.sqrt((pvariance(first) + pvariance(last)) / (fifth - 1))
    return abs(fmean(first) - fmean(last)) < max(0.005 * fmean(first), 2 * error)


def _diverged(evidence: Evidence) -> list[Finding]:
    losses = [loss for _, loss in evidence.losses if not math.isnan(loss) and evidence.comparable]
    size = max(3, len(losses) // 10)
    windows = [median(losses[i : i + size]) for i in range(0, len(losses) - size + 1)]
    if len(losses) < 2 * size or windows[-1] < max(1.5 * min(windows), min(windows) + 0.1):
        return []
    return [
        Finding(
            level="broken" if windows[-1] >= windows[0] else "weak",
            name="loss has diverged",
            evidence=f"it rose from {min(windows):.2f} to {windows[-1]:.2f} nats/token",
            cause="too high a learning rate or too short a warm-up",
            remedy="half the learning rate, twice training.warmup_ratio, from a checkpoint before the rise",
        )
    ]


def _by_figure(evidence: Evidence) -> list[Finding]:
    """The finding that goes with the judged figure: worse than uniform, or at the trivial value."""
    figure = evidence.figure
    if figure is None:
        return []
    level, sentence = judge(evidence)
    clause = sentence.partition(": ")[2]
    if "uniform" in figure.trivial and is_worse_than_uniform(figure):
        cause = "too high a learning rate, targets shifted against the input, or judging with another tokenizer"
        remedy = "a learning rate ten times lower, and the loss of the untrained network, which must be log V"
        return [Finding(level=level, name="worse than uniform", evidence=clause, cause=cause, remedy=remedy)]
    floor = figure.floor()
    if level != "trivial" or floor is None:
        return []
    cause, remedy = cause_and_remedy(floor)
    return [Finding(level=level, name="loss at its trivial value", evidence=clause, cause=cause, remedy=remedy)]


SAID_BY_FIGURE = ("worse than uniform", "loss at its trivial value")


def _too_few_steps(evidence: Evidence) -> list[Finding]:
    if not evidence.is_early or (evidence.figure and judge(evidence)[0] == "learns"):
        return []
    if evidence.last_step >= EARLY_STEPS:
        shown = f"the learning rate was still rising at step {evidence.last_step}"
    else:
        shown = f"the last recorded training step is {evidence.last_step}"
    return [
        Finding(
            level="learns",
            name="too few steps to tell",
            evidence=shown,
            cause="a trial run, or one that was stopped early",
            remedy=f"training on, past {EARLY_STEPS} steps and past the warm-up",
        )
    ]


def _never_validated(evidence: Evidence) -> list[Finding]:
    if evidence.figure is None or evidence.figure.source != "train":
        return []
    return [
        Finding(
            level="weak",
            name="never validated",
            evidence="only the training loss is known, which memorising lowers too",
            cause="the run ended before training.evaluate_every steps",
            remedy="remask evaluate on the run, or a smaller training.evaluate_every",
        )
    ]


def _overfitted(evidence: Evidence) -> list[Finding]:
    finite = [(step, value) for step, value in evidence.validations if not math.isnan(value)]
    if len(finite) < 3 or not evidence.comparable:
        return []
    step, best = min(finite, key=lambda pair: pair[1])
    later = [value for at, value in finite if at > step]
    before = [loss for at, loss in evidence.losses if at <= step][-5:]
    after = [loss for at, loss in evidence.losses if at > step][-5:]
    if len(later) < 2 or min(later[-2:]) < best * (1 + BEATS) or not before or not after:
        return []
    if not fmean(after) < fmean(before):
        return []
    return [
        Finding(
            level="learns",
            name="validation rises while training falls",
            evidence=f"best {best:.2f} at step {step}, {later[-1]:.2f} at last, as the training loss fell",
            cause="overfitting: more parameters or passes over the text than the text supports",
            remedy="fewer steps, more text, network.dropout, or more training.weight_decay",
        )
    ]


def _collapsed_concepts(evidence: Evidence) -> list[Finding]:
    """Concept vectors that hardly depend on the text, or all lie in one direction."""
    rank, share = (evidence.concepts.get(key, math.nan) for key in ("effective_rank", "input_share"))
    if evidence.is_early or not (rank < LEAST_RANK or share < LEAST_SHARE):
        return []
    return [
        Finding(
            level="weak",
            name="collapsed concepts",
            evidence=f"{share:.2%} of the concepts' mean square depends on the text, with an effective rank of "
            f"{rank:.1f}, where constant slots have 0 of both",
            cause="a decoder that does without its concepts, or a diversity term that constant slots satisfy",
            remedy="remask evaluate --task concepts (the shuffle gap tells whether they are read), longer training, or "
            "more concepts",
        )
    ]


def _without_skill(evidence: Evidence) -> list[Finding]:
    """Vectors denoised no better than by a linear filter, in some range of noise: a mean over all would hide it."""
    lines = evidence.skills[-_SKILL_LINES:]
    if evidence.is_early or not lines or evidence.levels:  # which say it better, of held-out text
        return []
    ranges = sorted({name for line in lines for name in line})
    means = {name: fmean(line[name] for line in lines if name in line) for name in ranges}
    bad = {name: value for name, value in means.items() if not value > 0}
    if not bad:
        return []
    worst = min(bad, key=bad.__getitem__)
    return [
        Finding(
            level="trivial" if len(bad) == len(means) else "weak",
            name="no skill over a linear filter",
            evidence=f"skill {bad[worst]:.3f} at noise {worst} of {ranges[0]} (cleanest) to {ranges[-1]}, where a "
            f"linear filter has 0; {len(bad)} of {len(means)} ranges are no better than it",
            cause="too little training, or times that are seldom drawn or weigh little",
            remedy="longer training, objective.weighting=min_snr, or objective.time_exponent below 1 for noisy times",
            told=f"no skill over a linear filter ({bad[worst]:.3g} at noise {worst}, where it has 0)",
        )
    ]


def _collapsed(evidence: Evidence) -> list[Finding]:
    signs = _collapse_signs(evidence.quality)
    if evidence.sample is not None and _is_repetitive(evidence.sample):
        signs.append("the last sample repeats itself")
    if not signs:
        return []
    return [
        Finding(
            level="weak",
            name="collapsed samples",
            evidence=", ".join(signs),
            cause="too low a temperature or top_p, too few sampling steps, or a network that has not learned",
            remedy="sampling.temperature=1, sampling.top_p=1, more sampling.steps; then longer training",
        )
    ]


def _collapse_signs(quality: Mapping[str, Record]) -> list[str]:
    signs = []
    entropy, usual = _with_reference(quality, "entropy", otherwise=2.0)
    if entropy < 0.5 * usual:
        signs.append(f"token entropy {entropy:.2f} nats where {_HELD_OUT} has {usual:.2f}")
    repeated, usual = _with_reference(quality, "repetition", otherwise=0.5)
    if repeated > (1 + usual) / 2:
        signs.append(f"{repeated:.0%} of 4-grams repeated where {_HELD_OUT} has {usual:.0%}")
    distinct, usual = _with_reference(quality, "distinct_samples", otherwise=1.0)
    if distinct < 0.5 * usual:
        signs.append(f"only {distinct:.0%} of the samples differ")
    distinct, usual = _with_reference(quality, "distinct_over_questions", otherwise=1.0)
    if distinct < 0.5 * usual:
        signs.append(f"only {distinct:.0%} of the texts drawn to unlike questions from one noise differ")
    zeros, usual = _with_reference(quality, "id_0_share", otherwise=0.0)
    if zeros > (1 + usual) / 2:
        signs.append(f"{zeros:.0%} of the tokens are id 0 where {_HELD_OUT} has {usual:.0%}")
    return signs


def _with_reference(quality: Mapping[str, Record], name: str, *, otherwise: float) -> tuple[float, float]:
    """A figure (nan where it is missing, which compares as neither) and the same of held-out text."""
    record = quality.get(name, {})
    usual = number((record.get("trivial") or {}).get(_HELD_OUT))
    return number(record.get("value")), otherwise if math.isnan(usual) else usual


def _is_repetitive(text: str) -> bool:
    """Whether a text of some length has next to no different 4-grams of characters."""
    grams = [text[i : i + 4] for i in range(len(text) - 3)]
    return len(grams) >= 20 and len(set(grams)) < 0.2 * len(grams)


def _few_words(evidence: Evidence) -> list[Finding]:
    record = evidence.quality.get("word_share", {})
    share = number(record.get("value"))
    trigram = [number(v) for k, v in (record.get("trivial") or {}).items() if "3-gram" in k or "trigram" in k]
    if not any(share <= value for value in trigram):
        return []
    return [
        Finding(
            level="learns",
            name="no more words than a trigram",
            evidence=f"{share:.0%} of the samples' words are the corpus's, {max(trigram):.0%} of a trigram's",
            cause="too few sampling steps, so that tokens drawn together do not fit, or too little training",
            remedy="more sampling.steps, then longer training",
        )
    ]


def _copied(evidence: Evidence) -> list[Finding]:
    copied, usual = _with_reference(evidence.quality, "longest_copy", otherwise=math.nan)
    if not copied > 3 * usual:
        return []
    return [
        Finding(
            level="learns",
            name="copied text",
            evidence=f"{copied:.0f} tokens in a row stand in the training text, {usual:.0f} of {_HELD_OUT}",
            cause="memorising: too many passes over too little text",
            remedy="more text, fewer steps, or dropout; compare validation with training",
        )
    ]


def raised(evidence: Evidence) -> list[Finding]:
    """A finding for each alarm of the training that figures cannot show: the last of its name, and how many there were.

    An alarm that ended the run makes it what it says. One that did not is over unless figures show it still, but for
    parameters that stand still, the logit gap and blocks that could not be undone, which no figure shows.
    """
    found = []
    for name in dict.fromkeys(str(record.get("name")) for record in evidence.alarms):
        records = [record for record in evidence.alarms if record.get("name") == name]
        level = _level_of(records[-1])
        if level is not None:
            found.append(_as_finding(records, level))
    return found


def _as_finding(records: Sequence[Record], level: Level) -> Finding:
    last = records[-1]
    times = f" (the last of {len(records)} alarms)" if len(records) > 1 else ""
    return Finding(
        level=level,
        name=str(last.get("name")),
        evidence=f"at step {last.get('failed_step', last.get('step'))}{times}: {last.get('evidence')}",
        cause=str(last.get("cause")),
        remedy=str(last.get("remedy")),
    )


_ENDED_BY: Mapping[str, Level] = {
    "non_finite": "broken",
    "explosion": "broken",
    "dead": "broken",
    "trivial": "trivial",
    "collapse": "weak",
    "logit_gap": "weak",
    "inversion": "broken",
}
_LIVED_WITH: Mapping[str, Level] = {
    "non_finite": "learns",
    "explosion": "learns",
    "dead": "weak",
    "logit_gap": "weak",
    "inversion": "weak",
}


def _level_of(record: Record) -> Level | None:
    """What an alarm makes of its run; None where its figures say it better."""
    levels = _ENDED_BY if record.get("action") == "stop" else _LIVED_WITH
    return levels.get(str(record.get("alarm")))


DETECTORS: tuple[Callable[[Evidence], list[Finding]], ...] = (
    _non_finite,
    _loss_at_zero,
    _no_gradient,
    _unmoved,
    _diverged,
    _by_figure,
    _too_few_steps,
    _never_validated,
    _overfitted,
    _without_skill,
    _collapsed_concepts,
    _collapsed,
    _few_words,
    _copied,
)
