"""Errors that a user can act on, and the did-you-mean that goes with them."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user asked for: shown as one line without a traceback, exit code 2.

    The message says what was given, what is valid, and what to do. Control characters of what was given are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_lines(message))


class RunError(RuntimeError):
    """A failure of the machine or of a run (full disk, non-finite loss): shown as one line, exit code 1."""

    def __init__(self, message: str) -> None:
        super().__init__(_lines(message))


def printable(line: str) -> str:
    """A line with control characters escaped, so that it stays one line and steers no terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _lines(message: str) -> str:
    return "\n".join(map(printable, message.split("\n")))


def did_you_mean(given: str, valid: Iterable[str]) -> str:
    """Names the closest valid spelling and lists the rest.

    Args:
        given: what the user wrote.
        valid: the names that would have been accepted.

    Returns:
        `did you mean 'x'? Valid: a, b, x.`, or `Valid: a, b, x.` when nothing is close.
    """
    names = sorted(valid)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    listing = f"Valid: {', '.join(names)}."
    return f"did you mean '{close[0]}'? {listing}" if close else listing
