"""The denoising picture: a sample's tokens as spans of HTML, coloured by the step that revealed them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

from remask.report.colours import REVEAL_BINS, reveal_bin
from remask.report.reading import Frame, Trajectory, printable


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of text of one look.

    Attributes:
        text: as it shall stand on the page.
        look: its CSS classes.
        title: what hovering says.
    """

    text: str
    look: str = ""
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class FrameView:
    """One frame of the strip.

    Attributes:
        caption: step, time and what is still open, in words.
        spans: the text.
    """

    caption: str
    spans: tuple[Span, ...]


def final_spans(trajectory: Trajectory) -> tuple[Span, ...]:
    """The finished text, one span a token, coloured by the step at which it was revealed."""
    return tuple(
        Span(
            text=_shown(token),
            look=_look(step, steps=trajectory.steps),
            title=f"step {step}" if step else "given by the prompt",
        )
        for token, step in zip(trajectory.tokens, trajectory.revealed, strict=True)
    )


def legend(trajectory: Trajectory) -> tuple[Span, ...]:
    """The steps that each colour stands for, in order; colours without a step are left out."""
    spans = [Span(text="prompt", look="given")] if 0 in trajectory.revealed else []
    for group in range(REVEAL_BINS):
        # The steps whose `reveal_bin` is this one: bounds rounded up, as the bin is rounded down.
        first = -(-group * trajectory.steps // REVEAL_BINS) + 1
        last = -(-(group + 1) * trajectory.steps // REVEAL_BINS)
        if first <= last:
            spans.append(Span(text=f"{first}–{last}" if first < last else str(first), look=f"r{group}"))
    return tuple(spans)


def frame_views(trajectory: Trajectory) -> tuple[FrameView, ...]:
    """The strip: masks as blocks, and in colour what came to stand since the frame before."""
    frames = sorted(trajectory.frames, key=lambda frame: frame.step)
    if not frames:
        return ()
    pairs = pairwise([Frame(step=-1, time=None, tokens=()), *frames])
    return tuple(_frame_view(trajectory, frame, since=before.step) for before, frame in pairs)


def summary(trajectory: Trajectory) -> str:
    """One sentence on how fast the text came to stand."""
    waits = sorted(step for step in trajectory.revealed if step > 0)
    steps = "step" if trajectory.steps == 1 else "steps"
    if not waits:
        return f"Every one of the {len(trajectory.tokens)} tokens was given by the prompt."
    given = len(trajectory.revealed) - len(waits)
    return (
        f"The {trajectory.sampler} sampler drew {len(waits)} tokens in {trajectory.steps} {steps}"
        f"{f', beside {given} given by the prompt' if given else ''}; "
        f"half of them stood by step {waits[(len(waits) - 1) // 2]}."
    )


def strip_note(views: Iterable[FrameView]) -> str:
    """What the looks in a strip mean; only those that occur are explained."""
    looks = {span.look for view in views for span in view.spans}
    notes = ["In colour: what was decided since the frame before."]
    if "mask" in looks:
        notes.append("A block is a masked token, as wide as the token that comes to stand there.")
    if "open" in looks:
        notes.append("In grey italics: what a later step will still replace.")
    return " ".join(notes)


def _frame_view(trajectory: Trajectory, frame: Frame, *, since: int) -> FrameView:
    masked = sum(token is None for token in frame.tokens)
    open_ = sum(step > frame.step for step in trajectory.revealed) - masked
    parts = [f"step {frame.step} of {trajectory.steps}"]
    if frame.time is not None:
        parts.append(f"t = {frame.time:.2f}")
    if masked:
        parts.append(f"{masked} masked")
    if open_ > 0:
        parts.append(f"{open_} still to change")
    return FrameView(caption=" · ".join(parts), spans=tuple(_merged(_cells(trajectory, frame, since=since))))


def _cells(trajectory: Trajectory, frame: Frame, *, since: int) -> Iterator[Span]:
    """One span a token."""
    for token, final, step in zip(frame.tokens, trajectory.tokens, trajectory.revealed, strict=True):
        if token is None:
            yield Span(text=_block(final), look="mask")
        elif step > frame.step:
            yield Span(text=_shown(token), look="open")
        else:
            yield Span(text=_shown(token), look=_look(step, steps=trajectory.steps) if step > since else "")


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Joins neighbours of one look into one span; masks stay apart, so that they can be counted."""
    for look, group in groupby(spans, key=lambda span: span.look):
        if look == "mask":
            yield from group
        else:
            yield Span(text="".join(span.text for span in group), look=look)


def _look(step: int, *, steps: int) -> str:
    return f"r{reveal_bin(step, steps=steps)}" if step else "given"


def _shown(token: str) -> str:
    """A token's text with its line ends visible; a token without text gets a sign of its own."""
    return printable(token).replace("\n", "↵\n") or "∅"


def _block(final: str) -> str:
    """As wide as the token that comes to stand there, so that no text moves from frame to frame."""
    return "".join(sign if sign.isspace() else "x" for sign in _shown(final))
