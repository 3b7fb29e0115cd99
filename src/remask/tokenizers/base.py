"""What every tokenizer is: text to ids and back, a mask, an end of text, and bytes per token.

Shape letters: N tokens of a text, V vocabulary (every id, end of text and mask included).
"""

import hashlib
import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from remask.errors import UserError


@runtime_checkable
class ArrayLike(Protocol):
    """What numpy can turn into an array, e.g. a tensor on the CPU."""

    def __array__(self) -> np.ndarray: ...


Token = int | np.integer
Ids = Sequence[Token] | ArrayLike
"""Token ids as a list, a numpy array or a CPU tensor of integers."""

CONFIG_FILE = "tokenizer_config.json"
BACKEND_FILE = "tokenizer.json"
FORMAT = 1


@dataclass(frozen=True)
class Encoding:
    """The tokens of one text.

    Attributes:
        ids: token ids, int32 [N]; never the mask and never an end of text of its own.
        byte_lengths: UTF-8 bytes that each token stands for, int32 [N]. They sum to the bytes of the text
            (a text of which a lossy tokenizer keeps no token at all has nowhere to count them).
    """

    ids: np.ndarray
    byte_lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer(ABC):
    """Turns text into ids and back.

    Attributes:
        kind: the name of the kind in recipes and saved files.
        vocab_size: V, the number of ids, end of text and mask included.
        eos_id: the id that ends a document.
        mask_id: the id of the mask; no text is ever encoded to it.
        fingerprint: hash of everything that decides the ids of a text.
        lossless: whether `decode(encode(text))` gives back every text exactly.
    """

    kind: ClassVar[str]
    vocab_size: int
    eos_id: int
    mask_id: int
    fingerprint: str
    lossless: bool

    @abstractmethod
    def encode(self, text: str) -> Encoding:
        """The tokens of `text`, without an end of text.

        Raises:
            UserError: the text holds a character that this tokenizer cannot encode.
        """

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """The tokens of each text; the same as `encode` on each."""
        return [self.encode(text) for text in texts]

    def cut(self, stream: Iterable[str]) -> Iterator[str]:
        """One long text, given piece by piece, in parts whose tokens joined are those of the whole.

        Here that is the whole in one part, which holds for every tokenizer; those that know better give small ones.
        """
        yield "".join(stream)

    @abstractmethod
    def decode(self, ids: Ids, *, mask_text: str = "_") -> str:
        """The text of `ids`; ends of text are left out, and each mask is shown as `mask_text`.

        Bytes that are not UTF-8 (a model may sample any sequence) become U+FFFD.
        """

    @abstractmethod
    def decode_bytes(self, ids: Ids) -> bytes:
        """The UTF-8 bytes of `ids`, without masks and ends of text."""

    @abstractmethod
    def token_text(self, token: Token) -> str:
        """One token in visible characters, for pictures and tables."""

    @abstractmethod
    def _config(self) -> dict[str, Any]:
        """The JSON values that, with the backend's text, make this tokenizer again."""

    def _backend_json(self) -> str | None:
        """The tokenizers library's own JSON, or None for a tokenizer that has no such backend."""
        return None

    def save(self, folder: Path | str) -> None:
        """Writes the tokenizer as JSON files into `folder`, which is made when missing.

        Raises:
            OSError: the folder cannot be written.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        backend = self._backend_json()
        if backend is not None:
            write_text_atomic(target / BACKEND_FILE, backend)
        record = {"format": FORMAT, "kind": self.kind, **self._config(), "fingerprint": self.fingerprint}
        write_text_atomic(target / CONFIG_FILE, json.dumps(record, ensure_ascii=True, indent=1) + "\n")


class PieceTable:
    """The bytes behind each id, for tokenizers whose text is the concatenation of its tokens' bytes."""

    def __init__(self, pieces: Iterable[bytes], *, eos_id: int, mask_id: int) -> None:
        self.pieces = tuple(pieces)
        self.lengths = np.array([len(piece) for piece in self.pieces], dtype=np.int32)
        self._eos_id, self._mask_id = eos_id, mask_id

    def decode_bytes(self, ids: Ids) -> bytes:
        """The bytes of `ids`; mask and end of text have none."""
        return b"".join(map(self.pieces.__getitem__, id_list(ids)))

    def decode(self, ids: Ids, *, mask_text: str) -> str:
        """The text of `ids` with each mask shown as `mask_text`; bytes that are not UTF-8 become U+FFFD."""
        shown = list(self.pieces)
        shown[self._mask_id] = mask_text.encode()
        return b"".join(map(shown.__getitem__, id_list(ids))).decode("utf-8", errors="replace")

    def token_text(self, token: Token) -> str:
        """One token in visible characters."""
        special = {self._eos_id: "<eos>", self._mask_id: "<mask>"}
        return special.get(int(token)) or visible(self.pieces[int(token)])


def id_list(ids: Ids) -> list[int]:
    """`ids` as a flat list of Python integers.

    Raises:
        IndexError: an id is negative.
    """
    array = np.asarray(ids, dtype=np.int64).ravel()
    if array.size and array.min() < 0:
        raise IndexError(f"token ids start at 0, got {array.min()}")
    return array.tolist()


def visible(piece: bytes) -> str:
    """`piece` in visible characters: line ends as ⏎, tabs as ⇥, bytes of a split character as <0xE2>."""
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in piece)
    named = text.replace("\n", "⏎").replace("\t", "⇥")
    return "".join(c if c.isprintable() else f"<0x{ord(c):02X}>" for c in named)


def utf8(text: str) -> bytes:
    """The UTF-8 bytes of `text`.

    Raises:
        UserError: the text holds a lone surrogate, which is no character and has no UTF-8 form.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text holds U+{ord(text[error.start]):04X} at character {error.start}: a lone surrogate is "
            "no character and has no UTF-8 form; remove or replace it"
        ) from None


def utf8_lengths(text: str) -> np.ndarray:
    """UTF-8 bytes of each character of `text`, int32 [len(text)].

    Raises:
        UserError: the text holds a lone surrogate.
    """
    if text.isascii():
        return np.ones(len(text), dtype=np.int32)
    codes = code_points(text)
    return (1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)).astype(np.int32)


def code_points(text: str) -> np.ndarray:
    """The code point of each character of `text`, uint32 [len(text)].

    Raises:
        UserError: the text holds a lone surrogate.
    """
    try:
        return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    except UnicodeEncodeError:
        utf8(text)  # says what is wrong
        raise


def fingerprint_of(*parts: Any) -> str:
    """A hash of JSON values, the same on every machine."""
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()
    return hashlib.blake2b(canonical, digest_size=16).hexdigest()


def write_text_atomic(path: Path, text: str) -> None:
    """Writes `text` to `path` so that a reader finds the old file or the whole new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
