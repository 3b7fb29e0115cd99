"""Left-to-right sampling of an autoregressive model: one token a step, exact."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.randomness import draw_categorical, widest_float
from remask.samplers.base import Frame, OnStep, Prompt, Transform, silent
from remask.samplers.transforms import identity


@runtime_checkable
class NextTokenModel(Protocol):
    """A model whose logits at position i depend on the tokens before i alone."""

    @property
    def mask_id(self) -> int:
        """The id that text never holds; it stands for what is not drawn yet."""
        ...

    def logits(
        self, z: Int[Tensor, "B L"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "M V"]:
        """Logits at the true places of `positions`, in row-major order."""
        ...


@torch.no_grad()
def left_to_right(
    model: NextTokenModel,
    *,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform = identity,
    on_step: OnStep = silent,
) -> Int[Tensor, "B L"]:
    """Draws x_i ~ p(x_i | x_{<i}) for i = 1 … L, leaving the prompt's tokens as they are.

    A fixed token after a gap is kept but not looked ahead to: the model cannot see it. Without a transform this
    draws exactly from the model, given a prompt that is a prefix.

    Args:
        model: a causal network.
        prompt: given tokens, and the shape [B L].
        generator: on the model's device; nothing else is random.
        transform: changes logits before each draw.
        on_step: sees the start and the state after each position.

    Returns:
        Tokens [B L].
    """
    z = prompt.over(torch.full_like(prompt.ids, model.mask_id))
    count, length = z.shape
    clean = torch.zeros(count, dtype=torch.float32, device=z.device)
    on_step(Frame(step=0, t=1.0, z=z.clone()))
    for i in range(length):
        if not bool(prompt.fixed[:, i].all()):
            here = torch.zeros_like(prompt.fixed)
            here[:, i] = True
            logits = model.logits(z[:, : i + 1], clean, positions=here[:, : i + 1])
            logits = logits.index_fill(-1, torch.tensor([model.mask_id], device=z.device), -torch.inf)
            drawn = draw_categorical(transform(logits).to(widest_float(z.device)).softmax(-1), generator=generator)
            z[:, i] = torch.where(prompt.fixed[:, i], z[:, i], drawn)
        on_step(Frame(step=i + 1, t=1.0 - (i + 1) / length, z=z.clone()))
    return z
