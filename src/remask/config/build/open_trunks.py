"""Causal language models opened to read by a mask of ours, from a recipe."""

from typing import Any

import torch

from remask.config import schema
from remask.config.pretrained import prepare_backbone, quiet, refuse_faults
from remask.networks.pretrained import PretrainedDenoiser
from remask.networks.reading import read_both_ways
from remask.tokenizers import Tokenizer


def open_trunk(
    spec: schema.AdaptedSpec, tokenizer: Tokenizer, *, places: int, length: int, device: torch.device
) -> Any:
    """A causal language model, looked at whether its attention obeys a mask; arguments as of `prepare_backbone`.

    Raises:
        UserError: as `remask.config.pretrained.build_pretrained`.
    """
    with quiet():
        backbone = prepare_backbone(spec, tokenizer, places=places, length=length, device=device)
        probe = PretrainedDenoiser(backbone, reading=read_both_ways, mask_id=tokenizer.mask_id, start_id=0).to(device)
        refuse_faults(backbone, probe, name=spec.name, vocab_size=tokenizer.vocab_size, device=device)
    return backbone
