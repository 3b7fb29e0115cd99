"""Errors that a user can act on, and the did-you-mean that goes with them."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user asked for: shown as one line without a traceback, exit code 2.

    The message says what was given, what is valid, and what to do.
    """


class RunError(RuntimeError):
    """A failure of the machine or of a run (full disk, non-finite loss): shown as one line, exit code 1."""


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
