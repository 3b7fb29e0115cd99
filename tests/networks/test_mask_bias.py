"""The number added to the [MASK] logit: what it changes, and where it travels."""

import torch

from remask.checkpoints import Checkpoints
from remask.networks.mask_bias import MaskBias
from remask.optimisation import MovingAverage
from remask.training import TrainingState
from tiny import LENGTH, MASK, V, everything, pattern_rows, run_steps, tiny_network, tiny_optimizers


def biased_state(kind: str = "adamw") -> TrainingState:
    network = MaskBias(tiny_network(), MASK)
    return TrainingState(network, tiny_optimizers(network, kind), MovingAverage(network, decay=0.5))


def arguments():
    ids = pattern_rows(3, seed=1)
    positions = torch.rand(3, LENGTH, generator=torch.Generator().manual_seed(1)) < 0.5
    return (ids, torch.zeros(3)), {"segments": torch.ones_like(ids), "positions": positions}


def test_the_bias_is_added_to_the_mask_logit_alone():
    network = MaskBias(tiny_network(), MASK)
    positional, named = arguments()
    plain = network.network(*positional, **named)
    assert torch.equal(network(*positional, **named), plain), "it begins at zero"
    network.mask_logit_bias.fill_(2.5)
    expected = plain.clone()
    expected[:, MASK] += 2.5
    torch.testing.assert_close(network(*positional, **named), expected)
    assert expected.shape[1] == V


def test_no_gradient_and_no_optimiser_moves_the_bias():
    for kind in ("adamw", "muon"):
        state = biased_state(kind)
        state.network.mask_logit_bias.fill_(1.25)
        run_steps(state, 2)
        assert state.network.mask_logit_bias.tolist() == [1.25]
        assert state.network.mask_logit_bias.grad is None


def test_the_bias_travels_with_checkpoints_and_with_the_moving_average(tmp_path):
    state, restored = biased_state(), biased_state()
    run_steps(state, 1)
    state.network.mask_logit_bias.fill_(-0.75)
    state.average.update(state.network, step=1000)
    assert state.average.average["mask_logit_bias"].tolist() == [-0.375]
    Checkpoints(tmp_path, keep=1).save(state, extra={})
    Checkpoints(tmp_path, keep=1).load_newest(restored)
    assert restored.network.mask_logit_bias.tolist() == [-0.75]
    for name, value in everything(state).items():
        assert torch.equal(everything(restored)[name], value), name
    with state.average.applied(state.network):
        assert state.network.mask_logit_bias.tolist() == [-0.375]


def test_the_network_inside_is_asked_for_its_matrices_and_told_the_step():
    inner = tiny_network()
    assert [id(p) for p in MaskBias(inner, MASK).hidden_matrices()] == [id(p) for p in inner.hidden_matrices()]
    MaskBias(inner, MASK).begin_step(3)  # one that does not change hears nothing
    told = []
    inner.begin_step = told.append
    MaskBias(inner, MASK).begin_step(3)
    assert told == [3]
