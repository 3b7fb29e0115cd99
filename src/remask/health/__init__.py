"""What a run is worth, in words: its figures beside those of trivial predictors, and what looks wrong.

Pure functions of metric records and evaluation records (plain mappings, as the files of a run hold them).
A figure beats a trivial value only by more than 1 % of it and more than the figure's own standard error; both
are taken on the same rows, so their difference is surer than that.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from remask.health.evidence import Evidence, Record, gather
from remask.health.findings import DETECTORS, SAID_BY_FIGURE, Finding, raised
from remask.health.judging import HEADS, LEVELS, Level, judge, trivial_gap
from remask.health.thoughts import THOUGHT_DETECTORS

__all__ = ["Level", "Verdict", "trivial_gap", "verdict"]


@dataclass(frozen=True)
class Verdict:
    """A run's health.

    Attributes:
        level: `learns` (beats the byte bigram and the unigrams), `weak` (beats the unigrams only, or beats
            more but its samples have collapsed), `trivial` (does not beat the unigrams, or nothing shows
            that it does), `broken` (no figure of it means anything).
        sentence: one line, the judgement before the first colon, the figures after it.
        findings: everything noticed, worst first: name, evidence, usual cause, what to try.
    """

    level: Level
    sentence: str
    findings: tuple[str, ...]


def verdict(metrics: Iterable[Record], *, evaluations: Iterable[Record] = ()) -> Verdict:
    """Judges a run.

    The figure that is judged is the newest evaluation's bits per byte, else the last validation's, else the
    training loss; nats per token where bits per byte are missing.

    Args:
        metrics: the records of `metrics.jsonl`, oldest first.
        evaluations: the records of `evaluations.jsonl`, oldest first, taken with the run's present weights.

    Returns:
        level, sentence and findings; never raises for missing or non-finite values.
    """
    evidence = gather(list(metrics), list(evaluations))
    found = [finding for detect in (*DETECTORS, *THOUGHT_DETECTORS) for finding in detect(evidence)]
    shown = {finding.name for finding in found}
    found += [finding for finding in raised(evidence) if finding.name not in shown]
    found.sort(key=lambda finding: -LEVELS.index(finding.level))
    level, sentence = judge(evidence)
    return Verdict(*_combined(level, sentence, found, evidence), tuple(map(str, found)))


def _combined(level: Level, sentence: str, found: Sequence[Finding], evidence: Evidence) -> tuple[Level, str]:
    """The level that figure and findings agree on, and a sentence that leads with what decides it."""
    others = [finding for finding in found if finding.name not in SAID_BY_FIGURE]
    if others and LEVELS.index(others[0].level) > LEVELS.index(level):
        level = others[0].level
        figure = f" ({evidence.figure})" if evidence.figure else ""
        sentence = f"{HEADS[level]}: {others[0].name}, {others[0].evidence}{figure}"
        others = others[1:]
    return level, "; ".join([sentence, *(finding.told or finding.name for finding in others)])
