"""Ctrl-C and SIGTERM as requests that a loop answers between two steps, when nothing is half done."""

import signal
from types import FrameType, TracebackType


class InterruptRequest:
    """While entered, the first SIGINT or SIGTERM sets `requested`; a second one interrupts at once.

    Only the main thread may enter it (Python delivers signals there).
    """

    def __init__(self) -> None:
        self.requested = False
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
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
