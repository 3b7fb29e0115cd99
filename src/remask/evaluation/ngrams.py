"""Byte n-gram models and the token unigram: what predictors that learn no language get on the same text.

A text is one array of byte symbols: 0 to 255 are bytes, 256 ends a document, 257 symbols in all. A segment
starts at the first symbol, after every end of text, and wherever the caller says so; no context reaches over
the start of a segment, and a context shorter than an order asks for falls to the order that it suffices for.

Shape letters: n symbols of text, K the highest order, V tokens of an alphabet.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from remask.errors import UserError
from remask.evaluation.witten_bell import (
    END_OF_TEXT,
    SYMBOLS,
    FloatArray,
    IntArray,
    OrderCounts,
    count_ngrams,
    ngrams_within,
    witten_bell,
)

HIGHEST_ORDER = 7  # 257^7 is the largest power of 257 below 2^63
_EVALUATION_CHUNK = 1 << 20
_FORMAT = 1

SymbolArray = npt.NDArray[np.uint16]


def text_symbols(documents: Iterable[str]) -> SymbolArray:
    """Documents as one array of byte symbols, each followed by 256, the end of text."""
    parts = [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint16) for text in documents]
    end = np.array([END_OF_TEXT], dtype=np.uint16)
    return np.concatenate([piece for part in parts for piece in (part, end)] or [end[:0]])


def symbols_text(symbols: npt.NDArray[np.integer]) -> str:
    """Byte symbols as text: ends of text are left out, bytes that are not UTF-8 become U+FFFD."""
    kept = np.asarray(symbols)[np.asarray(symbols) != END_OF_TEXT]
    return kept.astype(np.uint8).tobytes().decode("utf-8", errors="replace")


def bits_per_byte(nats_sum: float, n_bytes: int) -> float:
    """Total nats of a text over its UTF-8 bytes, in bits per byte.

    Raises:
        ValueError: `n_bytes` is not positive.
    """
    if n_bytes <= 0:
        raise ValueError(f"bits per byte need at least one byte of text, got {n_bytes}")
    return nats_sum / (math.log(2) * n_bytes)


def token_unigram_nats(train_counts: npt.NDArray[np.integer], ids_counts: npt.NDArray[np.integer]) -> float:
    """Mean nats per token of the add-one smoothed unigram predictor, p(v) = (c_v + 1) / (Σ c + V).

    Args:
        train_counts: how often each token of the data alphabet occurs in the training text, [V]. The
            alphabet is what the array covers: leave the mask token's entry out, data never holds it.
        ids_counts: the same for the text that is judged, [V].

    Raises:
        ValueError: the arrays differ in length, or the judged text is empty.
    """
    if train_counts.shape != ids_counts.shape or train_counts.ndim != 1:
        raise ValueError(f"counts must be two [V] arrays, got {train_counts.shape} and {ids_counts.shape}")
    total = int(ids_counts.sum())
    if total == 0:
        raise ValueError("the judged text holds no token")
    log_p = np.log(train_counts + 1.0) - math.log(int(train_counts.sum()) + train_counts.size)
    return float(-(ids_counts * log_p).sum() / total)


def trivial_bits_per_byte(
    ngrams: "ByteNgrams",
    symbols: npt.NDArray[np.integer],
    n_bytes: int,
    starts: npt.NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Bits per byte of the uniform and of every n-gram predictor on one text.

    Ends of text are predicted, and so counted, like any symbol, as they are for a trained model; they add
    no bytes to the divisor.

    Args:
        ngrams: the models, fitted on the training text.
        symbols: byte symbols of the judged text, [n].
        n_bytes: UTF-8 bytes that the text stands for.
        starts: further segment starts, as in `ByteNgrams.nats`.

    Returns:
        `byte uniform` and `byte 1-gram` to `byte K-gram`.
    """
    sums = ngrams.nats(symbols, starts).sum(axis=1)
    values = {"byte uniform": bits_per_byte(len(symbols) * math.log(SYMBOLS), n_bytes)}
    return values | {f"byte {k}-gram": bits_per_byte(float(s), n_bytes) for k, s in enumerate(sums, start=1)}


