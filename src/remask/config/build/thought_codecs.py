"""Autoencoders of responses, from a recipe."""

from collections.abc import Mapping
from typing import Any

import torch

from remask.config import schema
from remask.config.build.thought_backbones import open_trunk
from remask.config.pretrained import rebuild_backbone
from remask.networks.thought.autoencoder import FrozenReader, OwnReader, Reader, TextAutoencoder, own_blocks
from remask.randomness import keyed_generator
from remask.tokenizers import Tokenizer


def build_text_autoencoder(
    recipe: schema.Recipe,
    spec: schema.TextAutoencoderNetworkSpec,
    tokenizer: Tokenizer,
    *,
    architecture: Mapping[str, Any] | None,
) -> TextAutoencoder:
    """An autoencoder of responses, on the CPU: weights drawn from the seed, but for those of a frozen reader.

    Args:
        recipe: the experiment.
        spec: its network.
        tokenizer: text ⇄ ids.
        architecture: of a saved model's frozen reader, whose weights are still to be put in; None: it is opened where
            the recipe says.

    Raises:
        UserError: as `remask.config.pretrained.build_pretrained`, of a frozen reader.
    """
    length = spec.length or recipe.data.length
    sizes = {"layers": spec.layers, "heads": spec.heads, "mlp_width": spec.hidden_width, "dropout": spec.dropout}
    if spec.encoder == "frozen":
        reader: Reader = build_frozen_reader(spec, tokenizer, length=length, architecture=architecture)
    else:
        blocks = own_blocks(spec.width, **sizes)
        reader = OwnReader(tokenizer.vocab_size, spec.width, blocks, head_width=spec.width // spec.heads)
    network = TextAutoencoder(
        vocab_size=tokenizer.vocab_size,
        reader=reader,
        length=length,
        stride=spec.stride,
        latent_width=spec.latent_width,
        width=spec.width,
        **sizes,
    )
    network.initialise(keyed_generator(recipe.seed, "weights"))
    return network


def build_frozen_reader(
    spec: schema.TextAutoencoderNetworkSpec,
    tokenizer: Tokenizer,
    *,
    length: int,
    architecture: Mapping[str, Any] | None,
) -> FrozenReader:
    """A language model that reads and is not trained; arguments as those of `build_text_autoencoder`."""
    if architecture is not None:
        return FrozenReader(rebuild_backbone(architecture).requires_grad_(False))
    assert spec.name is not None, "the schema refuses a frozen reader without a name"
    opened = schema.PretrainedSpec(name=spec.name)
    backbone = open_trunk(opened, tokenizer, places=length, length=length, device=torch.device("cpu"))
    return FrozenReader(backbone.requires_grad_(False))
