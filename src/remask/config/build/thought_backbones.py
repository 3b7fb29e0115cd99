"""Thoughts on a pretrained language model, from a recipe."""

from collections.abc import Mapping
from typing import Any

import torch

from remask.backbones.placement import check_placement
from remask.config import schema
from remask.config.build.thought import around, writes
from remask.config.pretrained import adapt_backbone, prepare_backbone, quiet, rebuild_backbone, start_token
from remask.errors import UserError
from remask.networks.pretrained import PretrainedDenoiser
from remask.networks.reading import read_both_ways
from remask.networks.sight import attention_fault, habit_fault
from remask.networks.thought import PretrainedTrunk, ThoughtNetwork
from remask.tokenizers import Tokenizer


def build_pretrained_thought(
    recipe: schema.Recipe,
    spec: schema.ThoughtPretrainedSpec,
    tokenizer: Tokenizer,
    *,
    device: torch.device,
    architecture: Mapping[str, Any] | None,
) -> ThoughtNetwork:
    """A network of thoughts on a causal language model, on `device`.

    Args:
        recipe: the experiment.
        spec: its network.
        tokenizer: the model's own, with a mask.
        device: where the network goes.
        architecture: of a saved model, whose weights are still to be put in, without adapters; None: the model is
            opened where the recipe says.

    Raises:
        UserError: as `remask.config.pretrained.build_pretrained`.
    """
    opened = architecture is None
    if opened:
        # an answer stands behind the row
        length = recipe.data.length * (2 if writes(recipe) else 1)
        backbone = open_trunk(spec, tokenizer, places=length, length=recipe.data.length, device=device)
    else:
        backbone = rebuild_backbone(architecture)
    masks = bool(recipe.training.prompt_dropout) or spec.question == "hidden"
    trunk = PretrainedTrunk(backbone, mask_id=tokenizer.mask_id, reads_masks=masks)
    start = start_token(backbone.config, tokenizer)
    network = around(trunk, recipe, spec, tokenizer, start_id=start).to(device)
    if opened:
        adapt_backbone(backbone, spec, seed=recipe.seed)
        check_placement(network, device=device)
    return network.train()


def open_trunk(
    spec: schema.AdaptedSpec, tokenizer: Tokenizer, *, places: int, length: int, device: torch.device
) -> Any:
    """A causal language model, looked at whether its attention obeys a mask; arguments as of `prepare_backbone`.

    Raises:
        UserError: as `remask.config.pretrained.build_pretrained`.
    """
    with quiet():
        backbone = prepare_backbone(spec, tokenizer, places=places, length=length, device=device)
        size = tokenizer.vocab_size
        probe = PretrainedDenoiser(backbone, reading=read_both_ways, mask_id=tokenizer.mask_id, start_id=0).to(device)
        fault = habit_fault(backbone, device=device, vocab_size=size) or attention_fault(probe, vocab_size=size)
    if fault is not None:
        raise UserError(f"network.name={spec.name} ({backbone.config.model_type}) cannot be used: {fault}")
    return backbone
