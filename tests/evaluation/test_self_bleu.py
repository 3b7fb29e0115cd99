"""Self-BLEU: equal to the library's sentence BLEU against all other samples, whatever they are."""

import random

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from remask.evaluation.self_bleu import self_bleu


@pytest.mark.parametrize("seed", range(6))
def test_each_sample_gets_what_the_library_gives_it_against_all_others(seed):
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(["a", "b", "c", "d.", "e,f", "…"], k=draw.randint(1, 14))) for _ in range(8)]
    texts.append(texts[0])
    metric = BLEU(effective_order=True)
    expected = [metric.sentence_score(t, texts[:i] + texts[i + 1 :]).score / 100 for i, t in enumerate(texts)]
    np.testing.assert_allclose(self_bleu(texts), expected, rtol=1e-12)


def test_equal_samples_get_one_and_unlike_ones_nothing():
    np.testing.assert_allclose(self_bleu(["the cat sat on a mat"] * 3), 1.0)
    assert self_bleu(["one two three", "four five six"]).tolist() == [0.0, 0.0]


def test_a_sample_without_words_or_without_others_has_none():
    assert np.isnan(self_bleu(["", "a b", "a b"])).tolist() == [True, False, False]
    assert np.isnan(self_bleu(["a b c"])).all()
    assert self_bleu([]).tolist() == []
