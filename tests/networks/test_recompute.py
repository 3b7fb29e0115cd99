"""Activations that are computed again: the same gradients bit for bit, fewer bytes kept."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from remask.networks import BIDIRECTIONAL, CAUSAL, Transformer, block_causal
from remask.networks.blocks import (
    Final,
    GatedMLP,
    ModulatedFinal,
    ModulatedResidual,
    Residual,
    TimeEmbedding,
    Timeless,
    bounded,
)
from remask.networks.experts import Experts
from remask.networks.mask_bias import MaskBias
from remask.networks.running import InTraining, Recomputed, run_in_training
from remask.networks.stacks import straight
from remask.randomness import keyed_generator

V, MASK, B, L, WIDTH = 20, 19, 3, 12, 16
PLAIN = {"direction": BIDIRECTIONAL, "time": "none"}
VARIANTS = {
    "plain": PLAIN,
    "dropout": {**PLAIN, "dropout": 0.4},
    "adaln": {**PLAIN, "time": "adaln", "dropout": 0.2},
    "causal": {**PLAIN, "direction": CAUSAL},
    "context": {**PLAIN, "direction": block_causal(4), "dropout": 0.2},
    "experts": {**PLAIN, "dropout": 0.2, "mlp": partial(Experts, experts=4, per_token=2, balance_rate=0.01)},
}
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def make(*, direction, time, dropout=0.0, layers=3, mlp=GatedMLP) -> Transformer:
    modulated = {"condition_width": WIDTH, "bound": bounded}
    conditioned = time == "adaln"
    residual = partial(ModulatedResidual, **modulated) if conditioned else Residual
    network = Transformer(
        vocab_size=V,
        mask_id=MASK,
        width=WIDTH,
        layers=layers,
        heads=2,
        mlp_width=2 * WIDTH,
        direction=direction,
        time=TimeEmbedding(WIDTH) if conditioned else Timeless(),
        stack=partial(straight, residual=partial(residual, dropout=dropout)),
        final=partial(ModulatedFinal, **modulated) if conditioned else Final,
        mlp=mlp,
    )
    network.initialise(keyed_generator(1))
    generator = keyed_generator(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.train()


def loss_of(network: nn.Module, *, doubled: bool, length: int = L) -> torch.Tensor:
    """A loss on fixed rows, whose clean context the network reads too where it can."""
    clean = torch.randint(MASK, (B, length), generator=keyed_generator(3))
    hidden = torch.rand(B, length, generator=keyed_generator(4)) < 0.5
    context = {"context": clean} if doubled else {}
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    z = torch.where(hidden, MASK, clean)
    logits = network(z, t, segments=torch.ones_like(clean), positions=hidden, **context)
    return nn.functional.cross_entropy(logits.float(), clean[hidden])


def gradients(network: nn.Module, loss: Callable[[nn.Module], torch.Tensor]) -> dict[str, torch.Tensor]:
    """The loss and every gradient, dropout drawn from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        value = loss(network)
    value.backward()
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return {"loss": value.detach(), **found}


def kept_bytes(network: nn.Module) -> int:
    """Bytes of the distinct tensors, weights left out, that a loss keeps for its backward pass."""
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(network, doubled=False)
    del loss
    return sum(kept.values())


@each_variant
def test_recomputed_layers_give_the_same_loss_and_gradients_bit_for_bit(variant):
    loss = partial(loss_of, doubled=variant == "context")
    plain, recomputed = make(**VARIANTS[variant]), make(**VARIANTS[variant])
    run_in_training(recomputed.repeated_layers(), Recomputed())
    expected, found = gradients(plain, loss), gradients(recomputed, loss)
    trained = {name for name, p in plain.named_parameters() if p.requires_grad}
    assert expected.keys() == found.keys() == {"loss", *trained}
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_recomputation_draws_the_same_dropout_and_not_just_any():
    """Without the generator's state put back the gradient is another one."""
    variant = VARIANTS["dropout"]
    forgetful = make(**variant)

    def forget(forward, *inputs, **named):
        named |= {"use_reentrant": False, "preserve_rng_state": False}
        return checkpoint(forward, *inputs, **named)

    run_in_training(forgetful.repeated_layers(), forget)
    loss = partial(loss_of, doubled=False)
    expected, found = gradients(make(**variant), loss), gradients(forgetful, loss)
    assert torch.equal(expected["loss"], found["loss"])
    name = "blocks.0.mlp.inner.out.weight"
    assert not torch.allclose(expected[name], found[name], rtol=1e-2)


def test_under_autocast_recomputed_layers_use_the_same_arithmetic():
    def loss(network):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss_of(network, doubled=False)

    plain, recomputed = make(**PLAIN), make(**PLAIN)
    run_in_training(recomputed.repeated_layers(), Recomputed())
    expected, found = gradients(plain, loss), gradients(recomputed, loss)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_recomputed_layers_keep_their_inputs_alone():
    """Kept bytes grow with depth by one stream [B L D] a layer, and many times faster without."""
    slopes = {}
    for name, run in {"plain": None, "recomputed": Recomputed()}.items():
        sizes = []
        for layers in (2, 6):
            network = make(**PLAIN, layers=layers)
            if run is not None:
                run_in_training(network.repeated_layers(), run)
            sizes.append(kept_bytes(network))
        slopes[name] = (sizes[1] - sizes[0]) / 4
    stream = B * L * WIDTH * 4
    assert stream <= slopes["recomputed"] <= 1.1 * stream
    assert slopes["plain"] > 8 * stream


def test_names_and_weights_stay_as_they_are():
    plain, recomputed = make(**PLAIN), make(**PLAIN)
    run_in_training(recomputed.repeated_layers(), Recomputed())
    assert [*plain.state_dict()] == [*recomputed.state_dict()]
    recomputed.load_state_dict(plain.state_dict())


def test_layers_run_directly_in_evaluation():
    calls = []

    def counted(forward, *inputs, **named):
        calls.append(forward)
        return forward(*inputs, **named)

    network = make(**PLAIN)
    run_in_training(network.repeated_layers(), counted)
    with torch.no_grad():
        loss_of(network.eval(), doubled=False)
        assert calls == []
        loss_of(network.train(), doubled=False)
    assert len(calls) == 3


def test_a_copied_network_runs_its_own_weights():
    network = make(**PLAIN)
    run_in_training(network.repeated_layers(), Recomputed())
    other = copy.deepcopy(network)
    for layer, copied in zip(network.repeated_layers(), other.repeated_layers(), strict=True):
        assert isinstance(copied.forward, InTraining)
        assert copied.forward.layer is copied is not layer
    with torch.no_grad():
        before = loss_of(other, doubled=False)
        for parameter in network.parameters():
            parameter.zero_()
        assert torch.equal(loss_of(other, doubled=False), before)


def test_a_bias_around_a_network_has_the_layers_of_what_it_wraps():
    network = make(**PLAIN)
    assert [*MaskBias(network, MASK).repeated_layers()] == [*network.blocks]
