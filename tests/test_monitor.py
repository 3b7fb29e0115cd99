"""The monitor on networks that really train: each failure is found at its step and named, and sound runs raise none."""

import json
import math
from dataclasses import dataclass, field, replace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from remask.guard import Guarded, cautious, report
from remask.monitor import Monitor, Seen, alone, checksum, first_broken_layer
from remask.objectives.base import Loss
from remask.optimisation import MovingAverage, constant
from remask.parallel import ALONE
from remask.randomness import keyed_generator
from remask.training import TrainingState, train
from tiny import BOUND, pattern_batches, tiny_network, tiny_optimizers

KINDS = ("non_finite", "explosion", "dead", "trivial", "collapse", "logit_gap")


@dataclass
class Watched:
    """A training under a monitor whose alarms are noted and let pass."""

    network: nn.Module = field(default_factory=tiny_network)
    learning_rate: float = 3e-3
    optimizers: list | None = None
    factor: float = 30.0
    alarms: list = field(default_factory=list)

    def __post_init__(self):
        self.monitor = Monitor(self.network, trivial={}, explosion_factor=self.factor, steps=1000)
        optimizers = self.optimizers or tiny_optimizers(self.network, learning_rate=self.learning_rate)
        self.state = TrainingState(self.network, optimizers, MovingAverage(self.network, decay=0.0))

    def run(self, steps, objective=BOUND):
        guard = Guarded(self.monitor, dict.fromkeys(KINDS, report), tell=self.alarms.append)
        common = {"accelerator": Accelerator(cpu=True), "curve": constant, "clip": 1.0, "seed": 1, "world": ALONE}
        batches = pattern_batches(start_step=self.state.step)
        for _ in train(self.state, objective=objective, batches=batches, steps=steps, guard=guard, **common):
            pass
        return [(alarm.step, alarm.name) for alarm in self.alarms]


@dataclass(frozen=True)
class From:
    """The bound, and from a step on something done to its loss."""

    step: int
    change: object
    now: int = 0
    exact: bool = False

    def at(self, step):
        return replace(self, now=step)

    def likelihood_terms(self, network, batch, *, generator, draws):
        raise NotImplementedError

    def __call__(self, network, batch, *, generator):
        loss = BOUND(network, batch, generator=generator)
        return self.change(loss, network) if self.now >= self.step else loss


def times(factor):
    """The loss of so many times its size."""
    return lambda loss, network: Loss(loss.nats * factor, loss.weight, {"part": (loss.nats * factor).detach().sum()})


def zero(loss, network):
    """No loss at all, as of a training step that failed and was passed over."""
    return Loss(torch.zeros_like(loss.nats, requires_grad=True), loss.weight, {})


def steep(loss, network):
    """A finite loss whose gradient at the head is not."""
    return Loss(loss.nats + (network.head.weight * 0.0).sum().sqrt(), loss.weight, loss.terms)


def seen(network, step, *, loss=2.0, norm=1.0, scaled=False, tokens=96, rerun=lambda: None):
    return Seen(step, loss, {"part": loss}, norm, tokens, network, scaled, rerun)


@pytest.mark.parametrize(("kind", "steps"), [("adamw", 30), ("muon", 12)])
def test_a_sound_training_raises_no_alarm(kind, steps):
    network = tiny_network()
    watched = Watched(network, optimizers=tiny_optimizers(network, kind))
    assert watched.run(steps) == []


# ── not finite ─────────────────────────────────────────────────────────────────────────────────────────────────


class Overflowing(nn.Module):
    """A layer whose activations overflow from some step on."""

    def __init__(self):
        super().__init__()
        self.factor = 1.0

    def forward(self, x, *args, **kwargs):
        return x * self.factor


def test_a_layer_that_overflows_is_named_with_the_term():
    network = tiny_network()
    network.blocks[0].mlp.inner.act = Overflowing()
    inner = network.blocks[0].mlp.inner
    plain = inner.forward
    inner.forward = lambda x, **named: inner.act(plain(x, **named))
    watched = Watched(network)
    watched.monitor.before_update(seen(network, 1))

    def overflow(loss, network):
        network.blocks[0].mlp.inner.act.factor = math.inf
        return loss

    watched.run(3, From(2, overflow))
    first = watched.alarms[0]
    assert (first.step, first.kind, first.name) == (3, "non_finite", "non-finite loss")
    assert "term: diffusion = nan" in first.evidence
    assert "first layer: blocks.0.mlp.inner.act (Overflowing)" in first.evidence


def test_a_weight_that_is_broken_is_named_before_any_layer():
    watched = Watched()
    with torch.no_grad():
        watched.network.blocks[0].attention.inner.qkv.weight[3, 2] = math.nan
    watched.run(1)
    assert "already not finite: the weights blocks.0.attention.inner.qkv.weight (float32)" in watched.alarms[0].evidence


