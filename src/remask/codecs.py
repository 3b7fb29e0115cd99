"""The finished autoencoder of texts that a prior over concepts, or a diffusion of thoughts, is trained around."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from remask.checkpoints import network_tensors, put_weights
from remask.config.pretrained import architecture_of
from remask.config.schema import (
    ConceptAutoencoderSpec,
    ConceptPriorSpec,
    Recipe,
    TextAutoencoderNetworkSpec,
    TextAutoencoderSpec,
)
from remask.data.batch import Batch
from remask.data.packing import Rows
from remask.errors import UserError
from remask.finished import model_folder, open_model
from remask.networks.concepts.prior import ConceptPriorNetwork
from remask.networks.thought import FrozenCodec, ThoughtNetwork
from remask.objectives.responses import Responses
from remask.tokenizers import Tokenizer

MEASURED = 2048
"""Training rows whose vectors give mean and scale."""
AT_ONCE = 256
"""Of them in a batch."""


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A finished autoencoder, as it goes into another network.

    Attributes:
        name: of its run or folder.
        recipe: its own.
        tensors: its weights by name.
        source: where they lie.
        reader: what a pretrained model that it reads by is built from again, JSON values; None where there is none.
    """

    name: str
    recipe: Recipe
    tensors: Mapping[str, Tensor]
    source: Path
    reader: Mapping[str, Any] | None = None

    @property
    def architecture(self) -> dict[str, Any]:
        """What a network around it is built from, JSON values."""
        return {"codec": self.recipe.model_dump(mode="json"), "reader": self.reader}

    def fill(self, network: nn.Module) -> None:
        """Puts its weights into the network that is around it."""
        if isinstance(network, ThoughtNetwork):
            assert isinstance(network.codec, FrozenCodec)
            put_weights(network.codec.filled, self.tensors, source=self.source)
            return
        assert isinstance(network, ConceptPriorNetwork)
        put_weights(network.codec, self.tensors, source=self.source)

    def measure(self, network: nn.Module, rows: Rows, *, eos_id: int) -> None:
        """Takes mean and scale of a thought's vectors from some training rows, evenly spread; else does nothing.

        Raises:
            UserError: it would lose the end of some training responses.
        """
        if not isinstance(network, ThoughtNetwork) or not isinstance(network.codec, FrozenCodec):
            return
        codec, device = network.codec, next(network.parameters()).device
        self._refuse_longer(rows, length=codec.length, eos_id=eos_id)
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), MEASURED)).astype(np.int64)
        batches = (rows.batch(part).to(device) for part in np.array_split(chosen, -(-len(chosen) // AT_ONCE)))
        codec.measure(
            Responses(ids=batch.ids, free=batch.targets, length=codec.length, eos_id=eos_id).tokens for batch in batches
        )

    def _refuse_longer(self, rows: Rows, *, length: int, eos_id: int) -> None:
        """Refuses training responses of more than `length` tokens; an end of text behind them needs no place."""
        parts = np.array_split(np.arange(len(rows)), -(-len(rows) // AT_ONCE))
        sizes = torch.cat([response_sizes(rows.batch(part), eos_id=eos_id) for part in parts])
        longest, longer = int(sizes.max()), int((sizes > length).sum())
        if not longer:
            return
        spec = self.recipe.network
        autoencoder = isinstance(spec, TextAutoencoderNetworkSpec)
        stride, key = (spec.stride, "network.length") if autoencoder else (1, "data.length")
        raise UserError(
            f"network.codec={self.name} holds {length} tokens of a response, and {longer:,} of {len(sizes):,} training "
            f"responses have more, up to {longest}: train it with {key}={-(-longest // stride) * stride} or more, or "
            "give shorter responses"
        )


def response_sizes(batch: Batch, *, eos_id: int) -> Int[Tensor, "B"]:
    """Tokens of each row's response, ends of text behind it left out."""
    at = batch.targets.cumsum(1)  # the place of a token in its response, from 1
    return torch.where(batch.targets & (batch.ids != eos_id), at, 0).amax(1)


def open_codec(recipe: Recipe, *, name: str, tokenizer: Tokenizer) -> Codec:
    """The codec of a recipe, which it fits.

    Args:
        recipe: of the prior, or of the thought.
        name: of the codec: its run's id, or its folder.
        tokenizer: of the recipe.

    Raises:
        UserError: there is no such model, it is of another objective, or text, rows or noise are others.
    """
    model, own = open_model(name, device=torch.device("cpu"))
    check = _check_prior if isinstance(recipe.objective, ConceptPriorSpec) else _check_thought
    check(recipe, own, name=name)
    if model.tokenizer.fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"network.codec={name} reads text with another tokenizer. Give the text and the tokenizer of its run"
        )
    return Codec(
        name=name,
        recipe=own,
        tensors=network_tensors(model.network),
        source=model_folder(name),
        reader=architecture_of(model.network),
    )


def _check_prior(recipe: Recipe, own: Recipe, *, name: str) -> None:
    spec = recipe.objective
    assert isinstance(spec, ConceptPriorSpec)
    if not isinstance(own.objective, ConceptAutoencoderSpec):
        raise UserError(
            f"network.codec={name} was trained with objective {own.objective.kind}: its decoder does not know noisy "
            "concepts. Give a run of recipe concept-autoencoder"
        )
    _refuse_other("data.length", own.data.length, recipe.data.length, name=name)
    _refuse_other("objective.latent_noise", own.objective.latent_noise, spec.latent_noise, name=name)
    _refuse_other("objective.latent_time", own.objective.latent_time, spec.latent_time, name=name)


def _refuse_other(key: str, there: object, here: object, *, name: str) -> None:
    if there != here:
        raise UserError(f"network.codec={name} was trained with {key}={there}, and this recipe has {here}: set it so")


def _check_thought(recipe: Recipe, own: Recipe, *, name: str) -> None:
    if not isinstance(own.objective, ConceptAutoencoderSpec | TextAutoencoderSpec):
        raise UserError(
            f"network.codec={name} was trained with objective {own.objective.kind}: no text can be written from its "
            "vectors alone. Give a run of recipe thought-codec or concept-autoencoder"
        )
    # only with ends of text as targets has it learned to write them behind a response
    _refuse_other("data.pad", own.data.pad, recipe.data.pad, name=name)
