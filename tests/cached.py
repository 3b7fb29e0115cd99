"""Whole tiny models in float64 whose networks read from left to right, and what their networks computed."""

from functools import partial

import torch

from remask.model import Model
from remask.networks import Direction, Transformer
from remask.networks.blocks import Residual, Timeless
from remask.networks.stacks import straight
from remask.objectives import NextToken
from remask.processes import CategoricalProcess, Masking
from remask.randomness import keyed_generator
from remask.schedules import Linear
from remask.tokenizers import character_tokenizer

TOKENIZER = character_tokenizer(["abc"])
V, MASK, END = TOKENIZER.vocab_size, TOKENIZER.mask_id, TOKENIZER.eos_id
MASKING = Masking(schedule=Linear(), vocab_size=V, mask_id=MASK)


def make_model(direction: Direction, process: CategoricalProcess | None, *, seed: int = 1) -> Model:
    network = Transformer(
        vocab_size=V,
        mask_id=MASK,
        width=16,
        layers=2,
        heads=2,
        mlp_width=32,
        direction=direction,
        time=Timeless(),
        stack=partial(straight, residual=partial(Residual, dropout=0.0)),
    )
    network.initialise(keyed_generator(seed))
    generator = keyed_generator(seed, "stir")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return Model(
        network=network.double().eval(),
        process=process,
        objective=NextToken(mask_id=MASK),
        tokenizer=TOKENIZER,
        length=32,
    )


class Uncached:
    """The same model without a cache."""

    def __init__(self, model: Model) -> None:
        self.process, self.mask_id, self.logits = model.process, model.mask_id, model.logits


class Computed:
    """Counts the network's calls and the places of a row that they compute, from now on."""

    def __init__(self, model: Model) -> None:
        self.calls, self.places = 0, 0
        model.network.blocks[0].register_forward_pre_hook(self._count)

    def _count(self, module: object, given: tuple) -> None:
        self.calls += 1
        self.places += given[0].shape[1]
