"""Things to iterate in worker processes; light to import there."""

import os
import signal
import time


class Counting:
    """Numbers from a first one on, ending in a given way."""

    def __init__(self, first, end=None):
        self.first, self.end = first, end

    def __iter__(self):
        yield from range(self.first, self.first + 3)
        if self.end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.end is not None:
            raise self.end


class Forever:
    """Large items without end."""

    def __iter__(self):
        while True:
            time.sleep(0)
            yield bytes(1 << 20)
