"""Left-to-right sampling of an autoregressive model: one token a step, exact."""

import torch
from jaxtyping import Int
from torch import Tensor

from remask.randomness import draw_categorical, widest_float
from remask.samplers.base import Frame, OnStep, Prompt, Transform, silent
from remask.samplers.reading import NextTokenModel, PrefixReading, Reading, reader_of
from remask.samplers.transforms import identity


@torch.no_grad()
def left_to_right(
    model: NextTokenModel,
    *,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform = identity,
    on_step: OnStep = silent,
    stop: int | None = None,
) -> Int[Tensor, "B L"]:
    """Draws x_i ~ p(x_i | x_{<i}) for i = 1 … L, leaving the prompt's tokens as they are.

    A fixed token after a gap is kept but not looked ahead to: the model cannot see it. Without a transform this
    draws exactly from the model, given a prompt that is a prefix. Keys and values are kept where the model can.

    Args:
        model: a causal network.
        prompt: given tokens, and the shape [B L].
        generator: on the model's device; nothing else is random.
        transform: changes logits before each draw.
        on_step: sees the start and the state after each position.
        stop: an id that ends a row when it is drawn behind the row's last given token: the rest of the row is filled
            with it. Tokens before it are those drawn without `stop`. When all rows have ended no call is made.

    Returns:
        Tokens [B L].
    """
    z = prompt.over(torch.full_like(prompt.ids, model.mask_id))
    length, read = z.shape[1], 0
    reading = begin_prefix(model, prompt)
    behind = prompt.behind()
    ended = torch.zeros_like(prompt.fixed[:, 0])
    on_step(Frame(step=0, t=1.0, z=z.clone()))
    for i in range(length):
        wanted = ~prompt.fixed[:, i] & ~ended
        if bool(wanted.any()):
            reading.extend(z[:, read:i])
            read = i
            drawn = _draw(model, reading, z[:, i : i + 1], generator=generator, transform=transform)
            z[:, i] = torch.where(wanted, drawn, z[:, i])
        if stop is not None:
            z[:, i] = torch.where(ended & ~prompt.fixed[:, i], stop, z[:, i])
            ended = ended | (behind[:, i] & (z[:, i] == stop))
        on_step(Frame(step=i + 1, t=1.0 - (i + 1) / length, z=z.clone()))
    return z


def begin_prefix(model: NextTokenModel, prompt: Prompt) -> Reading:
    """The start of a prompt's rows, with a cache where the model has one."""
    reader = reader_of(model)
    if reader is None:
        return PrefixReading(model=model, tokens=prompt.ids[:, :0])
    return reader.begin(*prompt.ids.shape, device=prompt.ids.device)


def _draw(
    model: NextTokenModel,
    reading: Reading,
    z: Int[Tensor, "B 1"],
    *,
    generator: torch.Generator,
    transform: Transform,
) -> Int[Tensor, "B"]:
    """The next token of every row, those that need none included: a row's draws do not depend on the others' ends."""
    everywhere = torch.ones_like(z, dtype=torch.bool)
    clean = torch.zeros(len(z), dtype=torch.float32, device=z.device)
    logits = reading.logits(z, clean, positions=everywhere)
    logits = logits.index_fill(-1, torch.tensor([model.mask_id], device=z.device), -torch.inf)
    return draw_categorical(transform(logits).to(widest_float(z.device)).softmax(-1), generator=generator)
