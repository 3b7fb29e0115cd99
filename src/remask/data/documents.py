"""What a corpus is made of: plain texts, or prompts with their responses."""

from dataclasses import dataclass


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


Document = str | Pair


def text_of(document: Document) -> str:
    """The whole text of a document."""
    return document.text if isinstance(document, Pair) else document


def key_of(document: Document) -> str:
    """What decides the document's split: its text, or its prompt, so that one prompt never stands on two sides."""
    return document.prompt if isinstance(document, Pair) else document


def pieces_of(document: Document) -> list[str]:
    """The parts of a document that are tokenized each on its own: the text, or prompt and response."""
    return [document.prompt, document.response] if isinstance(document, Pair) else [document]
