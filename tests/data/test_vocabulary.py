"""A tokenizer learned from a corpus is learned once, from its training split only."""

import pytest

from remask.data import vocabulary
from remask.data.corpora import open_corpus
from remask.data.vocabulary import corpus_bpe
from remask.errors import UserError
from remask.tokenizers import train_bpe


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "t.txt").write_text("tea and coffee " * 50)
    (tmp_path / "v.txt").write_text("quartz vixen " * 50)
    return open_corpus(tmp_path / "t.txt", validation=tmp_path / "v.txt", cache=tmp_path)


def test_it_is_learned_from_the_training_split_only(corpus, tmp_path):
    learned = corpus_bpe(corpus, vocab_size=270, cache=tmp_path)
    assert learned.fingerprint == train_bpe(corpus.documents("train"), vocab_size=270).fingerprint


def test_it_is_learned_once_for_each_size(corpus, tmp_path, monkeypatch):
    first = {size: corpus_bpe(corpus, vocab_size=size, cache=tmp_path).fingerprint for size in (262, 266)}
    monkeypatch.setattr(vocabulary, "train_bpe", None)
    assert {size: corpus_bpe(corpus, vocab_size=size, cache=tmp_path).fingerprint for size in first} == first
    assert len(set(first.values())) == 2


def test_too_small_a_vocabulary_leaves_nothing(corpus, tmp_path):
    with pytest.raises(UserError, match="at least 258"):
        corpus_bpe(corpus, vocab_size=9, cache=tmp_path)
    assert not any(path.is_dir() for path in (tmp_path / "tokenizers").iterdir())
