"""What predictors without a network get on the same tokens: the values every figure stands beside.

All are fitted on the training text and judged on the very rows that a model is judged on.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock

from remask.data.batch import Batch
from remask.data.cache import cached_folder, writing
from remask.data.store import END_OF_TEXT, TokenStore
from remask.errors import UserError
from remask.evaluation.ngrams import ByteNgrams
from remask.tokenizers import Tokenizer

FIT_LIMIT = 64_000_000
"""Bytes of training text that the n-gram models are fitted on at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrivialPredictors:
    """Uniform, token unigram and byte n-gram models of one training text.

    Attributes:
        tokenizer: text ⇄ ids.
        unigram: −log p of each id in nats, add-one smoothed over the ids that text can hold; of pairs, those of
            responses are counted [V].
        ngrams: byte models of order 1 to 5.
        fitted_bytes: how much training text the n-grams saw, ends of text included.
    """

    tokenizer: Tokenizer
    unigram: npt.NDArray[np.float64]
    ngrams: ByteNgrams
    fitted_bytes: int

    @property
    def end_share(self) -> float:
        """The share of training tokens that end a document, smoothed like the unigram."""
        return math.exp(-float(self.unigram[self.tokenizer.eos_id]))

    def nats(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Sums of −log p over the target tokens of `batches`, by predictor, in nats.

        The n-gram models get what a model gets: contexts begin with each segment, prompts are read and not paid for,
        and ends of text are predicted too (the first of several at the end of a row; the rest are certain).
        """
        rows = list(batches)
        ids = torch.cat([batch.ids[batch.targets] for batch in rows]).cpu().numpy()
        sums = {
            "uniform": len(ids) * math.log(self.tokenizer.vocab_size - 1),
            "unigram": float(self.unigram[ids].sum()),
        }
        parts = [part for batch in rows for part in self._segments(batch)]
        symbols, starts = _joined(symbols for symbols, _ in parts)
        counted = np.concatenate([np.zeros(0, dtype=np.bool_), *(flags for _, flags in parts)])
        by_order = self.ngrams.nats(symbols, starts)[:, counted].sum(axis=1)
        return sums | {f"byte {k}-gram": float(total) for k, total in enumerate(by_order, start=1)}

    def _segments(self, batch: Batch) -> Iterator[tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]]:
        """The text of each document part of each row, as byte symbols, and which of them count."""
        arrays = (values.cpu().numpy() for values in (batch.ids, batch.segments, batch.targets))
        for ids, segments, targets in zip(*arrays, strict=True):
            for segment in range(1, int(segments.max(initial=0)) + 1):
                here = segments == segment
                given, learned = ids[here & ~targets], ids[here & targets]
                prompt, text = text_symbols_of(given, self.tokenizer), text_symbols_of(learned, self.tokenizer)
                yield np.concatenate([prompt, text]), np.repeat([False, True], [len(prompt), len(text)])


def text_symbols_of(ids: npt.NDArray[np.integer], tokenizer: Tokenizer) -> npt.NDArray[np.uint16]:
    """The bytes of a document part as symbols, with the end-of-text symbol where the part ends its document."""
    text = np.frombuffer(tokenizer.decode_bytes(ids), dtype=np.uint8).astype(np.uint16)
    return np.append(text, np.uint16(END_OF_TEXT)) if len(ids) and ids[-1] == tokenizer.eos_id else text


def fit_trivial(store: TokenStore, tokenizer: Tokenizer, *, cache: Path) -> TrivialPredictors:
    """Fits the predictors on a training split, keeping counts and n-gram tables in the cache.

    One process fits; others that want the same wait for it.

    Args:
        store: the training tokens.
        tokenizer: the one they were made with.
        cache: the cache home.

    Raises:
        UserError: the cache cannot be written.
        RunError: the disk is full.
    """
    ngrams = _fitted_ngrams(store, tokenizer, cache / "ngrams" / f"{store.fingerprint}-{FIT_LIMIT}")
    counts = _token_counts(store, cache / "counts" / f"{store.fingerprint}-{store.split}")
    counts[tokenizer.mask_id] = 0
    smoothed = (counts + 1.0) / (counts.sum() + tokenizer.vocab_size - 1)
    unigram = -np.log(smoothed)
    unigram[tokenizer.mask_id] = np.inf
    return TrivialPredictors(tokenizer=tokenizer, unigram=unigram, ngrams=ngrams, fitted_bytes=ngrams.fitted_symbols)


def _fitted_ngrams(store: TokenStore, tokenizer: Tokenizer, folder: Path) -> ByteNgrams:
    with suppress(UserError, OSError):
        return ByteNgrams.load(folder)
    with writing(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            with suppress(UserError, OSError):  # another process has fitted them meanwhile
                return ByteNgrams.load(folder)
            ngrams = ByteNgrams.fit(store.text_bytes(tokenizer, limit=FIT_LIMIT))
            ngrams.save(folder)
            return ngrams


def _token_counts(store: TokenStore, folder: Path) -> npt.NDArray[np.int64]:
    def build(target: Path) -> None:
        np.save(target / "counts.npy", store.token_counts(), allow_pickle=False)

    return np.load(cached_folder(folder, build=build) / "counts.npy", allow_pickle=False)


def _joined(
    parts: Iterable[npt.NDArray[np.uint16]],
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """All parts end to end, and where each begins."""
    kept = [np.zeros(0, dtype=np.uint16), *(part for part in parts if len(part))]
    starts = [np.arange(len(part)) == 0 for part in kept]
    return np.concatenate(kept), np.concatenate(starts)
