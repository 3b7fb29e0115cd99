"""Block-wise sampling: blocks from left to right, and any sampler within a block.

Shape letters: B samples, L length, V vocabulary, K places of a block, M wanted positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.processes import CategoricalProcess
from remask.samplers.base import Denoiser, Frame, OnStep, Prompt, Transform, silent
from remask.samplers.reading import Reading, reader_of, row_reading
from remask.samplers.transforms import identity


@runtime_checkable
class Walk(Protocol):
    """A sampler over a time grid, such as `ancestral` or `confidence`."""

    def __call__(
        self,
        model: Denoiser,
        times: Sequence[float],
        *,
        prompt: Prompt,
        generator: torch.Generator,
        transform: Transform,
        on_step: OnStep,
    ) -> Int[Tensor, "B L"]:
        """Tokens of the prompt's shape."""
        ...


@dataclass(frozen=True, kw_only=True)
class BlockView:
    """One block as a model of its own, given what was read before it.

    Attributes:
        process: the noise that sampling undoes.
        reading: the tokens before the block.
    """

    process: CategoricalProcess
    reading: Reading

    def logits(
        self, z: Int[Tensor, "B K"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B K"]
    ) -> Float[Tensor, "M V"]:
        """Leave-one-out logits at the true places of `positions` of the block, in row-major order."""
        return self.reading.logits(z, t, positions=positions)


@torch.no_grad()
def blockwise(
    model: Denoiser,
    times: Sequence[float],
    *,
    prompt: Prompt,
    generator: torch.Generator,
    block_length: int,
    walk: Walk,
    transform: Transform = identity,
    on_step: OnStep = silent,
    stop: int | None = None,
) -> Int[Tensor, "B L"]:
    """Draws block after block from the left, each with `walk`, seeing the finished blocks before it.

    A network that is causal between blocks (BD3LM, arXiv:2503.09573, algorithm 2) reads each finished block once and
    keeps its keys and values. A network that sees both sides is shown whole rows, later blocks masked
    (semi-autoregressive sampling, LLaDA, arXiv:2502.09992). A block without free places costs no call.

    Args:
        model: network and process.
        times: the grid of each block, decreasing, usually from 1 to 0.
        prompt: given tokens, and the shape [B L].
        generator: on the model's device; nothing else is random.
        block_length: K, counted from the row's first place; the last block may be shorter.
        walk: the sampler within a block.
        transform: changes logits before each draw.
        on_step: sees the start and the state after each step of each block; t falls from 1 to 0 over the row, and
            what is not drawn yet shows as the mask.
        stop: an id that ends a row when it is drawn behind the row's last given token: the rest of the row, in the
            same block too, is filled with it. When all rows have ended no call is made.

    Returns:
        Tokens [B L].

    Raises:
        ValueError: when the network reads blocks of another length, or sees both sides and its noise is not masking.
    """
    reading = begin_blocks(model, prompt, block_length=block_length)
    view = BlockView(process=model.process, reading=reading)
    course = _Course(row=prompt.over(torch.full_like(prompt.ids, model.process.mask_id)), on_step=on_step)
    course.show(1.0)
    behind, ended = prompt.behind(), torch.zeros_like(prompt.fixed[:, 0])
    length = prompt.ids.shape[1]
    for start in range(0, length, block_length):
        end = min(start + block_length, length)
        block = _block_prompt(prompt, start, end, ended=ended, stop=stop)
        may_end = behind[:, start:end] & ~block.fixed
        drawn = block.ids
        if not bool(block.fixed.all()):
            watch = course.within(start, end, block_length=block_length, may_end=may_end, stop=stop)
            drawn = walk(view, times, prompt=block, generator=generator, transform=transform, on_step=watch)
        drawn, ended_here = fill_behind(drawn, stop, may_end=may_end)
        ended = ended | ended_here
        reading.extend(drawn)
        course.put(start, end, drawn)
    course.close()
    return course.row


def begin_blocks(model: Denoiser, prompt: Prompt, *, block_length: int) -> Reading:
    """The start of a prompt's rows, with a cache where the model has one.

    Raises:
        ValueError: as `blockwise`.
    """
    if block_length < 1:
        raise ValueError(f"block_length: {block_length} was given; a block holds 1 token or more")
    reader = reader_of(model)
    if reader is None:
        return row_reading(model, prompt)
    if reader.block_length != block_length:
        raise ValueError(
            f"block_length: {block_length} was given; the network reads blocks of {reader.block_length} tokens. Give "
            f"{reader.block_length}"
        )
    return reader.begin(*prompt.ids.shape, device=prompt.ids.device)


def fill_behind(
    z: Int[Tensor, "B K"], stop: int | None, *, may_end: Bool[Tensor, "B K"]
) -> tuple[Int[Tensor, "B K"], Bool[Tensor, "B"]]:
    """The tokens with `stop` behind the first `stop` that may end a row, and which rows have one; None ends none.

    Args:
        z: tokens.
        stop: the id, or None.
        may_end: free places with no given token behind them in the row.
    """
    if stop is None:
        return z, torch.zeros_like(may_end[:, 0])
    ends = may_end & (z == stop)
    return torch.where(may_end & (ends.cumsum(-1) > 0), stop, z), ends.any(-1)


def _block_prompt(prompt: Prompt, start: int, end: int, *, ended: Bool[Tensor, "B"], stop: int | None) -> Prompt:
    """The prompt of one block; rows that have ended are given as `stop` where they were free."""
    ids, fixed = prompt.ids[:, start:end], prompt.fixed[:, start:end]
    if stop is not None:
        ids = torch.where(ended[:, None] & ~fixed, stop, ids)
    return Prompt(ids=ids, fixed=fixed | ended[:, None])


@dataclass(kw_only=True)
class _Course:
    """The row being drawn, and its frames.

    Attributes:
        row: finished blocks, then what is shown for the rest [B L].
        on_step: sees the frames.
        step: steps taken so far.
    """

    row: Int[Tensor, "B L"]
    on_step: OnStep
    step: int = 0

    def __post_init__(self) -> None:
        self.shown = self.row

    def show(self, t: float) -> None:
        """Hands over the row as it is."""
        self.shown = self.row
        self.on_step(Frame(step=self.step, t=t, z=self.row))

    def put(self, start: int, end: int, drawn: Int[Tensor, "B K"]) -> None:
        """Puts a block's tokens into the row; frames shown before keep theirs."""
        self.row = torch.cat([self.row[:, :start], drawn, self.row[:, end:]], 1)

    def close(self) -> None:
        """Shows the result once more where rows were filled up without a walk."""
        if not torch.equal(self.row, self.shown):
            self.step += 1
            self.show(0.0)

    def within(
        self, start: int, end: int, *, block_length: int, may_end: Bool[Tensor, "B K"], stop: int | None
    ) -> OnStep:
        """Watches the walk of one block as steps of the row."""
        blocks = -(-self.row.shape[1] // block_length)
        before, index = self.step, start // block_length

        def watch(frame: Frame) -> None:
            if frame.step == 0:  # the block's start is the state that the last step left
                return
            self.step = before + frame.step
            self.put(start, end, fill_behind(frame.z, stop, may_end=may_end)[0])
            self.show(1.0 - (index + 1.0 - frame.t) / blocks)

        return watch
