"""Keys that change how a step is computed, and not what comes out of it."""

import math

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer

from cli.command import BYTES, newest, refused, succeeds, write_text
from remask.checkpoints import network_tensors
from remask.config.build.model import build_run, check_compiler
from remask.config.load import load_recipe
from remask.config.saved import load_model
from remask.errors import UserError
from remask.networks.running import Compiled, Recomputed, direct
from remask.parallel import ALONE
from remask.trainer import make_accelerator
from remask.training import train
from test_training import Scaling
from tiny import BOUND, cautious, constant, differing, everything, pattern_batches, tiny_state

CPU = torch.device("cpu")
STEPS = 30


class Half(Scaling):
    """float16 with a gradient scaler, as Accelerate makes it on a GPU and refuses to on a CPU."""

    def backward(self, loss, **kwargs):
        assert loss.dtype == torch.float32
        super().backward(loss, **kwargs)


def in_half(state) -> None:
    """Has the network computed in float16 and its logits given in float32, as Accelerate does."""
    forward = state.network.forward

    def narrow(*inputs, **named):
        with torch.autocast("cpu", dtype=torch.float16):
            logits = forward(*inputs, **named)
        assert logits.dtype == torch.float16
        return logits.float()

    state.network.forward = narrow


def losses(state, accelerator) -> list[float]:
    common = {"objective": BOUND, "batches": pattern_batches(), "curve": constant, "clip": 1.0, "seed": 1}
    guard = cautious(state.network, steps=STEPS)
    return [
        step.loss for step in train(state, steps=STEPS, accelerator=accelerator, world=ALONE, guard=guard, **common)
    ]


def scaled(state, *, scale: float) -> Half:
    """float16 and a scaler of that scale for a state, whose optimisers are wrapped as Accelerate wraps them."""
    make_accelerator(CPU, precision="float32")  # optimisers are only wrapped where there is one
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
    state.optimizers = [AcceleratedOptimizer(o, device_placement=False, scaler=scaler) for o in state.optimizers]
    in_half(state)
    return Half(scaler, state.optimizers)


def apart(one: list[float], other: list[float]) -> float:
    """The mean difference between two loss curves, in nats a token."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def whole_losses(optimizer: str, *, learning_rate: float = 3e-3) -> list[float]:
    """The loss curve in float32."""
    state = tiny_state(optimizer=optimizer, learning_rate=learning_rate)
    return losses(state, make_accelerator(CPU, precision="float32"))


NEAR = {"adamw": 0.002, "muon": 0.01}
"""Nats a token, mean over steps. (Muon makes much of small differences: it lifts all directions alike.)"""


@pytest.mark.parametrize("optimizer", NEAR)
def test_bf16_gives_the_loss_curve_of_float32_within_rounding(optimizer):
    half, accelerator = tiny_state(optimizer=optimizer), make_accelerator(CPU, precision="bf16")
    half.network = accelerator.prepare(half.network)
    found, expected = losses(half, accelerator), whole_losses(optimizer)
    assert 0 < apart(expected, found) < NEAR[optimizer]
    assert {p.dtype for p in half.network.parameters()} == {torch.float32}


@pytest.mark.parametrize("optimizer", NEAR)
def test_fp16_with_scaling_gives_the_loss_curve_of_float32_within_rounding(optimizer):
    half = tiny_state(optimizer=optimizer)
    found, expected = losses(half, scaled(half, scale=2.0**12)), whole_losses(optimizer)
    assert 0 < apart(expected, found) < NEAR[optimizer]
    assert {p.dtype for p in half.network.parameters()} == {torch.float32}


def test_a_learning_rate_a_tenth_higher_gives_a_curve_that_is_further_away():
    """What the two tests above would miss is smaller than this."""
    assert apart(whole_losses("adamw"), whole_losses("adamw", learning_rate=3.3e-3)) > 2 * max(NEAR.values())


def test_steps_whose_scaled_gradient_overflows_change_nothing_and_halve_the_scale():
    """With a scale far too large at first, and for the weights of both optimisers alike."""
    state = tiny_state(optimizer="muon")
    accelerator = scaled(state, scale=2.0**24)
    common = {"objective": BOUND, "batches": pattern_batches(), "curve": constant, "clip": 1.0, "seed": 1}
    guard = cautious(state.network, steps=STEPS)
    before, scale, overflowed = weights(state), 2.0**24, []
    for step in train(state, steps=STEPS, accelerator=accelerator, world=ALONE, guard=guard, **common):
        overflowed.append(not math.isfinite(step.gradient_norm))
        assert accelerator.scaler.get_scale() == (scale / 2 if overflowed[-1] else scale)
        moved = differing(before, weights(state))
        assert moved == ([] if overflowed[-1] else [*before])
        before, scale = weights(state), accelerator.scaler.get_scale()
    assert overflowed[0]
    assert not any(overflowed[-10:])
    assert all(bool(torch.isfinite(value).all()) for value in everything(state).values())


def weights(state) -> dict[str, torch.Tensor]:
    """A copy of the trained weights."""
    return {name: p.detach().clone() for name, p in state.network.named_parameters()}


def test_gradient_checkpointing_changes_no_bit_of_a_run(tmp_path, monkeypatch):
    text, found = write_text(tmp_path / "text.txt"), []
    for given in ("false", "true"):
        home = tmp_path / given
        monkeypatch.setenv("REMASK_HOME", str(home))
        options = ["network.dropout=0.2", f"training.gradient_checkpointing={given}"]
        succeeds("train", "mdlm-file", f"data.source={text}", *BYTES, *options)
        model, _ = load_model(newest(home)[1].model_path, device=CPU)
        found.append(network_tensors(model.network))
    assert found[0].keys() == found[1].keys()
    assert [name for name, value in found[0].items() if not torch.equal(value, found[1][name])] == []


@pytest.mark.parametrize("compile", ["none", "inductor", "aot_eager"])
@pytest.mark.parametrize("recomputed", [False, True])
def test_a_recipe_says_how_layers_are_computed_in_training(compile, recomputed):
    keys = [f"training.compile={compile}", f"training.gradient_checkpointing={str(recomputed).lower()}"]
    inner = direct if compile == "none" else Compiled(compile)
    expected = Recomputed(inner) if recomputed else inner
    assert build_run(load_recipe("quickstart", keys).training) == expected


def test_a_machine_that_cannot_compile_is_told_so_before_the_run_exists(tmp_path, monkeypatch):
    def broken(function, **options):
        raise RuntimeError("No working C++ compiler found\nand much more")

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setenv("REMASK_HOME", str(tmp_path / "runs"))
    line = refused("train", "quickstart", *BYTES, "training.compile=inductor")
    assert "training.compile=inductor does not work on this machine" in line
    assert "No working C++ compiler found" in line
    assert "much more" not in line
    assert "training.compile=none" in line
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match="aot_eager"):
        check_compiler(load_recipe("quickstart", ["training.compile=aot_eager"]), CPU)
    check_compiler(load_recipe("quickstart", []), CPU)