def test_a_loss_that_breaks_behind_the_network_is_said_to():
    watched = Watched()
    assert watched.run(2, From(2, times(math.nan)))[0] == (2, "non-finite loss")
    assert "every layer's output is finite, the loss of them is not" in watched.alarms[0].evidence
    assert "term: part = nan" in watched.alarms[0].evidence


def test_a_gradient_that_is_not_finite_names_its_parameter():
    watched = Watched()
    assert watched.run(2, From(2, steep))[0] == (2, "non-finite gradient")
    assert "parameter: head.weight; norm nan" in watched.alarms[0].evidence


def test_float16_weights_are_named_as_the_cause():
    network = nn.Linear(2, 2, dtype=torch.float16)
    monitor = Monitor(network, trivial={}, explosion_factor=30, steps=10)
    (alarm,) = monitor.before_update(seen(network, 2, loss=math.nan))
    assert "weights in float16" in alarm.cause


def test_what_repeats_at_the_next_step_is_marked_so():
    network = tiny_network()
    monitor = Monitor(network, trivial={}, explosion_factor=30, steps=10)
    broken = [monitor.before_update(seen(network, step, loss=loss)) for step, loss in enumerate((math.nan,) * 2, 1)]
    assert [alarm.repeated for (alarm,) in broken] == [False, True]
    monitor.before_update(seen(network, 3))
    (again,) = monitor.before_update(seen(network, 4, loss=math.inf))
    assert not again.repeated


def test_a_gradient_scaler_may_overflow_but_not_twenty_times_in_a_row():
    network = tiny_network()
    monitor = Monitor(network, trivial={}, explosion_factor=30, steps=100)
    found = [monitor.before_update(seen(network, step, norm=math.inf, scaled=True)) for step in range(1, 20)]
    assert found == [[]] * 19
    (alarm,) = monitor.before_update(seen(network, 20, norm=math.nan, scaled=True))
    assert (alarm.kind, alarm.name, alarm.step) == ("dead", "nothing is trained", 20)
    assert "loss scale" in alarm.cause
    monitor.before_update(seen(network, 21))
    assert monitor.before_update(seen(network, 22, norm=math.inf, scaled=True)) == []


def test_weights_that_stand_still_because_every_step_overflowed_are_no_parameters_that_never_move():
    network = tiny_network()
    monitor = Monitor(network, trivial={}, explosion_factor=30, steps=100)
    for step in range(1, 13):
        monitor.before_update(seen(network, step, norm=math.inf, scaled=True))
        assert monitor.after_update(step) == []
    monitor.before_update(seen(network, 13))
    (alarm,) = monitor.after_update(13)  # this step was made, and moved nothing either
    assert alarm.name == "parameters that never move"


def test_a_layer_that_is_handed_a_word_is_looked_at_like_any_other():
    class Named(nn.Module):
        def forward(self, x, kind, *, beside):
            return {"x": x + math.inf, "kind": kind, "beside": beside}

    network = nn.ModuleDict({"named": Named()})
    found = first_broken_layer(network, lambda: network["named"](torch.ones(2), "full", beside=iter("ab")))
    assert found == "named (Named)"


