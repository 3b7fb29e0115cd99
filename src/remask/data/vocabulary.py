"""Tokenizers learned from a corpus, kept in the cache: learning merges from 50 MB takes a minute."""

from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

from remask.data.cache import cached_folder
from remask.data.corpora import Corpus
from remask.tokenizers import Tokenizer, load_tokenizer, train_bpe

FORMAT = 1


def corpus_bpe(corpus: Corpus, *, vocab_size: int, cache: Path) -> Tokenizer:
    """A byte-level BPE learned from the corpus' training split, from the cache or learned now.

    Args:
        corpus: the text.
        vocab_size: ids in all, end of text and mask included, at least 258.
        cache: the cache home.

    Raises:
        UserError: `vocab_size` is too small, the text cannot be read, or the cache cannot be written.
        RunError: the disk is full.
    """
    key = f"{FORMAT} {corpus.fingerprint} {corpus.splits} {vocab_size} {version('tokenizers')}"
    folder = cache / "tokenizers" / f"bpe-{vocab_size}-{blake2b(key.encode(), digest_size=16).hexdigest()}"

    def build(target: Path) -> None:
        train_bpe(corpus.documents("train"), vocab_size=vocab_size).save(target)

    return load_tokenizer(cached_folder(folder, build=build))
