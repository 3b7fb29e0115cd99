"""TensorBoard: event files in the run folder."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from remask.sinks.base import Naming, Record, preformatted

LAYOUT = {
    "against trivial predictors": {
        "bits per byte": ["Multiline", [r"validation/bits_per_byte", r"trivial/bits_per_byte/.*"]],
        "nats per token": ["Multiline", [r"validation/nats_per_token", r"trivial/nats_per_token/.*"]],
    }
}
"""Charts of the page "Custom scalars": the curve and the constant lines that it must fall below."""


class TensorBoard:
    """Scalars by step, samples and alarms as text; each line reaches the system before `write` returns.

    Args:
        folder: of the event files; what it holds is replaced.
        known: lines of metrics.jsonl so far.
    """

    link = None

    def __init__(self, folder: Path, *, known: Iterable[Record]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if folder.exists():
            shutil.rmtree(folder)
        self._naming = Naming()
        self._writer = SummaryWriter(str(folder), max_queue=1000)
        self._writer.add_custom_scalars(LAYOUT)
        for record in known:
            self._add(record)
        self._writer.flush()

    def write(self, record: Record) -> None:
        """Adds one line."""
        self._add(record)
        self._writer.flush()

    def close(self, status: str) -> None:
        """Closes the event file, in which the status stands last."""
        self._writer.add_text("status", status)
        self._writer.close()

    def _add(self, record: Record) -> None:
        entry = self._naming.entry(record)
        for name, value in entry.figures.items():
            self._writer.add_scalar(name, value, entry.step)
        for name, text in entry.texts.items():
            self._writer.add_text(name, preformatted(text), entry.step)
