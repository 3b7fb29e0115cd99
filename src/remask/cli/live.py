"""`--live`: a text in the terminal as noise turns into words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from remask.samplers.base import Frame, OnStep
    from remask.tokenizers import Tokenizer

MASK_MARK = "░"


@contextmanager
def denoising(tokenizer: "Tokenizer", steps: int) -> Iterator["OnStep"]:
    """Yields a function that shows each state of the first sample: masks as blocks, new tokens highlighted.

    Where standard error is no terminal each state is printed below the one before it.
    """
    console = Console(stderr=True, highlight=False)
    previous: list[int] = []
    with Live(console=console, auto_refresh=False, transient=False) as live:

        def show(frame: "Frame") -> None:
            nonlocal previous
            ids = frame.z[0].tolist()
            picture = state_text(ids, previous, tokenizer)
            title = Text(f"step {frame.step}/{steps}  t = {frame.t:.3f}\n", style="dim")
            previous = ids
            if console.is_terminal:
                live.update(title + picture, refresh=True)
            else:
                console.print(title + picture)

        yield show


def state_text(ids: list[int], previous: list[int], tokenizer: "Tokenizer") -> Text:
    """A state as coloured text: what changed since `previous` in green, masks dim."""
    text = Text()
    for place, token in enumerate(ids):
        if token == tokenizer.mask_id:
            text.append(MASK_MARK, style="dim")
        else:
            changed = bool(previous) and previous[place] != token
            text.append(tokenizer.token_text(token), style="bold green" if changed else "")
    return text
