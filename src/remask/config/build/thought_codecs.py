"""Autoencoders of responses, to be trained or as codecs of thoughts, from a recipe."""

from collections.abc import Mapping
from typing import Any

import torch

from remask.config import schema
from remask.config.build.concepts import build_concept_network
from remask.config.build.latents import build_channel, codec_recipe
from remask.config.build.open_trunks import open_trunk
from remask.config.pretrained import rebuild_backbone
from remask.networks.thought import FrozenCodec
from remask.networks.thought.autoencoder import FrozenReader, OwnReader, Reader, TextAutoencoder, own_blocks
from remask.networks.thought.codecs import ConceptCodec
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


def codec_vectors(own: schema.Recipe) -> int:
    """Vectors that the codec of a recipe of its own gives a response."""
    if isinstance(own.network, schema.ConceptSpec):
        assert own.network.slot_count is not None, "the schema refuses an encoder without a fixed number of concepts"
        return own.network.slot_count
    assert isinstance(own.network, schema.TextAutoencoderNetworkSpec), "refused where it was opened"
    return (own.network.length or own.data.length) // own.network.stride


def build_frozen_codec(
    recipe: schema.Recipe, tokenizer: Tokenizer, *, architecture: Mapping[str, Any] | None
) -> FrozenCodec:
    """The codec of a thought, on the CPU; its weights are put in, and its vectors measured, by whoever has them.

    Args:
        recipe: of the thought.
        tokenizer: the codec's, too.
        architecture: `codec`, its recipe, and `reader`, what its frozen reader is built from again.

    Raises:
        UserError: nobody says what the codec is.
    """
    own = codec_recipe(recipe, architecture)
    assert architecture is not None
    if isinstance(own.network, schema.ConceptSpec):
        assert isinstance(own.objective, schema.ConceptAutoencoderSpec), "refused where it was opened"
        length, channel = own.data.length, build_channel(own.objective, own.network)
        network = build_concept_network(own.network, tokenizer, length=length, seed=own.seed)
        heard, _ = channel.process.coefficients(torch.tensor(channel.time, dtype=torch.float64, device="cpu"))
        autoencoder = ConceptCodec(network, length=length, mask_id=tokenizer.mask_id, heard=float(heard))
    else:
        assert isinstance(own.network, schema.TextAutoencoderNetworkSpec), "refused where it was opened"
        autoencoder = build_text_autoencoder(own, own.network, tokenizer, architecture=architecture.get("reader"))
    return FrozenCodec(autoencoder, start=recipe.data.length, eos_id=tokenizer.eos_id, origin=architecture)