def test_only_the_first_broken_layer_is_given_and_a_networks_own_minus_infinity_is_none():
    class Answering(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.two(self.one(x)).masked_fill(torch.tensor([True, False]), -math.inf)

    network = Answering()
    assert first_broken_layer(network, lambda: network(torch.ones(1, 2))) is None
    with torch.no_grad():
        network.one.bias.fill_(math.inf)
    assert first_broken_layer(network, lambda: network(torch.ones(1, 2))) == "one (Linear)"
    assert first_broken_layer(network, lambda: network.two(torch.full((1, 2), math.nan))) == "what two (Linear) reads"
    assert not network.one._forward_hooks


# ── explosion ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_gradient_far_above_its_median_names_the_parameters_that_hold_it():
    watched = Watched()
    assert watched.run(31, From(31, times(100.0))) == [(31, "exploding gradient"), (31, "exploding loss")]
    evidence = watched.alarms[0].evidence
    shares = [int(word.rstrip("%")) for word in evidence.replace(",", "").split() if word.endswith("%")]
    assert "times what is usual" in evidence
    assert len(shares) == 3
    assert 50 < sum(shares) <= 100
    assert shares == sorted(shares, reverse=True)


def test_an_explosion_is_relative_to_what_is_usual():
    assert Watched(factor=1000.0).run(31, From(31, times(100.0))) == []


def test_a_row_that_is_not_yet_learned_is_no_explosion_where_nearly_all_is():
    network = tiny_network()
    monitor = Monitor(network, trivial={}, explosion_factor=30, steps=1000)
    losses = [2.7] * 5 + [0.001] * 100 + [0.013, 0.2]
    found = [monitor.before_update(seen(network, k, loss=loss)) for k, loss in enumerate(losses, 1)]
    assert [(alarm.step, alarm.name) for alarms in found for alarm in alarms] == [(107, "exploding loss")]


def test_the_gradient_of_such_a_row_is_none_either():
    network = tiny_network()
    monitor = Monitor(network, trivial={}, explosion_factor=30, steps=1000)
    norms = [2.0] * 5 + [0.0008] * 100 + [0.04, 0.2]
    found = [monitor.before_update(seen(network, k, norm=norm)) for k, norm in enumerate(norms, 1)]
    assert [(alarm.step, alarm.name) for alarms in found for alarm in alarms] == [(107, "exploding gradient")]


def test_what_overflows_at_first_under_a_loss_scale_is_none_of_the_first_gradients():
    network = tiny_network()
    monitor = Monitor(network, trivial={}, explosion_factor=30, steps=1000)
    norms = [math.inf] * 8 + [2.0] * 5 + [0.0008] * 100 + [0.04, 0.2]
    found = [monitor.before_update(seen(network, k, norm=norm, scaled=True)) for k, norm in enumerate(norms, 1)]
    assert [(alarm.step, alarm.name) for alarms in found for alarm in alarms] == [(115, "exploding gradient")]


def test_early_on_the_first_three_steps_are_what_is_usual():
    """As the first of an explosion, which a median would soon take for usual."""
    network = tiny_network()
    monitor = Monitor(network, trivial={}, explosion_factor=30, steps=1000)
    norms = [2.2, 2.8, 2.0, 12.6, 32.9, 48.7, 226.9, 70.0]
    found = [monitor.before_update(seen(network, step, norm=norm)) for step, norm in enumerate(norms, 1)]
    assert [(alarm.step, alarm.name, alarm.repeated) for alarms in found for alarm in alarms] == [
        (7, "exploding gradient", False),
        (8, "exploding gradient", True),
    ]
    few = Monitor(network, trivial={}, explosion_factor=30, steps=1000)
    assert [few.before_update(seen(network, step, norm=norm)) for step, norm in enumerate((1.0, 1.0, 90.0), 1)] == [
        [],
        [],
        [],
    ]


def test_a_gradient_that_stays_long_is_usual_before_long():
    network = tiny_network()
    monitor = Monitor(network, trivial={}, explosion_factor=30, steps=1000)
    norms = [1.0] * 100 + [100.0] * 100
    found = [monitor.before_update(seen(network, step, norm=norm)) for step, norm in enumerate(norms, 1)]
    exploding = [alarms[0].repeated for alarms in found if alarms and alarms[0].kind == "explosion"]
    assert exploding[:2] == [False, True]
    assert 45 <= len(exploding) <= 55


# ── dead ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_that_fails_in_silence_is_found_at_the_fifth():
    assert Watched().run(6, From(1, zero))[:2] == [(5, "loss at zero"), (5, "no gradient")]


def test_zeros_now_and_then_are_none_and_twenty_in_a_row_are():
    """A small batch may have no masked token."""
    watched = Watched()
    watched.run(4, From(1, zero))
    watched.run(8)
    assert watched.run(27, From(9, zero)) == []
    assert watched.run(28, From(9, zero)) == [(28, "loss at zero"), (28, "no gradient")]


def test_a_parameter_that_never_gets_a_gradient_is_named_at_step_ten():
    network = tiny_network()
    network.unused = nn.Parameter(torch.ones(3))
    assert Watched(network).run(10) == [(10, "parameters without gradient")]


def test_a_parameter_whose_gradient_begins_at_the_second_step_is_none():
    """As of a layer behind a gate that starts at zero."""
    network = tiny_network()
    network.late = nn.Parameter(torch.ones(3))

    def join(loss, network):
        return Loss(loss.nats + network.late.sum() * 1e-3, loss.weight, loss.terms)

    assert Watched(network).run(12, From(2, join)) == []


def test_frozen_parameters_are_not_expected_to_move():
    network = tiny_network()
    network.embedding.weight.requires_grad_(False)
    assert Watched(network).run(12) == []


def test_an_optimiser_that_holds_other_tensors_is_found_at_step_ten():
    strangers = tiny_optimizers(tiny_network())
    watched = Watched(optimizers=strangers)
    assert watched.run(12) == [(10, "parameters that never move")]
    assert "all parameters" in watched.alarms[0].evidence


def test_one_parameter_that_the_optimiser_lacks_is_found_at_step_a_hundred():
    network = tiny_network()
    (optimizer,) = tiny_optimizers(network)
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p is not network.head.weight]
    watched = Watched(network, optimizers=[optimizer])
    assert watched.run(101) == [(100, "parameters that never move")]
    assert "head.weight hold the very numbers of step 1" in watched.alarms[0].evidence


