"""Prompts as transformers hands them over, and texts as it wants them back.

Shape letters: B prompts, P tokens of the longest, L tokens of prompt and text.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from remask.errors import UserError


def prompt_rows(
    inputs: Int[Tensor, "B P"] | None,
    input_ids: Int[Tensor, "B P"] | None,
    attention_mask: Int[Tensor, "B P"] | None,
    *,
    device: torch.device,
) -> list[Int[Tensor, "_"]]:
    """The tokens of each prompt without its padding; one empty prompt where none is given.

    Raises:
        UserError: when prompts come under both names, or are padded elsewhere than on the left.
    """
    if inputs is not None and input_ids is not None:
        raise UserError("prompts were given as inputs and as input_ids. Give one of them")
    ids = input_ids if inputs is None else inputs
    if ids is None:
        return [torch.zeros(0, dtype=torch.int64, device=device)]
    ids = ids.to(device)
    if attention_mask is None:
        return list(ids)
    seen = attention_mask.to(device).bool()
    if seen.shape != ids.shape:
        raise UserError(f"attention_mask has shape {list(seen.shape)} and the prompts {list(ids.shape)}. Make them one")
    if bool((seen[:, 1:] < seen[:, :-1]).any()):
        raise UserError("the prompts are padded on the right: the text follows a prompt, so use padding_side='left'")
    return [row[here] for row, here in zip(ids, seen, strict=True)]


def check_ids(prompts: Sequence[Tensor], *, size: int) -> None:
    """Refuses token ids that the model's tokenizer does not have.

    Raises:
        UserError: with the first of them.
    """
    for prompt in prompts:
        outside = prompt[(prompt < 0) | (prompt >= size)]
        if len(outside):
            raise UserError(
                f"the prompt holds the id {int(outside[0])}; this model's are 0 to {size - 1}. Use its own tokenizer"
            )


def by_length(prompts: Sequence[Tensor]) -> dict[int, list[int]]:
    """Length → the places of the prompts of that length, in order."""
    places: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        places.setdefault(len(prompt), []).append(place)
    return places


def until_end(texts: Int[Tensor, "B L"], fixed: Bool[Tensor, "B L"], *, eos_id: int) -> Int[Tensor, "B L"]:
    """Texts with nothing but ends of text after the first one that was drawn; prompts stay."""
    ended = ((texts == eos_id) & ~fixed).long().cumsum(-1) > 0
    return texts.masked_fill(ended & ~fixed, eos_id)
