"""Bytes and characters: tokenizers that need no library and no training.

Shape letters: N tokens of a text.
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np

from remask.errors import UserError
from remask.tokenizers.base import (
    Encoding,
    Ids,
    PieceTable,
    Token,
    Tokenizer,
    code_points,
    fingerprint_of,
    utf8,
)

BYTES = 256


class ByteTokenizer(Tokenizer):
    """Every UTF-8 byte is a token: ids 0 to 255, end of text 256, mask 257."""

    kind: ClassVar[str] = "byte"

    def __init__(self) -> None:
        self.eos_id, self.mask_id, self.vocab_size = BYTES, BYTES + 1, BYTES + 2
        self.fingerprint = fingerprint_of(self.kind)
        self.lossless = True
        pieces = [bytes([value]) for value in range(BYTES)]
        self._table = PieceTable([*pieces, b"", b""], eos_id=self.eos_id, mask_id=self.mask_id)

    def encode(self, text: str) -> Encoding:
        """The bytes of `text`.

        Raises:
            UserError: the text holds a lone surrogate.
        """
        ids = np.frombuffer(utf8(text), dtype=np.uint8).astype(np.int32)
        return Encoding(ids=ids, byte_lengths=np.ones_like(ids))

    def cut(self, stream: Iterable[str]) -> Iterator[str]:
        """The pieces as they are: no token is longer than a character."""
        return (piece for piece in stream if piece)

    def decode(self, ids: Ids, *, mask_text: str = "_") -> str:
        """The text of `ids`; see `Tokenizer.decode`."""
        return self._table.decode(ids, mask_text=mask_text)

    def decode_bytes(self, ids: Ids) -> bytes:
        """The bytes of `ids`, without masks and ends of text."""
        array = np.asarray(ids).ravel()
        return array[array < BYTES].astype(np.uint8).tobytes()

    def token_text(self, token: Token) -> str:
        """One byte in visible characters."""
        return self._table.token_text(token)

    def _config(self) -> dict[str, Any]:
        return {}


class CharacterTokenizer(Tokenizer):
    """Every character of a fixed alphabet is a token, in the order of the code points.

    Args:
        alphabet: the characters that can be encoded, in any order; repeated ones count once.

    Raises:
        UserError: the alphabet is empty or holds a lone surrogate.
    """

    kind: ClassVar[str] = "character"

    def __init__(self, alphabet: str) -> None:
        if not alphabet:
            raise UserError("a character tokenizer needs an alphabet of at least one character, got none")
        self.alphabet = "".join(sorted(set(alphabet)))
        codes = code_points(self.alphabet)
        self._ids = np.full(int(codes[-1]) + 2, -1, dtype=np.int32)  # by code point; the last place is no character's
        self._ids[codes] = np.arange(len(codes))
        size = len(self.alphabet)
        self.eos_id, self.mask_id, self.vocab_size = size, size + 1, size + 2
        self.fingerprint = fingerprint_of(self.kind, self.alphabet)
        self.lossless = True
        pieces = [character.encode() for character in self.alphabet]
        self._table = PieceTable([*pieces, b"", b""], eos_id=self.eos_id, mask_id=self.mask_id)

    def encode(self, text: str) -> Encoding:
        """One token a character.

        Raises:
            UserError: a character is not in the alphabet; the message names the first one.
        """
        ids = self._ids[np.minimum(code_points(text), len(self._ids) - 1)]
        if len(ids) and ids.min() < 0:
            place = int(ids.argmin())
            raise UserError(
                f"the character {text[place]!r} (U+{ord(text[place]):04X}) at position {place} is not among "
                f"the {len(self.alphabet)} characters of this tokenizer; train one on a corpus that has it, "
                "or use the byte tokenizer"
            )
        return Encoding(ids=ids, byte_lengths=self._table.lengths[ids])

    def cut(self, stream: Iterable[str]) -> Iterator[str]:
        """The pieces as they are: no token is longer than a character."""
        return (piece for piece in stream if piece)

    def decode(self, ids: Ids, *, mask_text: str = "_") -> str:
        """The text of `ids`; see `Tokenizer.decode`."""
        return self._table.decode(ids, mask_text=mask_text)

    def decode_bytes(self, ids: Ids) -> bytes:
        """The UTF-8 bytes of `ids`, without masks and ends of text."""
        return self._table.decode_bytes(ids)

    def token_text(self, token: Token) -> str:
        """One character in visible form."""
        return self._table.token_text(token)

    def _config(self) -> dict[str, Any]:
        return {"alphabet": self.alphabet}


def character_tokenizer(documents: Iterable[str]) -> CharacterTokenizer:
    """A character tokenizer over every character of `documents` (pass all splits, or some text is unknown).

    Raises:
        UserError: there is no character at all.
    """
    alphabet: set[str] = set()
    for document in documents:
        alphabet.update(document)
    return CharacterTokenizer("".join(alphabet))