def test_a_batch_without_targets_is_dead():
    network = tiny_network()
    (alarm,) = Monitor(network, trivial={}, explosion_factor=30, steps=9).before_update(seen(network, 1, tokens=0))
    assert (alarm.kind, alarm.name) == ("dead", "no target tokens")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 3), (2, 3, 4)])
def test_a_checksum_changes_with_every_place_and_with_changes_that_cancel(dtype, shape):
    tensor = torch.ones(shape).to(dtype)
    known = {checksum(tensor)}
    assert checksum(tensor.clone()) in known
    for place in range(tensor.numel()):
        changed = tensor.clone()
        changed.view(-1)[place] *= 2
        known.add(checksum(changed))
    assert len(known) == 1 + tensor.numel()
    if tensor.numel() > 1:
        swapped = tensor.clone()
        swapped.view(-1)[0], swapped.view(-1)[-1] = 0, 2
        other = tensor.clone()
        other.view(-1)[0], other.view(-1)[-1] = 2, 0
        assert len({checksum(tensor), checksum(swapped), checksum(other)}) == 3


# ── lines, memory, processes ───────────────────────────────────────────────────────────────────────────────────


def test_an_alarm_of_a_line_comes_once_until_it_has_gone_and_come_again():
    monitor = Monitor(tiny_network(), trivial={"bits_per_byte": {"unigram": 4.0}}, explosion_factor=30, steps=200)
    found = [
        [alarm.name for alarm in monitor.at_record({"kind": "validation", "step": 100 + k, "bits_per_byte": bits})]
        for k, bits in enumerate((4.0, 4.1, 3.0, 4.0))
    ]
    assert found == [["loss at its trivial value"], [], [], ["loss at its trivial value"]]


def test_a_monitor_that_was_restored_raises_what_the_first_would_have():
    whole, part = Watched(), Watched()
    objective = From(1, zero)
    expected = whole.run(12, objective)
    part.run(4, objective)
    again = Watched(part.network)
    again.state = part.state
    again.monitor.restore(json.loads(json.dumps(part.monitor.state())))
    assert again.run(12, objective) == expected
    forgetful = Watched(tiny_network())
    forgetful.run(4, objective)
    forgetful.monitor.restore(Monitor(forgetful.network, trivial={}, explosion_factor=30, steps=9).state())
    assert forgetful.run(8, objective) == []


def test_what_one_process_alone_can_see_is_told_to_all():
    """Each process holds its part of a gradient; here the other one's part is broken, or is most of it."""
    network = nn.Linear(2, 2)
    network.weight.grad, network.bias.grad = torch.ones(2, 2), torch.ones(2)
    other = {"names": ["bias"], "squares": [0.0, 98.0]}

    def gather(value):
        return [value, other["squares"] if value and isinstance(value[0], float) else other["names"]]

    monitor = Monitor(network, trivial={}, explosion_factor=30, steps=9, gather=gather)
    assert "parameter: bias; norm inf" in monitor.before_update(seen(network, 1, norm=math.inf))[0].evidence
    assert monitor._largest_gradients() == pytest.approx({"bias": 100 / 104, "weight": 4 / 104})
    lone = Monitor(network, trivial={}, explosion_factor=30, steps=9, gather=alone)
    assert "parameter: none alone" in lone.before_update(seen(network, 1, norm=math.inf))[0].evidence


def test_weights_and_gradients_are_not_read_at_steps_that_raise_no_suspicion(monkeypatch):
    watched = Watched()
    watched.run(12)
    monkeypatch.setattr(Monitor, "_trained", lambda self: pytest.fail("read"))
    assert watched.run(25) == []


def test_the_noise_of_a_step_is_what_the_layer_is_looked_for_with():
    """`rerun` sees the same masks as the step did."""
    drawn = []

    @dataclass(frozen=True)
    class Drawing(From):
        def __call__(self, network, batch, *, generator):
            drawn.append(torch.rand(4, generator=generator))
            return times(math.nan)(BOUND(network, batch, generator=keyed_generator(1)), network)

    Watched().run(1, Drawing(1, None))
    assert len(drawn) == 2
    assert torch.equal(drawn[0], drawn[1])


def test_a_cautious_guard_stops_at_what_is_broken_and_lets_the_rest_pass():
    guard = cautious(tiny_network(), steps=10)
    assert {kind for kind in KINDS if guard.actions[kind] is report} == {
        "explosion",
        "trivial",
        "collapse",
        "logit_gap",
    }
