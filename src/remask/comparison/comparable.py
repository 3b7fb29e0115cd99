"""Which figures are the same quantity, so that their difference means something.

This is the one place that decides it: `remask compare` refuses by it, and the experiment log marks best values by it.

A figure's *terms* are what must be equal: the task, the name and unit, the text, the split, which of its rows, the
tokenizer where tokens are counted, and every key of the protocol that is not known to be something else. So a key that
nobody has thought of yet keeps figures apart rather than throwing them together. The known rest is the *way* a figure
came about (bound or exact, noise draws, sampler, steps, …): it makes a comparison less than fair, and is flagged.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from remask.comparison.directions import is_of_sentences
from remask.runs.evaluation_record import EvaluationRecord
from remask.runs.record import RunRecord

NOISE = frozenset({"seed"})
"""Keys of a protocol that never decide anything."""

WAYS: Mapping[str, str] = {
    "likelihood": "the likelihood is exact or a bound",
    "draws": "noise draws a row",
    "weights": "the weights that were judged",
    "ngram_training_bytes": "text that the n-grams were fitted on",
    "prompts_too_long": "prompts without a place for a response",
    "sampler": "the sampler",
    "steps": "sampling steps",
    "network_calls": "calls of the network",
    "reveal": "the order of revealing",
    "permutation": "the seed of the random order",
    "grid": "the times of the sampling steps",
    "block_length": "sampling in blocks of",
    "temperature": "the temperature",
    "top_p": "the nucleus (top_p)",
    "guidance": "guidance",
    "stop": "stopping at an end of text",
    "budget": "the entropy budget",
    "remasking": "masking again",
    "eta": "the strength of masking again",
    "corrector_steps": "corrector steps",
    "threshold": "the proofreading threshold",
    "order": "the order of filling in",
    "finish": "the share of finishing steps",
    "learning_rate": "the learning rate that was chosen",
    "learning_rates": "the learning rates that were tried",
    "precision": "the precision of fine-tuning",
    "network_share": "the network's share of the rate that was chosen",
    "network_shares": "the network's shares of the rate that were tried",
    "network_shares_beside": "the shares of the rate that were tried for what stands beside",
    "strength": "the strength of the probe that was chosen",
    "sentences_cut": "sentences that were cut",
    "tokens_at_most": "tokens that are read at most",
    "random_encoder": "the random encoder",
    "random_encoders": "random encoders beside",
    "taught_beside": "what was taught to what stands beside",
    "errors_over": "what errors are over",
    "shots": "examples before each question",
    "wording": "how questions are put",
    "answer": "where the answer is read",
    "sample_length": "tokens a sample",
    "questions_trained_on": "questions that are in the training text",
}
"""Keys of a protocol that say how a figure was come by, in words: they are flagged where they differ."""

_TEXT = ("tokenizer", "row_length", "rows")
"""Terms that together say which part of a split was judged, in units of the tokenizer."""

_WORDS: Mapping[str, str] = {
    "data": "the text",
    "split": "the split",
    "rows": "rows judged",
    "row_length": "tokens a row",
    "length": "tokens a sample",
    "tokenizer": "the tokenizer",
    "references": "the reference text",
    "judge": "the judge",
    "judge_tokenizer": "the judge's tokenizer",
    "judge_row": "tokens that the judge reads at once",
    "checker": "the checker",
    "features": "the feature model",
    "machine": "the machine",
    "t": "the noise level",
    "reveal": "the order of revealing",
}
_EXACT_TASK = "exact-likelihood"
"""Its figures are probabilities under a sampler: each order of revealing is another law, and no way to one figure."""
_WITHOUT_TOKENS = frozenset({"answers_right", "answers_equal", "answers_ended", "accuracy_strict", "accuracy_flexible"})
"""Figures of answers, whatever they are written in. Samples of so many tokens are longer or shorter texts."""
_HASH = re.compile(r"[0-9a-f]{16,}")
_SHOWN_OF_HASH = 12
_SAME_TEXT = "byte 1-gram"  # bits a byte under byte frequencies: the same for the same text, however it is cut


@dataclass(frozen=True, kw_only=True, eq=False)
class Figure:
    """One measurement and where it comes from.

    Attributes:
        run: the run that was measured.
        row: the measurement, as `Registry.measurements` gives it.
        evaluation: the evaluation that it is part of, where that is known.
    """

    run: RunRecord
    row: Mapping[str, Any]
    evaluation: EvaluationRecord | None = None

    @property
    def name(self) -> str:
        """What was measured."""
        return str(self.row.get("name"))

    @property
    def task(self) -> str:
        """Of `remask evaluate`."""
        return str(self.row.get("task"))

    @property
    def unit(self) -> str:
        """Of the value."""
        return str(self.row.get("unit") or "")

    @property
    def value(self) -> float | None:
        """The figure; None where it was not finite."""
        return finite(self.row.get("value"))

    @property
    def stderr(self) -> float | None:
        """Its standard error over examples."""
        return finite(self.row.get("stderr"))

    @property
    def protocol(self) -> Mapping[str, Any]:
        """How it was measured."""
        return self.row.get("protocol") or {}

    @property
    def trivial(self) -> dict[str, float]:
        """What trivial predictors get, numbers alone."""
        given = (self.row.get("trivial") or {}).items()
        return {name: number for name, value in given if (number := finite(value)) is not None}

    @property
    def is_bound(self) -> bool:
        """Whether the true value is at most this one."""
        return str(self.protocol.get("likelihood", "")).startswith("upper bound")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something in which figures differ.

    Attributes:
        what: in words.
        values: one for each figure, in words.
    """

    what: str
    values: tuple[str, ...]

    def of(self, names: Sequence[str]) -> str:
        """The difference with whose value each is: `noise draws a row: mdlm 8, udlm 16`."""
        return f"{self.what}: {', '.join(f'{name} {value}' for name, value in zip(names, self.values, strict=True))}"

    def to_json(self) -> dict[str, Any]:
        """What and values."""
        return {"what": self.what, "values": list(self.values)}


