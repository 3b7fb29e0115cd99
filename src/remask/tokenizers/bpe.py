"""Byte-pair encoding over bytes, trained on the corpus; every text comes back exactly, or all of it in lower case.

Sennrich, Haddow and Birch 2016 (arXiv:1508.07909), over bytes as in GPT-2 (Radford et al. 2019).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from remask.errors import UserError
from remask.tokenizers.base import Encoding, Ids, PieceTable, Token, Tokenizer, fingerprint_of, utf8

SMALLEST = 258  # 256 bytes, end of text and mask
CHUNK = 65_536  # characters of a part; bounds the memory that a long document takes
GROUP = 8192  # words that go to the library at a time
TOGETHER = 1 << 20  # characters whose words are looked up together
KEPT_WORDS = 1 << 18  # words whose tokens are kept, twice over: about 100 MB

# GPT-2's splitting rule starts a new piece at any blank that follows a non-blank, whatever stands around
# them, so a text cut there encodes to the same tokens as the whole.
_CUT = re.compile(r"(?<=\S)[\n ]")
# Within ASCII the rule also starts a new piece wherever letters, digits and other signs meet, but for what follows an
# apostrophe ("don't"); whatever is not plainly such a piece goes to the library up to the next cut.
_WORDS = re.compile(
    r" ?[A-Za-z]++(?![^\x00-\x7f])"
    r"| ?[0-9]++(?![^\x00-\x7f])"
    r"| ?[!-&(-/:-@\[-`{-~]++(?=[0-9A-Za-z\t\n\r ]|\Z)"
    r"|\n(?=[!-~])"
    r"|\s*\S+(?:[^\S\n ]\s*\S*)*"
    r"|\s+"
)


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding: the library's ids, then end of text, then mask.

    Args:
        backend: a tokenizer of the `tokenizers` library made by `train_bpe` (or its saved JSON).
        lowercase: whether texts are read in lower case (`lowered`), so that they come back so.

    Raises:
        UserError: the backend is not a byte-level BPE over all 256 bytes.
    """

    kind: ClassVar[str] = "bpe"

    def __init__(self, backend: Backend, *, lowercase: bool = False) -> None:
        self._backend, self.lowercase = backend, lowercase
        self._json = backend.to_str()
        size = backend.get_vocab_size(with_added_tokens=True)
        self.eos_id, self.mask_id, self.vocab_size = size, size + 1, size + 2
        self.fingerprint = fingerprint_of(self.kind, self._json, *(["lowercase"] if lowercase else []))
        self.lossless = not lowercase
        pieces = [_piece(backend, token) for token in range(size)]
        if len({piece for piece in pieces if len(piece) == 1}) != 256:
            raise UserError("this BPE vocabulary lacks some of the 256 bytes, so it cannot encode every text")
        self._table = PieceTable([*pieces, b"", b""], eos_id=self.eos_id, mask_id=self.mask_id)
        self._known: dict[str, bytes] = {}  # word → its ids, int32
        self._older: dict[str, bytes] = {}  # the same of words met some time ago

    def encode(self, text: str) -> Encoding:
        """The byte-pair tokens of `text`.

        Raises:
            UserError: the text holds a lone surrogate.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """The byte-pair tokens of each text.

        The library is asked for each word once: texts are cut where no token can span the cut, and the tokens of the
        words seen so far are kept, which is faster than the library alone.

        Raises:
            UserError: a text holds a lone surrogate.
        """
        for text in texts:
            utf8(text)
        if self.lowercase:
            texts = [lowered(text) for text in texts]
        rows: list[list[np.ndarray]] = [[np.zeros(0, dtype=np.int32)] for _ in texts]
        for group in _groups((number, part) for number, text in enumerate(texts) for part in chunks(text)):
            words = [_WORDS.findall(part) for _, part in group]
            self._learn(set().union(*words))
            for (number, _), own in zip(group, words, strict=True):
                tokens = b"".join(map(self._known.__getitem__, own))
                rows[number].append(np.frombuffer(tokens, dtype=np.int32))
        joined = [np.concatenate(row) for row in rows]
        return [Encoding(ids=ids, byte_lengths=self._table.lengths[ids]) for ids in joined]

    def _learn(self, words: set[str]) -> None:
        """Makes `_known` hold the tokens of all these words; of the rest, those used lately are kept beside it."""
        new = [word for word in words if word not in self._known]
        if len(self._known) + len(new) > KEPT_WORDS:
            self._known, self._older, new = {}, self._known, list(words)
        self._known |= {word: self._older[word] for word in new if word in self._older}
        unseen = [word for word in new if word not in self._older]
        for start in range(0, len(unseen), GROUP):
            group = unseen[start : start + GROUP]
            encodings = self._backend.encode_batch_fast(group, add_special_tokens=False)
            self._known |= {w: np.array(e.ids, dtype=np.int32).tobytes() for w, e in zip(group, encodings, strict=True)}

    def cut(self, stream: Iterable[str]) -> Iterator[str]:
        """Parts of a text, cut before a blank between words; see `Tokenizer.cut`."""
        return cut_between_words(stream)

    def decode(self, ids: Ids, *, mask_text: str = "_") -> str:
        """The text of `ids`; see `Tokenizer.decode`."""
        return self._table.decode(ids, mask_text=mask_text)

    def decode_bytes(self, ids: Ids) -> bytes:
        """The UTF-8 bytes of `ids`, without masks and ends of text."""
        return self._table.decode_bytes(ids)

    def token_text(self, token: Token) -> str:
        """One token in visible characters."""
        return self._table.token_text(token)

    def _config(self) -> dict[str, Any]:
        return {"lowercase": True} if self.lowercase else {}

    def _backend_json(self) -> str:
        return self._json


def lowered(text: str) -> str:
    """`text` in lower case, byte for byte: the few letters whose lower case has another size in UTF-8 stay as they are.

    So the bytes of a text's tokens add up to the text's own, and every character stands for itself.
    """
    return text.lower() if text.isascii() else "".join(map(_lowered, text))


@cache
def _lowered(character: str) -> str:
    lower = character.lower()
    return lower if len(utf8(lower)) == len(utf8(character)) else character


def train_bpe(documents: Iterable[str], *, vocab_size: int, lowercase: bool = False) -> BPETokenizer:
    """Learns byte-pair merges from `documents` (pass the training split only), always the same from the same.

    Args:
        documents: the texts to learn from.
        vocab_size: ids in all, end of text and mask included, at least 258. A small text may yield fewer.
        lowercase: whether it learns and reads everything in lower case.

    Raises:
        UserError: `vocab_size` is below 258, or there is no text.
    """
    if vocab_size < SMALLEST:
        raise UserError(
            f"a byte-level BPE needs a vocab_size of at least {SMALLEST} (256 bytes, end of text and mask), "
            f"got {vocab_size}"
        )
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    seen = 0

    def parts() -> Iterator[str]:
        nonlocal seen
        for document in documents:
            utf8(document)
            seen += len(document)
            yield from chunks(lowered(document) if lowercase else document)

    backend.train_from_iterator(parts(), trainer=trainer)
    if not seen:
        raise UserError("there is no text to train a BPE tokenizer on")
    return BPETokenizer(backend, lowercase=lowercase)


def chunks(text: str, *, size: int = CHUNK) -> Iterator[str]:
    """Parts of `text`, each about `size` characters, cut only where no token can span the cut."""
    start = 0
    while len(text) - start > size:
        cut = _CUT.search(text, start + size)
        if cut is None:
            break
        yield text[start : cut.start()]
        start = cut.start()
    if start < len(text):
        yield text[start:]


def cut_between_words(stream: Iterable[str]) -> Iterator[str]:
    """One text, given piece by piece, in parts of about that size, cut only where no token can span the cut."""
    held: list[str] = []
    for piece in stream:
        at = _last_cut(held[-1]) if held else None
        if at is not None:
            *before, last = held
            yield "".join([*before, last[:at]])
            held = [last[at:]]
        held.append(piece)
    if held:
        yield "".join(held)


def _last_cut(text: str) -> int | None:
    """The last place where a blank follows a non-blank; None where there is none."""
    at = len(text)
    while (at := max(text.rfind(" ", 0, at), text.rfind("\n", 0, at))) > 0:
        if not text[at - 1].isspace():
            return at
    return None


def _groups(parts: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Parts of texts in groups of about `TOGETHER` characters."""
    group: list[tuple[int, str]] = []
    size = 0
    for number, part in parts:
        group.append((number, part))
        size += len(part)
        if size >= TOGETHER:
            yield group
            group, size = [], 0
    if group:
        yield group


def byte_characters() -> dict[str, int]:
    """GPT-2's stand-in for each byte: printable bytes stand for themselves, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTES = byte_characters()


def _piece(backend: Backend, token: int) -> bytes:
    text = backend.id_to_token(token)
    try:
        return bytes(_BYTES[character] for character in text or "")
    except KeyError:
        raise UserError(f"token {token} ({text!r}) of this BPE vocabulary is not made of bytes") from None
