"""Generative perplexity: exact under a judge that is known, whatever the tokenizers."""

import math

import numpy as np
import pytest
import torch

from remask.evaluation.judged import Passage, judged, judged_measurements, passage
from remask.evaluation.quality import token_entropy
from remask.objectives import NextToken
from remask.tokenizers import ByteTokenizer, CharacterTokenizer
from tiny import BOUND

BYTES, LETTERS = ByteTokenizer(), CharacterTokenizer("ab é")


class Judge(torch.nn.Module):
    """p(token | tokens before it in its document): a token is three times as likely right after itself."""

    objective = NextToken(mask_id=BYTES.mask_id)
    device = torch.device("cpu")

    @property
    def network(self):
        return self

    def forward(self, z, t, *, segments, positions):
        del t
        logits = torch.zeros(*z.shape, BYTES.vocab_size)
        same = segments[:, 1:] == segments[:, :-1]
        bonus = torch.where(same, math.log(3.0), 0.0)
        logits[:, 1:].scatter_(-1, z[:, :-1, None], bonus[..., None])
        return logits[positions]


def by_hand(ids):
    """−log p of one document under the judge."""
    nats, clean = 0.0, BYTES.vocab_size - 1
    for before, token in zip([None, *ids], ids, strict=False):
        start = before is None or before == BYTES.eos_id
        nats -= math.log((3.0 if token == before else 1.0) / (clean if start else clean + 2.0))
    return nats


def made(*rows):
    return [passage(np.array(row), BYTES, judge=BYTES) for row in rows]


def test_nats_are_the_chain_rule_and_begin_anew_behind_each_end_of_text():
    rows = [[*b"aab"], [*b"aa", BYTES.eos_id, *b"aa"], [*b"bbbbb"]]
    verdicts = judged(Judge(), made(*rows), length=5, eos_id=BYTES.eos_id)
    assert verdicts.nats.tolist() == pytest.approx([by_hand(row) for row in rows], rel=1e-6)
    assert verdicts.tokens.tolist() == [3, 5, 5]
    assert verdicts.bytes.tolist() == [3, 4, 5]


def test_a_sample_longer_than_a_row_is_read_in_rows_and_stays_one_sample():
    ids = [*b"aabbaabb"]
    verdicts = judged(Judge(), made(ids, [*b"a"]), length=3, eos_id=BYTES.eos_id)
    parts = [by_hand(ids[start : start + 3]) for start in (0, 3, 6)]
    assert verdicts.nats.tolist() == pytest.approx([sum(parts), by_hand([97])], rel=1e-6)


def test_another_tokenizer_s_samples_are_tokenized_anew_with_their_ends():
    ids = np.append(LETTERS.encode("aé").ids, [LETTERS.eos_id, *LETTERS.encode("b").ids])
    sample = passage(ids, LETTERS, judge=BYTES)
    assert sample.ids.tolist() == [*"aé".encode(), BYTES.eos_id, *b"b"]
    assert sample.text_bytes == 4
    assert sample.entropy == token_entropy(ids)


def test_figures_stand_beside_those_of_references_and_entropy_is_never_missing():
    samples = judged(Judge(), made([*b"aaaa"], [*b"aaab"]), length=4, eos_id=BYTES.eos_id)
    held_out = judged(Judge(), made([*b"abab"], [*b"baba"]), length=4, eos_id=BYTES.eos_id)
    figures = {
        f.name: f for f in judged_measurements(samples, references={"held-out text": held_out}, protocol={"judge": "x"})
    }
    assert set(figures) == {"judged_nats_per_token", "judged_perplexity", "judged_bits_per_byte", "entropy"}
    nats = (by_hand([*b"aaaa"]) + by_hand([*b"aaab"])) / 8
    assert figures["judged_nats_per_token"].value == pytest.approx(nats, rel=1e-6)
    assert figures["judged_perplexity"].value == pytest.approx(math.exp(nats), rel=1e-6)
    assert figures["judged_bits_per_byte"].value == pytest.approx(nats / math.log(2), rel=1e-6)
    assert figures["judged_perplexity"].value < figures["judged_perplexity"].trivial["held-out text"]
    assert figures["entropy"].value < figures["entropy"].trivial["held-out text"], "repetition shows in the entropy"
    assert all(f.stderr is not None and f.stderr > 0 and f.n == 2 for f in figures.values())


def test_a_bound_is_no_judge():
    class Bound(Judge):
        objective = BOUND

    with pytest.raises(ValueError, match="exact"):
        judged(Bound(), [Passage(ids=np.array([1]), text_bytes=1, entropy=0.0)], length=4, eos_id=BYTES.eos_id)
