"""Ctrl-C and SIGTERM as requests that a loop answers between two steps, when nothing is half done."""

import signal
import time
from types import FrameType, TracebackType

_ECHO = 1.0  # seconds


class InterruptRequest:
    """While entered, the first SIGINT or SIGTERM sets `requested`; a second one, later, interrupts at once.

    A launcher of several processes passes on the Ctrl-C that each of them got from the terminal too: what comes within
    a second of the first is the same wish, said twice.

    Only the main thread may enter it (Python delivers signals there).
    """

    def __init__(self) -> None:
        self.requested = False
        self._since = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "InterruptRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        now = time.monotonic()
        if self.requested and now - self._since > _ECHO:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self._since = True, now
