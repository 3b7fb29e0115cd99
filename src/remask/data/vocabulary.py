"""Tokenizers learned from a corpus, kept in the cache: looking through a long text takes minutes.

Learning merges takes time and memory by the size of the text, so from a longer text than `LEARNED_FROM` a vocabulary is
learned from a keyed sample of it, the same one each time.
"""

from collections.abc import Iterator
from hashlib import blake2b
from heapq import heappop, heappush
from importlib.metadata import version
from pathlib import Path

from remask.data.cache import cached_folder
from remask.data.corpora import Corpus
from remask.data.documents import pieces_of
from remask.data.sizes import size_estimate
from remask.data.store import Progress, unwatched
from remask.tokenizers import CharacterTokenizer, Tokenizer, load_tokenizer, train_bpe
from remask.tokenizers.base import utf8
from remask.tokenizers.bpe import chunks, cut_between_words

FORMAT = 2
LEARNED_FROM = 64_000_000
"""UTF-8 bytes of the training split that byte pairs are learned from at most."""


def corpus_bpe(
    corpus: Corpus, *, vocab_size: int, cache: Path, lowercase: bool = False, progress: Progress | None = None
) -> Tokenizer:
    """A byte-level BPE learned from the corpus' training split, from the cache or learned now.

    Args:
        corpus: the text.
        vocab_size: ids in all, end of text and mask included, at least 258.
        cache: the cache home.
        lowercase: whether texts are read in lower case.
        progress: told of the bytes of text that were looked through, then of those that were learned from.

    Raises:
        UserError: `vocab_size` is too small, the text cannot be read, or the cache cannot be written.
        RunError: the disk is full.
    """
    key = f"{FORMAT} {corpus.fingerprint} {corpus.splits} {vocab_size} {LEARNED_FROM} {version('tokenizers')}"
    key += " lowercase" if lowercase else ""
    folder = cache / "tokenizers" / f"bpe-{vocab_size}-{blake2b(key.encode(), digest_size=16).hexdigest()}"
    tell = progress or unwatched

    def build(target: Path) -> None:
        sample = keyed_sample(corpus, limit=LEARNED_FROM, progress=tell)
        train_bpe(_handed_out(sample, tell), vocab_size=vocab_size, lowercase=lowercase).save(target)

    return load_tokenizer(cached_folder(folder, build=build))


def corpus_characters(corpus: Corpus, *, cache: Path, progress: Progress | None = None) -> Tokenizer:
    """A character tokenizer over every character of the corpus, from the cache or gathered now.

    Args:
        corpus: the text, all splits of which are covered.
        cache: the cache home.
        progress: told of the bytes of text that were looked through.

    Raises:
        UserError: the text cannot be read, or the cache cannot be written.
        RunError: the disk is full.
    """
    key = f"{FORMAT} {corpus.fingerprint} {corpus.splits}"
    folder = cache / "tokenizers" / f"character-{blake2b(key.encode(), digest_size=16).hexdigest()}"

    def build(target: Path) -> None:
        alphabet: set[str] = set()
        for _, pieces in _documents(corpus, progress or unwatched):
            for piece in pieces:
                alphabet.update(piece)
        CharacterTokenizer("".join(alphabet)).save(target)

    return load_tokenizer(cached_folder(folder, build=build))


def keyed_sample(corpus: Corpus, *, limit: int, progress: Progress) -> list[str]:
    """Parts of the training split, of at most `limit` UTF-8 bytes together: those whose numbers' hashes are the lowest.

    A text within the limit is taken whole. Otherwise each part of about 64,000 characters, or a shorter document, has
    the same chance.

    Args:
        corpus: the text.
        limit: bytes.
        progress: told of the bytes of text that were looked through.

    Returns:
        The parts in the order of the text.
    """
    kept: list[tuple[int, int, bytes]] = []  # a heap, the highest hash on top
    size = 0
    for number, part in enumerate(_parts(corpus, progress)):
        data = utf8(part)
        key = int.from_bytes(blake2b(number.to_bytes(8), digest_size=8).digest())
        heappush(kept, (-key, number, data))
        size += len(data)
        while size > limit:
            size -= len(heappop(kept)[2])
    return [data.decode("utf-8") for _, data in sorted((number, data) for _, number, data in kept)]


def _parts(corpus: Corpus, progress: Progress) -> Iterator[str]:
    """The training split in parts that no token spans; documents of all splits are looked through."""
    for split, pieces in _documents(corpus, progress):
        if split == "train":
            for part in cut_between_words(pieces):
                yield from chunks(part)


def _documents(corpus: Corpus, progress: Progress) -> Iterator[tuple[str, Iterator[str]]]:
    """Each document's split and its text in pieces, told of as they are read."""
    done, total = 0, size_estimate(corpus)

    def told(pieces: Iterator[str]) -> Iterator[str]:
        nonlocal done
        for piece in pieces:
            done += len(piece.encode("utf-8"))
            progress(done, total)
            yield piece

    return ((split, told(pieces_of(document))) for split, document in corpus.items())


def _handed_out(parts: list[str], progress: Progress) -> Iterator[str]:
    sizes = [len(part.encode("utf-8")) for part in parts]
    done, total = 0, sum(sizes)
    for part, size in zip(parts, sizes, strict=True):
        yield part
        done += size
        progress(done, total)
