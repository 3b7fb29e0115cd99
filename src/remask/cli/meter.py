"""How far a long work has come, in lines on standard error."""

from collections.abc import Callable
from datetime import timedelta
from time import monotonic

import typer

EVERY = 10.0
"""Seconds between two lines."""


class Meter:
    """Says on standard error every so many seconds how far a work of many parts has come.

    Args:
        name: of the work.
        things: its parts, in words.
        clock: gives seconds; never goes back.
    """

    def __init__(self, name: str, *, things: str = "questions", clock: Callable[[], float] = monotonic) -> None:
        self.name, self.things, self._clock = name, things, clock
        self._begun = self._said = clock()

    def tell(self, done: int, total: int) -> None:
        """So many of so many are done; mostly nothing is said."""
        now = self._clock()
        if now - self._said < EVERY or done == total:
            return
        self._said = now
        left = timedelta(seconds=round((now - self._begun) * (total - done) / done))
        typer.echo(f"{self.name}: {done} of {total} {self.things}, {left} left", err=True)
