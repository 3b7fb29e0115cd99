"""Generative perplexity: what another, exact model makes of samples.

A text that repeats one word is the likeliest of all, so a low perplexity alone is no praise (Zheng et al.,
arXiv:2409.02908): the samples' entropy stands beside it, and the same figures of held-out text and of n-gram samples.
A figure close to that of held-out text is good; one far below it is a warning.

Shape letters: n samples, L tokens of a row of the judge.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from remask.data.batch import Batch
from remask.evaluation.causal_reader import CausalReader
from remask.evaluation.likelihood import ROWS_AT_ONCE, Judged, perplexity, ratio, row_likelihoods
from remask.evaluation.measurement import Measurement
from remask.evaluation.quality import token_entropy
from remask.tokenizers import Tokenizer

Ids = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True, eq=False)
class Passage:
    """A sample as the judge reads it.

    Attributes:
        ids: the judge's tokens.
        text_bytes: UTF-8 bytes of the text.
        entropy: of the sample's own tokens, in nats, whatever the judge's are.
    """

    ids: Ids
    text_bytes: int
    entropy: float


def passage(ids: Ids, tokenizer: Tokenizer, *, judge: Tokenizer) -> Passage:
    """A sample in the judge's tokens: the same ones where both tokenizers are the same, else its text tokenized anew.

    Each end of text stays one.

    Args:
        ids: the sample.
        tokenizer: the sample's.
        judge: the judge's.

    Raises:
        UserError: the judge's tokenizer lacks a character.
    """
    ids = np.asarray(ids, dtype=np.int64)
    entropy = token_entropy(ids)
    if tokenizer.fingerprint == judge.fingerprint:
        return Passage(ids=ids, text_bytes=len(tokenizer.decode_bytes(ids)), entropy=entropy)
    parts, size = [np.zeros(0, dtype=np.int64)], 0
    for text, ended in documents(ids, tokenizer):
        size += len(text.encode("utf-8"))
        parts.append(judge.encode(text).ids.astype(np.int64))
        if ended:
            parts.append(np.array([judge.eos_id]))
    return Passage(ids=np.concatenate(parts), text_bytes=size, entropy=entropy)


def documents(ids: Ids, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """The texts of a sample between its ends of text, in order, and whether each came to its end."""
    ids = np.asarray(ids, dtype=np.int64)
    parts = np.split(ids, np.flatnonzero(ids == tokenizer.eos_id) + 1)
    ended = [bool(len(part)) and part[-1] == tokenizer.eos_id for part in parts]
    return [
        (tokenizer.decode(part[part != tokenizer.eos_id]), bool(end))
        for part, end in zip(parts, ended, strict=True)
        if len(part)
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdicts:
    """What the judge makes of each sample, [n].

    Attributes:
        nats: −log p.
        tokens: the judge's.
        bytes: UTF-8 bytes of text.
        entropy: of the sample's own tokens, nats a token.
    """

    nats: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.float64]
    bytes: npt.NDArray[np.float64]
    entropy: npt.NDArray[np.float64]


def judged(judge: Judged, passages: Sequence[Passage], *, length: int, eos_id: int) -> Verdicts:
    """−log p of each sample under an exact model, in rows of at most `length` tokens, each read from its start.

    Args:
        judge: a model whose likelihood is exact.
        passages: the samples in its tokens.
        length: L, the longest row that the judge was trained on.
        eos_id: the judge's end of text, behind which a new document begins.

    Raises:
        ValueError: the judge's likelihood is a bound.
    """
    if not judge.objective.exact:
        raise ValueError("a bound does not judge samples: the judge must give an exact likelihood")
    owner, rows = [], []
    for k, sample in enumerate(passages):
        for start in range(0, len(sample.ids), length):
            owner.append(k)
            rows.append(sample.ids[start : start + length])
    batches = [
        sample_batch(rows[start : start + ROWS_AT_ONCE], length=length, eos_id=eos_id)
        for start in range(0, len(rows), ROWS_AT_ONCE)
    ]
    sums = row_likelihoods(judge, batches, draws=1, seed=0)
    return Verdicts(
        nats=np.bincount(owner, weights=sums.nats, minlength=len(passages)).astype(np.float64),
        tokens=np.array([len(sample.ids) for sample in passages], dtype=np.float64),
        bytes=np.array([sample.text_bytes for sample in passages], dtype=np.float64),
        entropy=np.array([sample.entropy for sample in passages]),
    )


def judged_by_reader(reader: CausalReader, samples: Sequence[Ids], tokenizer: Tokenizer) -> Verdicts:
    """What a model of transformers makes of samples: their text tokenized anew, each document read by itself.

    An end of text in a sample is the reader's own; it costs nats and counts as a token.

    Args:
        reader: the judge.
        samples: token ids, n flat arrays.
        tokenizer: theirs.
    """
    owner, texts, size = [], [], np.zeros(len(samples))
    for k, ids in enumerate(samples):
        for text, ended in documents(ids, tokenizer):
            owner.append(k)
            texts.append(reader.tokens(text) + [reader.end_id] * ended)
            size[k] += len(text.encode("utf-8"))

    def summed(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return np.bincount(owner, weights=values, minlength=len(samples)).astype(np.float64)

    return Verdicts(
        nats=summed(reader.nats(texts)),
        tokens=summed([len(text) for text in texts]),
        bytes=size,
        entropy=np.array([token_entropy(np.asarray(ids)) for ids in samples]),
    )


def behind(whole: Verdicts, given: Verdicts, samples: Sequence[Ids]) -> Verdicts:
    """What the judge makes of texts behind given ones: −log p(text | given), by the chain rule.

    Args:
        whole: of the given texts with their ends.
        given: of the given texts alone.
        samples: the ends, whose entropy counts.
    """
    return Verdicts(
        nats=whole.nats - given.nats,
        tokens=whole.tokens - given.tokens,
        bytes=whole.bytes - given.bytes,
        entropy=np.array([token_entropy(np.asarray(ids)) for ids in samples]),
    )


def judged_measurements(
    samples: Verdicts, *, references: Mapping[str, Verdicts], protocol: Mapping[str, Any]
) -> list[Measurement]:
    """`judged_nats_per_token`, `judged_perplexity`, `judged_bits_per_byte`, and the samples' `entropy` with them.

    Standard errors are those of a ratio of sums over samples, see `remask.evaluation.likelihood`.

    Args:
        samples: the judge's figures of the samples.
        references: those of what stands beside them, by name.
        protocol: the judge, and how the samples were drawn.
    """
    all_sets = {"": samples, **references}
    nats = {name: ratio(each.nats, each.tokens) for name, each in all_sets.items()}
    bits = {name: ratio(each.nats / math.log(2), each.bytes) for name, each in all_sets.items()}
    spread = {name: perplexity(value) * (error or 0.0) for name, (value, error) in nats.items()}  # delta method
    several = len(samples.nats) > 1
    surprise = {name: (perplexity(value), spread[name] if several else None) for name, (value, _) in nats.items()}
    entropy = {name: _mean(each.entropy) for name, each in all_sets.items()}
    figures = [
        ("judged_nats_per_token", "nats/token", nats),
        ("judged_perplexity", "per token", surprise),
        ("judged_bits_per_byte", "bits/byte", bits),
        ("entropy", "nats/token", entropy),
    ]
    return [
        Measurement(
            name=name,
            value=values[""][0],
            unit=unit,
            n=len(samples.nats),
            stderr=values[""][1],
            trivial={reference: values[reference][0] for reference in references},
            protocol=dict(protocol),
        )
        for name, unit, values in figures
    ]


def _mean(values: npt.NDArray[np.float64]) -> tuple[float, float | None]:
    n = len(values)
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else None


def sample_batch(rows: Sequence[Ids], *, length: int, eos_id: int) -> Batch:
    """Rows of several lengths, padded; a new segment begins behind each end of text, as in training."""
    size = np.array([len(row) for row in rows])
    valid = torch.from_numpy(np.arange(length) < size[:, None])
    ids = torch.full((len(rows), length), eos_id, dtype=torch.int64)
    ids[valid] = torch.from_numpy(np.concatenate(rows))
    segments = torch.ones_like(ids)
    segments[:, 1:] += (ids[:, :-1] == eos_id).cumsum(-1)
    return Batch(
        ids=ids,
        segments=segments * valid,
        targets=valid,
        byte_lengths=torch.zeros_like(ids),  # the text's bytes are counted whole
        rows=torch.arange(len(rows)),
        global_size=len(rows),
    )