def finite(value: Any) -> float | None:
    """A finite number as a float; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def terms(figure: Figure) -> dict[str, Any]:
    """What must be equal for two figures to be the same quantity, by name."""
    protocol = figure.protocol
    found: dict[str, Any] = {"task": figure.task, "name": figure.name, "unit": figure.unit}
    found["data"] = protocol.get("data") or figure.run.data_hash
    if figure.name not in _WITHOUT_TOKENS and not is_of_sentences(figure.name):
        found["tokenizer"] = protocol.get("tokenizer") or figure.run.tokenizer_hash
    if _is_time(figure):
        found["machine"] = _machine(figure)
    left_out = {*NOISE, *_ways(figure), "data", "tokenizer"}
    return found | {key: protocol[key] for key in sorted(protocol) if key not in left_out}


def way(figure: Figure) -> dict[str, Any]:
    """How the figure was come by: the keys of its protocol that are flagged where they differ."""
    return {key: figure.protocol[key] for key in _ways(figure) if key in figure.protocol}


def cut(figure: Figure) -> dict[str, Any]:
    """The tokenizer, the length and the number of the rows in which text was judged."""
    return {key: value for key, value in terms(figure).items() if key in _TEXT}


def groups(figures: Sequence[Figure]) -> list[list[Figure]]:
    """The figures in groups, each of one quantity; figures of different groups cannot be compared.

    Figures with equal terms are of one group. Bits per byte do not depend on how text is cut into tokens and rows, so
    where the very same text was judged (byte frequencies give it the same value), figures of several tokenizers or row
    lengths are of one group too.
    """
    equal: dict[str, list[Figure]] = {}
    for figure in figures:
        equal.setdefault(json.dumps(terms(figure), sort_keys=True, default=str), []).append(figure)
    merged: dict[str, list[list[Figure]]] = {}
    for key, members in equal.items():
        merged.setdefault(_same_text_key(members[0]) or key, []).append(members)
    found = []
    for parts in merged.values():
        found += [list(chain(*parts))] if _is_one_text([part[0] for part in parts]) else parts
    return found


def differences(figures: Sequence[Figure]) -> list[Difference]:
    """In which of their terms figures differ, the most important first; empty for one group of `groups`."""
    if len(groups(figures)) < 2:
        return []
    return _differing([terms(figure) for figure in figures], _WORDS)


def differing_ways(figures: Sequence[Figure]) -> list[Difference]:
    """In what else figures of one group differ: how they were come by, and the rows that the text was judged in.

    Their tokenizers are their runs' own, and told of those.
    """
    found = [way(figure) for figure in figures]
    if not all(figure.is_bound for figure in figures):
        found = [{key: value for key, value in each.items() if key != "draws"} for each in found]
    cuts = [{key: value for key, value in cut(figure).items() if key != "tokenizer"} for figure in figures]
    return _differing(found, WAYS) + _differing(cuts, _WORDS)


def in_words(value: Any) -> str:
    """A value of a protocol to be read."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text[:_SHOWN_OF_HASH] if _HASH.fullmatch(text) else text


def _differing(found: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> list[Difference]:
    keys = list(dict.fromkeys(key for each in found for key in each))
    differing = []
    for key in keys:
        values = tuple(in_words(each[key]) if key in each else "not said" for each in found)
        if len(set(values)) > 1:
            differing.append(Difference(what=words.get(key, key.replace("_", " ")), values=values))
    return differing


def _same_text_key(figure: Figure) -> str | None:
    """A key that figures share whose text was the same however it was cut; None where that cannot be told."""
    reference = figure.trivial.get(_SAME_TEXT)
    if figure.unit != "bits/byte" or reference is None or "rows" not in figure.protocol:
        return None
    rest = {key: value for key, value in terms(figure).items() if key not in _TEXT}
    return json.dumps([f"{reference:.9g}", rest], sort_keys=True, default=str)


def _is_one_text(figures: Sequence[Figure]) -> bool:
    """Whether figures that byte frequencies call one text can be: equal cuts of one text have as many rows."""
    if len(figures) < 2:
        return True
    cuts = [terms(figure) for figure in figures]
    rows: dict[tuple[Any, Any], Any] = {}
    return all(rows.setdefault((cut["tokenizer"], cut.get("row_length")), cut["rows"]) == cut["rows"] for cut in cuts)


def _ways(figure: Figure) -> list[str]:
    """The keys of `WAYS` that are ways of this figure."""
    return [key for key in WAYS if key != "reveal" or figure.task != _EXACT_TASK]


def _is_time(figure: Figure) -> bool:
    return figure.unit == "s" or "second" in figure.unit or "second" in figure.name


def _machine(figure: Figure) -> str:
    source = figure.evaluation or figure.run
    return f"{source.machine}, {source.device}"
