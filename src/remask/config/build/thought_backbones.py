"""Thoughts on a pretrained language model, from a recipe."""

from collections.abc import Mapping
from typing import Any

import torch

from remask.backbones.placement import check_placement
from remask.config import schema
from remask.config.build.latents import codec_recipe
from remask.config.build.open_trunks import open_trunk
from remask.config.build.thought import around, writes
from remask.config.build.thought_codecs import codec_vectors
from remask.config.pretrained import adapt_backbone, rebuild_backbone, start_token
from remask.networks.thought import PretrainedTrunk, ThoughtNetwork
from remask.tokenizers import Tokenizer


def _places(recipe: schema.Recipe, architecture: Mapping[str, Any] | None) -> int:
    """Those of a row, of a codec's vectors behind it, and of an answer behind all."""
    codec = isinstance(recipe.network, schema.LatentTableSpec) and recipe.network.latent == "codec"
    vectors = codec_vectors(codec_recipe(recipe, architecture)) if codec else 0
    return recipe.data.length * (2 if writes(recipe) else 1) + vectors


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
            opened where the recipe says. With a codec, what it is, and under `trunk` what is said here.

    Raises:
        UserError: as `remask.config.pretrained.build_pretrained`.
    """
    body = architecture
    if spec.latent == "codec":
        body = None if architecture is None else architecture.get("trunk")
    opened = body is None
    if opened:
        length = recipe.data.length
        backbone = open_trunk(spec, tokenizer, places=_places(recipe, architecture), length=length, device=device)
    else:
        backbone = rebuild_backbone(body)
    masks = bool(recipe.training.prompt_dropout) or spec.question == "hidden"
    trunk = PretrainedTrunk(backbone, mask_id=tokenizer.mask_id, reads_masks=masks)
    start = start_token(backbone.config, tokenizer)
    network = around(trunk, recipe, spec, tokenizer, start_id=start, architecture=architecture).to(device)
    if opened:
        adapt_backbone(backbone, spec, seed=recipe.seed)
        check_placement(network, device=device)
    return network.train()
