"""A pretrained model's layers, found and computed again."""

from functools import partial

import pytest
import torch

from pretrained_models import CONFIGS, EOS, VOCABULARY, tiny_model
from remask.networks.mask_bias import MaskBias
from remask.networks.pretrained import PretrainedDenoiser
from remask.networks.reading import read_both_ways
from remask.networks.running import Recomputed, run_in_training
from remask.randomness import keyed_generator

MASK = VOCABULARY - 1


def denoiser(kind: str, **changes: float) -> PretrainedDenoiser:
    backbone = tiny_model(kind)
    for module in backbone.modules():
        for name in ("dropout", "attention_dropout"):
            if name in changes and hasattr(module, name):
                setattr(module, name, changes[name])
    return PretrainedDenoiser(backbone, reading=read_both_ways, mask_id=MASK, start_id=EOS).train()


def gradients(network: PretrainedDenoiser) -> dict[str, torch.Tensor]:
    ids = torch.randint(EOS, (2, 8), generator=keyed_generator(1))
    hidden = torch.rand(2, 8, generator=keyed_generator(2)) < 0.5
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        z, segments = torch.where(hidden, MASK, ids), torch.ones_like(ids)
        logits = network(z, torch.zeros(2), segments=segments, positions=hidden)
        loss = torch.nn.functional.cross_entropy(logits, ids[hidden])
    loss.backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", CONFIGS)
def test_recomputed_layers_of_pretrained_models_give_the_same_gradients_bit_for_bit(kind):
    make = partial(denoiser, kind, attention_dropout=0.2)
    recomputed, calls = make(), []

    def run(forward, *inputs, **named):
        calls.append(forward)
        return Recomputed()(forward, *inputs, **named)

    run_in_training(recomputed.repeated_layers(), run)
    expected, found = gradients(make()), gradients(recomputed)
    assert len(calls) == 2
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_repeated_layers_are_the_decoder_layers(kind):
    network = denoiser(kind)
    layers = [*MaskBias(network, MASK).repeated_layers()]
    names = {name for name, module in network.named_modules() if any(module is layer for layer in layers)}
    base = "backbone.transformer.h" if kind == "gpt2" else "backbone.model.layers"
    assert names == {f"{base}.0", f"{base}.1"}
