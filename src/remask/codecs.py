"""The finished autoencoder of texts that a prior over concepts is trained around."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from remask.checkpoints import network_tensors, put_weights
from remask.config.schema import ConceptAutoencoderSpec, ConceptPriorSpec, Recipe
from remask.errors import UserError
from remask.finished import model_folder, open_model
from remask.networks.concepts.prior import ConceptPriorNetwork
from remask.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A finished autoencoder, as it goes into another network.

    Attributes:
        name: of its run or folder.
        recipe: its own.
        tensors: its weights by name.
        source: where they lie.
    """

    name: str
    recipe: Recipe
    tensors: Mapping[str, Tensor]
    source: Path

    @property
    def architecture(self) -> dict[str, Any]:
        """What a network around it is built from, JSON values."""
        return {"codec": self.recipe.model_dump(mode="json")}

    def fill(self, network: nn.Module) -> None:
        """Puts its weights into the network that is around it."""
        assert isinstance(network, ConceptPriorNetwork)
        put_weights(network.codec, self.tensors, source=self.source)


def open_codec(recipe: Recipe, *, name: str, tokenizer: Tokenizer) -> Codec:
    """The codec of a recipe, which it fits.

    Args:
        recipe: of the prior.
        name: of the codec: its run's id, or its folder.
        tokenizer: of the recipe.

    Raises:
        UserError: there is no such model, it is of another objective, or text, rows or noise are others.
    """
    model, own = open_model(name, device=torch.device("cpu"))
    spec = recipe.objective
    assert isinstance(spec, ConceptPriorSpec), "the schema refuses another objective"
    if not isinstance(own.objective, ConceptAutoencoderSpec):
        raise UserError(
            f"network.codec={name} was trained with objective {own.objective.kind}: its decoder does not know noisy "
            "concepts. Give a run of recipe concept-autoencoder"
        )
    if model.tokenizer.fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"network.codec={name} reads text with another tokenizer. Give the text and the tokenizer of its run"
        )
    for key, there, here in (
        ("data.length", own.data.length, recipe.data.length),
        ("objective.latent_noise", own.objective.latent_noise, spec.latent_noise),
        ("objective.latent_time", own.objective.latent_time, spec.latent_time),
    ):
        if there != here:
            raise UserError(
                f"network.codec={name} was trained with {key}={there}, and this recipe has {here}: set it so"
            )
    return Codec(name=name, recipe=own, tensors=network_tensors(model.network), source=model_folder(name))
