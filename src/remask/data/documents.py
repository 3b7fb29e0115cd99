"""What a corpus is made of: plain texts, texts too long to hold, or prompts with their responses."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

PIECE = 1 << 20
"""Characters of a long text that are in memory at a time, about."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A prompt, which is given, and the response to it, which is learned.

    Attributes:
        prompt: what is given, with whatever ends it.
        response: what follows it.
    """

    prompt: str
    response: str

    @property
    def text(self) -> str:
        """Both, as one text."""
        return self.prompt + self.response


@dataclass(frozen=True, kw_only=True)
class LongText:
    """A text that is read piece by piece, each time from the beginning.

    Attributes:
        read: starts reading; yields the pieces of the text that this one is a part of.
        start: the first character of this part.
        end: the character after its last; None is the end of the text.
    """

    read: Callable[[], Iterator[str]]
    start: int = 0
    end: int | None = None

    def pieces(self) -> Iterator[str]:
        """The text of this part; no piece is empty."""
        at = 0
        for piece in self.read():
            low = max(self.start - at, 0)
            high = len(piece) if self.end is None else min(self.end - at, len(piece))
            if low < high:
                yield piece[low:high]
            at += len(piece)
            if self.end is not None and at >= self.end:
                return

    def part(self, start: int, end: int) -> "LongText":
        """The characters from `start` to `end`, both counted from the start of this part."""
        return replace(self, start=self.start + start, end=self.start + end)


Document = str | LongText | Pair


def text_of(document: Document) -> str:
    """The whole text of a document; a long text is read into memory."""
    if isinstance(document, LongText):
        return "".join(document.pieces())
    return document.text if isinstance(document, Pair) else document


def pieces_of(document: Document) -> Iterator[str]:
    """The text of a document in pieces that are short enough to hold."""
    if isinstance(document, LongText):
        return document.pieces()
    text = text_of(document)
    return (text[start : start + PIECE] for start in range(0, len(text), PIECE))


def key_pieces(document: Document) -> Iterator[str]:
    """What decides the document's split: its text, or its prompt, so that one prompt never stands on two sides."""
    return iter((document.prompt,)) if isinstance(document, Pair) else pieces_of(document)


def length_of(document: Document) -> int:
    """Characters of a document."""
    return sum(map(len, document.pieces())) if isinstance(document, LongText) else len(text_of(document))


def is_blank(document: str | LongText) -> bool:
    """Whether a text holds nothing but blanks."""
    return not any(piece.strip() for piece in pieces_of(document))
