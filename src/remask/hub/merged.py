"""A run's pretrained model as an ordinary model of transformers, which needs no remask."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from remask.backbones.layouts import layout_of
from remask.backbones.merging import write_merged
from remask.config.adaptation import plain_items, plain_tensors
from remask.config.saved import load_model
from remask.errors import UserError
from remask.finished import model_folder
from remask.hub.tokenizer import transformers_tokenizer
from remask.networks.pretrained_experts import UnfusedExperts


def export_merged(reference: str, folder: Path) -> Path:
    """Writes the pretrained model within a run, with what it learned added to its weights.

    Where the network has a vector for the mask, it becomes the mask's row of the embeddings. Attention is the
    library's own, causal: how remask lays rows out is no part of such a folder.

    Args:
        reference: a run id, a unique prefix, `last`, or a folder.
        folder: made where it is missing, and otherwise empty.

    Raises:
        UserError: when the run is unknown, unfinished or around no pretrained model, or the folder is not empty.
    """
    model, _ = load_model(model_folder(reference), device=torch.device("cpu"))
    owner = next((module for module in model.network.modules() if hasattr(module, "backbone")), None)
    if owner is None:
        raise UserError(f"{reference}: --merged is for pretrained models, and its network was made from scratch")
    backbone: Any = owner.backbone
    embeddings = _row_names(backbone)
    mask = getattr(owner, "mask_embedding", None)
    tensors = _with_mask(published_items(backbone), names=embeddings, row=model.mask_id, vector=mask)
    write_merged(backbone.config, tensors, folder, kind=type(backbone).__name__)
    transformers_tokenizer(model.tokenizer, length=model.length).save_pretrained(folder)
    return folder


def _row_names(backbone: Any) -> frozenset[str]:
    """What the table of embeddings is called."""
    words = backbone.get_input_embeddings()
    return frozenset(f"{name}.weight" for name, module in backbone.named_modules() if module is words)


def _with_mask(
    tensors: Iterator[tuple[str, Tensor]], *, names: frozenset[str], row: int, vector: Tensor | None
) -> Iterator[tuple[str, Tensor]]:
    for name, value in tensors:
        if name in names and vector is not None:
            value = value.clone()
            value[row] = vector.detach().to(value)
        yield name, value


def published_items(backbone: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model, updates added and 4 bits as what they stand for, by the names of published files.

    Args:
        backbone: the library's model, with its experts unfused or fused.
    """
    layout = layout_of(backbone.config)
    if layout is not None and any(isinstance(module, UnfusedExperts) for module in backbone.modules()):
        yield from ((layout.stored(name), value) for name, value in plain_items(backbone))
        return
    if layout is None:
        yield from plain_items(backbone)
        return
    for name, value in plain_tensors(backbone).items():
        yield from _unfused(name, value, stored=layout.stored)


def _unfused(name: str, value: Tensor, *, stored: Any) -> Iterator[tuple[str, Tensor]]:
    """A fused tensor as the layers it holds; any other as it is."""
    owner, experts, part = name.partition(".experts.")
    if not experts or part not in ("gate_up_proj", "down_proj"):
        yield stored(name), value
        return
    for number, expert in enumerate(value):
        parts = (
            {"down_proj": expert}
            if part == "down_proj"
            else dict(zip(("gate_proj", "up_proj"), expert.chunk(2), strict=True))
        )
        for projection, weight in parts.items():
            yield stored(f"{owner}.experts.{number}.{projection}.weight"), weight