@dataclass(frozen=True, kw_only=True, eq=False)
class ByteNgrams:
    """Interpolated Witten–Bell models of order 1 to K over 257 byte symbols; build with `fit` or `load`."""

    orders: tuple[OrderCounts, ...]

    @property
    def max_order(self) -> int:
        """The highest order K, which sees K−1 symbols of context."""
        return len(self.orders)

    @property
    def fitted_symbols(self) -> int:
        """How many symbols of text the counts were taken from."""
        return int(self.orders[0].cumulative[-1])

    @classmethod
    def fit(cls, symbols: npt.NDArray[np.integer], *, max_order: int = 5) -> "ByteNgrams":
        """Counts a text; memory grows with its distinct n-grams, not with its length.

        Args:
            symbols: byte symbols, 256 ends each document, [n]; a memory map will do.
            max_order: the highest order, 1 to 7.

        Raises:
            UserError: the text is empty.
            ValueError: `max_order` or a symbol is out of range.
        """
        if not 1 <= max_order <= HIGHEST_ORDER:
            raise ValueError(f"n-gram order {max_order} is not possible: 1 to {HIGHEST_ORDER} are")
        if len(symbols) == 0:
            raise UserError("the training text is empty: n-gram models need at least one byte")
        _check_symbols(symbols)
        return cls._from_counts([count_ngrams(symbols, order) for order in range(1, max_order + 1)])

    @classmethod
    def _from_counts(cls, tables: Sequence[tuple[IntArray, IntArray]]) -> "ByteNgrams":
        orders: list[OrderCounts] = []
        for keys, counts in tables:
            orders.append(witten_bell(keys, counts, orders[-1] if orders else None, len(orders) + 1))
        return cls(orders=tuple(orders))

    def nats(self, symbols: npt.NDArray[np.integer], starts: npt.NDArray[np.bool_] | None = None) -> FloatArray:
        """−log p of every symbol under every order, in nats.

        Args:
            symbols: byte symbols, [n].
            starts: true where a segment begins that has no context, [n]; ends of text start one anyway.

        Returns:
            float64 [K, n]; row k−1 belongs to order k.

        Raises:
            ValueError: a symbol is out of range or `starts` has another length.
        """
        _check_symbols(symbols)
        if starts is not None and starts.shape != symbols.shape:
            raise ValueError(f"starts has shape {starts.shape}, symbols has {symbols.shape}")
        nats = np.empty((self.max_order, len(symbols)))
        for low in range(0, len(symbols), _EVALUATION_CHUNK):
            high = min(low + _EVALUATION_CHUNK, len(symbols))
            p = np.full(high - low, 1 / SYMBOLS)
            for order, table in enumerate(self.orders, start=1):
                places, keys = ngrams_within(symbols, starts, order=order, low=low, high=high)
                p[places] = table.blend(keys, p[places])
                nats[order - 1, low:high] = -np.log(p)
        return nats

    def sample(self, *, order: int, length: int, count: int, rng: np.random.Generator) -> SymbolArray:
        """Draws texts from the order's distribution, each from an empty context; uint16 [count, length].

        Interpolation is a mixture: an order draws from its counts or, with the back-off weight, hands over
        to the next lower one. A drawn end of text starts a new segment.

        Raises:
            ValueError: the order was not fitted.
        """
        if not 1 <= order <= self.max_order:
            raise ValueError(f"order {order} was not fitted: 1 to {self.max_order} are")
        texts = np.empty((count, length), dtype=np.uint16)
        history = np.zeros((count, order), dtype=np.int64)  # newest last; one more than the context needs
        available = np.zeros(count, dtype=np.int64)
        for position in range(length):
            drawn = self._draw(history, available, order=order, rng=rng)
            texts[:, position] = drawn
            history = np.concatenate([history[:, 1:], drawn[:, None]], axis=1)
            available = np.where(drawn == END_OF_TEXT, 0, available + 1)
        return texts

    def _draw(self, history: IntArray, available: IntArray, *, order: int, rng: np.random.Generator) -> IntArray:
        drawn = np.full(len(history), -1)
        for k in range(order, 0, -1):
            rows = np.flatnonzero((drawn < 0) & (available >= k - 1))
            powers = SYMBOLS ** np.arange(k - 2, -1, -1)
            contexts = history[rows, order - (k - 1) :] @ powers
            drawn[rows] = self.orders[k - 1].draw(contexts, rng)
        return np.where(drawn < 0, rng.integers(0, SYMBOLS, len(history)), drawn)

    def save(self, folder: Path | str) -> None:
        """Writes the counts as .npy and a JSON manifest; the folder appears whole or not at all.

        Raises:
            OSError: the folder cannot be written.
        """
        folder = Path(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            new = temporary / "new"
            new.mkdir()
            checksums: dict[str, str] = {}
            for name, array in self._arrays():
                np.save(new / f"{name}.npy", array, allow_pickle=False)
                checksums[name] = _checksum(array)
            manifest = {"format": _FORMAT, "max_order": self.max_order, "checksums": checksums}
            (new / "ngrams.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            _install(new, folder, aside=temporary / "old")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _arrays(self) -> Iterator[tuple[str, IntArray]]:
        for order, table in enumerate(self.orders, start=1):
            yield f"order-{order}-keys", table.keys
            yield f"order-{order}-counts", np.diff(table.cumulative)

    @classmethod
    def load(cls, folder: Path | str) -> "ByteNgrams":
        """Reads what `save` wrote.

        Raises:
            UserError: the folder is missing, incomplete, damaged or of another format.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / "ngrams.json").read_text(encoding="utf-8"))
            if manifest["format"] != _FORMAT:
                raise ValueError(f"its format is {manifest['format']}, this version reads {_FORMAT}")
            orders = range(1, manifest["max_order"] + 1)
            checksums = manifest["checksums"]
            counts = [_read(folder, f"order-{k}-counts", checksums) for k in orders]
            keys = [_read(folder, f"order-{k}-keys", checksums) for k in orders]
        except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
            raise UserError(
                f"the n-gram models in {folder} cannot be read ({error}): delete the folder and fit again"
            ) from error
        return cls._from_counts(list(zip(keys, counts, strict=True)))


def _check_symbols(symbols: npt.NDArray[np.integer]) -> None:
    if symbols.ndim != 1 or not np.issubdtype(symbols.dtype, np.integer):
        raise ValueError(f"symbols must be a flat integer array, got {symbols.dtype} {symbols.shape}")
    if len(symbols) and not (symbols.min() >= 0 and symbols.max() <= END_OF_TEXT):
        raise ValueError(f"symbols must lie in 0 to {END_OF_TEXT}, got {symbols.min()} to {symbols.max()}")


def _install(new: Path, folder: Path, *, aside: Path) -> None:
    """Puts `new` in the place of `folder`; where two processes do so at once, one of them wins."""
    if folder.is_dir():
        os.replace(folder, aside)
    try:
        os.replace(new, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            if aside.exists():
                os.replace(aside, folder)
            raise


def _checksum(array: IntArray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()


def _read(folder: Path, name: str, checksums: Mapping[str, str]) -> IntArray:
    try:
        array = np.load(folder / f"{name}.npy", allow_pickle=False)
    except (SyntaxError, MemoryError, tokenize.TokenError) as error:  # what numpy raises for damaged headers
        raise ValueError(f"{name}.npy is damaged: {error}") from error
    if array.dtype != np.int64 or array.ndim != 1 or _checksum(array) != checksums[name]:
        raise ValueError(f"{name}.npy does not match its checksum")
    return array
