"""Activations that follow from outputs: the gradients of plain autograd, and nothing kept that grows with depth."""

import math
from functools import partial

import pytest
import torch
from reversible_networks import HYBRID, MASK, affine, blocks_of, network
from test_recompute import gradients, kept_bytes, loss_of
from torch import nn

from remask.networks import BIDIRECTIONAL, CAUSAL, block_causal
from remask.networks import inverted as module
from remask.networks.couplings import Additive
from remask.networks.experts import Experts
from remask.networks.inverted import inverted, stored
from remask.networks.mask_bias import MaskBias
from remask.networks.reversible import inversion_error
from remask.networks.running import Recomputed, run_in_training

EXPERTS = partial(Experts, experts=4, per_token=2, balance_rate=0.01)
VARIANTS = {
    "additive": {},
    "affine": {"coupling": affine()},
    "hybrid": {"kinds": HYBRID, "coupling": affine()},
    "dropout": {"dropout": 0.4},
    "time": {"conditioned": True, "dropout": 0.2, "coupling": affine()},
    "causal": {"direction": CAUSAL},
    "context": {"direction": block_causal(4), "dropout": 0.2},
    "tied": {"tied": True},
    "experts": {"mlp": EXPERTS, "dropout": 0.2},
}
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def both(**options) -> list[nn.Module]:
    """The same network with its activations inverted and stored."""
    return [network(carry=carry, **options) for carry in (inverted, stored)]


def farthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference, over the largest entry of its kind."""
    assert one.keys() == other.keys()
    return max(float((one[name] - value).abs().max() / value.abs().max()) for name, value in other.items())


def with_inputs(built: nn.Module, loss) -> dict[str, torch.Tensor]:
    """Loss and gradients: of weights, and of what the stack reads (the embedded rows and the condition)."""
    taken = {}

    def take(_, inputs):
        for name, tensor in zip(("input", "condition"), inputs, strict=True):
            if tensor.requires_grad:
                tensor.retain_grad()
                taken[name] = tensor

    hook = built.blocks.register_forward_pre_hook(take)
    found = gradients(built, loss)
    hook.remove()
    return {**found, **{name: tensor.grad for name, tensor in taken.items()}}


# ── gradients ───────────────────────────────────────────────────────────────────────────────────────────────────────


@each_variant
def test_gradients_are_those_of_plain_autograd(variant):
    """In float64, of every weight, of the embedded rows and of the time; dropout draws the same units in both."""
    loss = partial(loss_of, doubled=variant == "context")
    one, other = (with_inputs(built.double(), loss) for built in both(**VARIANTS[variant]))
    assert ("condition" in one) == (variant == "time")
    assert "input" in one
    assert farthest(one, other) < 1e-9
    assert one.keys() >= {name for name, p in network(**VARIANTS[variant]).named_parameters() if p.requires_grad}


def under_autocast(built: nn.Module, *, length: int = 12) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return loss_of(built, doubled=False, length=length)


@pytest.mark.parametrize("variant", ["additive", "affine", "dropout", "time", "experts"])
def test_under_autocast_they_are_those_of_plain_autograd_too(variant):
    """Six blocks whose branches compute in bfloat16 are undone to the bits that these branches read."""
    one, other = both(**{**VARIANTS[variant], "kinds": "r" * 6})
    found, expected = gradients(one, under_autocast), gradients(other, under_autocast)
    # the time's network gets its gradient in bfloat16, as a sum over branches in another order
    inside = [{n: v for n, v in both.items() if not n.startswith("time.")} for both in (found, expected)]
    assert farthest(*inside) == 0.0
    assert farthest(found, expected) < 0.05
    assert inversion_error(one) < 1e-11
    plain = gradients(other, partial(loss_of, doubled=False))
    assert farthest(plain, expected) > 1e-3


def test_the_precision_is_that_of_the_forward_pass_wherever_the_backward_pass_runs():
    results = []
    for built in both(coupling=affine()):
        loss = loss_of(built, doubled=False)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss.backward()
        results.append({name: p.grad for name, p in built.named_parameters()})
    assert farthest(*results) == 0.0


def test_streams_in_float32_would_not_be_enough_under_autocast(monkeypatch):
    """Why a stretch carries float64: rounding of 1e-7 flips what bfloat16 rounds to, and grows at every block."""
    monkeypatch.setattr(module, "widened", lambda x: x)
    one, other = both(kinds="r" * 12, stir=0.3)
    long = partial(under_autocast, length=64)
    found, expected = gradients(one, long), gradients(other, long)
    assert farthest(found, expected) > 0.01
    assert inversion_error(one) > 0.01


def test_several_forward_passes_may_come_before_a_backward_pass():
    """Each has its own dropout, and both are of one stretch."""
    results = []
    for built in both(dropout=0.3, kinds=HYBRID):
        built.double()
        torch.manual_seed(3)
        first = loss_of(built, doubled=False)
        second = loss_of(built, doubled=False, length=9)
        assert not torch.equal(first, loss_of(built, doubled=False))
        (first + 2.0 * second).backward()
        results.append({name: p.grad for name, p in built.named_parameters()})
    assert farthest(*results) < 1e-9


def test_backward_passes_may_come_in_the_other_order():
    results = []
    for built in both(dropout=0.3):
        built.double()
        torch.manual_seed(3)
        first, second = loss_of(built, doubled=False), loss_of(built, doubled=False, length=9)
        second.backward()
        first.backward()
        results.append({name: p.grad for name, p in built.named_parameters()})
    assert farthest(*results) < 1e-9


def forgetful(stretch, streams, condition, *, seed, **shared):
    """Dropout that is drawn anew in the backward pass."""
    del seed
    return inverted(stretch, streams, condition, seed=None, **shared)


def test_dropout_that_is_drawn_anew_gives_other_gradients_and_is_seen():
    """The negative of the tests above: without the seed, what is undone is not what was there."""
    built = network(dropout=0.4, carry=forgetful).double()
    found = gradients(built, partial(loss_of, doubled=False))
    expected = gradients(network(dropout=0.4, carry=stored).double(), partial(loss_of, doubled=False))
    assert farthest(found, expected) > 0.01
    assert inversion_error(built) > 0.1


def test_dropout_takes_one_number_from_the_generator_and_none_where_nothing_is_dropped():
    """So the units that later layers drop do not depend on how activations are kept."""
    for dropout, draws in ((0.4, 1), (0.0, 0)):
        after = []
        for built in both(dropout=dropout):
            torch.manual_seed(11)
            loss_of(built, doubled=False).backward()
            after.append(torch.get_rng_state())
        torch.manual_seed(11)
        for _ in range(draws):
            torch.randint(2**62, ())
        assert all(torch.equal(state, torch.get_rng_state()) for state in after)


def test_every_branch_drops_units_of_its_own():
    built = network("rr", dropout=0.5)
    seeds = [half.seed for half in blocks_of(built).stretches[0].halves(seed=40)]
    assert seeds == [40, 41, 42, 43]


def test_a_second_derivative_is_refused():
    built = network()
    loss = loss_of(built, doubled=False)
    slope = torch.autograd.grad(loss, built.embedding.weight, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_frozen_weights_get_no_gradient():
    built, twin = both()
    for one in (built, twin):
        one.blocks[1].mlp.inner.out.weight.requires_grad_(False)
    found, expected = (gradients(one.double(), partial(loss_of, doubled=False)) for one in (built, twin))
    assert "blocks.1.mlp.inner.out.weight" not in found
    assert farthest(found, expected) < 1e-9


def test_weights_that_changed_since_the_forward_pass_are_refused():
    """As by plain autograd: what they undo is not what was there."""
    for built in both():
        loss = loss_of(built, doubled=False)
        with torch.no_grad():
            built.blocks[0].mlp.inner.out.weight.mul_(1.1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_a_weight_may_be_frozen_between_the_passes():
    """The others get the gradients that they had got."""
    built, twin = network().double(), network().double()
    loss = loss_of(built, doubled=False)
    frozen = built.blocks[1].mlp.inner.out.weight.requires_grad_(False)
    loss.backward()
    assert frozen.grad is None
    expected = gradients(twin, partial(loss_of, doubled=False))
    others = {name: p.grad for name, p in built.named_parameters() if p is not frozen}
    assert all(torch.equal(gradient, expected[name]) for name, gradient in others.items())


def test_experts_count_their_choices_twice_all_alike():
    """As layers do that are computed again: neither the shares nor the signs of the balance change."""
    counts = []
    for built in both(mlp=EXPERTS):
        loss_of(built, doubled=False).backward()
        counts.append([part.counted() for part in built.modules() if isinstance(part, Experts)])
    assert len(counts[0]) == 3
    assert all(torch.equal(twice, 2 * once) for twice, once in zip(*counts, strict=True))


# ── what is kept ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3, "conditioned": True}, {"mlp": EXPERTS}])
def test_bytes_kept_do_not_grow_with_depth(options):
    """Depth 2, 4 and 8: the same to the byte, where plain autograd keeps several streams more a block."""
    kept = {
        carry: [kept_bytes(network("r" * depth, carry=carry, **options)) for depth in (2, 4, 8)]
        for carry in (inverted, stored)
    }
    assert len(set(kept[inverted])) == 1
    slopes = [
        (b - a) / blocks
        for (a, b), blocks in zip(zip(kept[stored], kept[stored][1:], strict=False), (2, 4), strict=True)
    ]
    assert slopes[0] == pytest.approx(slopes[1], rel=0.1)
    assert slopes[0] > 3 * 12 * 16 * 4 * 8
    assert kept[inverted][0] < kept[stored][0]


def test_in_a_hybrid_stack_standard_blocks_alone_add_to_what_is_kept():
    plain = [kept_bytes(network(kinds)) for kinds in ("rrsr", "rrrrsrrr", "rsrs")]
    assert plain[0] == plain[1] < plain[2]


# ── the probe ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Skewed(Additive):
    """An inverse that is not quite one."""

    def inverse(self, y, update):
        return super().inverse(y, 1.001 * update)


def test_an_inverse_that_is_wrong_is_seen():
    errors = {}
    for coupling in (Additive, Skewed):
        built = network(coupling=coupling, stir=0.3)
        loss_of(built, doubled=False).backward()
        errors[coupling] = inversion_error(built)
    assert errors[Additive] < 1e-12
    assert errors[Skewed] > 1e-4


def test_the_largest_error_is_kept_until_the_next_step_begins():
    built = MaskBias(network(HYBRID, coupling=Skewed), MASK)
    assert inversion_error(built) is None
    loss_of(built, doubled=False).backward()
    first = inversion_error(built)
    stretches = blocks_of(built.network).stretches
    assert first == max(float(stretch.inversion_error.float()) for stretch in stretches) > 0
    for stretch in stretches:
        stretch.note(torch.tensor(first / 2))
    assert inversion_error(built) == first
    stretches[1].note(torch.tensor(math.nan))
    stretches[1].note(torch.tensor(1.0))
    assert math.isnan(inversion_error(built))
    built.begin_step(2)
    assert inversion_error(built) is None


def test_nothing_is_undone_where_activations_are_kept_or_no_gradient_is_wanted():
    for built in (network(carry=stored), network(None, layers=2), network().eval()):
        loss_of(built, doubled=False).backward()
        assert inversion_error(built) is None
    built = network()
    with torch.no_grad():
        loss_of(built, doubled=False)
    assert inversion_error(built) is None


def test_affine_scales_without_a_bound_to_speak_of_cannot_be_undone():
    """In 24 blocks whose log-scales reach 8 the streams leave float64; at 0.5 they stay within rounding."""
    errors = {}
    for limit in (0.5, 8.0):
        built = network("r" * 24, coupling=affine(limit=limit), stir=0.5)
        loss_of(built, doubled=False).backward()
        errors[limit] = inversion_error(built)
    assert errors[0.5] < 1e-9
    assert not errors[8.0] < 1e-2


# ── other ways of running ───────────────────────────────────────────────────────────────────────────────────────────


def test_stored_branches_may_be_computed_again_with_the_same_dropout():
    """Ordinary checkpointing beside it: branch by branch, bit for bit."""
    plain, recomputed = (network(HYBRID, dropout=0.4, carry=stored) for _ in range(2))
    run_in_training(recomputed.repeated_layers(), Recomputed())
    loss = partial(loss_of, doubled=False)
    expected, found = gradients(plain, loss), gradients(recomputed, loss)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert kept_bytes(recomputed) < kept_bytes(plain)


def test_evaluation_gives_the_logits_of_training_without_dropout():
    built = network(HYBRID)
    z, everywhere = torch.arange(12).view(2, 6), torch.ones(2, 6, dtype=torch.bool)
    run = partial(dict, segments=everywhere.long(), positions=everywhere)
    trained = built(z, torch.zeros(2), **run()).detach()
    assert torch.equal(built.eval()(z, torch.zeros(2), **run()).detach(), trained)
    assert built.direction is BIDIRECTIONAL
