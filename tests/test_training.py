"""The training loop: what it depends on, what it does not, and when it stops."""

import itertools
import math
from dataclasses import dataclass, field

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer

from remask.data.batch import Batch
from remask.errors import RunError
from remask.evaluation.likelihood import row_likelihoods
from remask.guard import cautious
from remask.objectives.base import Loss
from remask.optimisation import (
    MovingAverage,
    constant,
    cosine_decay,
    linear_decay,
    set_rate,
    warmed,
    warmup_stable_decay,
)
from remask.parallel import ALONE
from remask.randomness import keyed_generator
from remask.training import TrainingState, train
from tiny import (
    BOUND,
    LENGTH,
    MASK,
    NEXT_TOKEN,
    V,
    cut,
    differing,
    everything,
    pattern_batches,
    pattern_rows,
    run_steps,
    tiny_network,
    tiny_optimizers,
    tiny_state,
)


@pytest.mark.parametrize("objective", [BOUND, NEXT_TOKEN], ids=["bound", "next_token"])
@pytest.mark.parametrize("micro", [1, 3, 4])
def test_loss_and_weights_do_not_depend_on_the_micro_batch_size(objective, micro):
    causal = objective is NEXT_TOKEN
    whole, parts = tiny_state(causal=causal), tiny_state(causal=causal)
    one = run_steps(whole, 3, objective=objective, batches=pattern_batches(micro=8))
    other = run_steps(parts, 3, objective=objective, batches=pattern_batches(micro=micro))
    for a, b in zip(one, other, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-5)
        assert b.gradient_norm == pytest.approx(a.gradient_norm, rel=1e-4)
        assert (a.tokens, b.tokens) == (8 * LENGTH, 8 * LENGTH)
    for name, value in everything(whole).items():
        if name.startswith("network"):
            torch.testing.assert_close(everything(parts)[name], value, rtol=1e-3, atol=1e-4)


def gradients(batches: list[Batch]) -> dict[str, torch.Tensor]:
    """What a step would apply, unclipped: SGD at rate 1 shows it as the change of the weights."""
    state = tiny_state()
    optimizer = torch.optim.SGD(state.network.parameters(), lr=1.0)
    optimizer.param_groups[0]["peak"] = 1.0
    state.optimizers = [optimizer]
    before = {name: p.detach().clone() for name, p in state.network.named_parameters()}
    run_steps(state, 1, batches=iter([batches]), clip=1e9)
    return {name: before[name] - p.detach() for name, p in state.network.named_parameters()}


def test_accumulated_gradients_are_those_of_the_whole_batch_weighted_by_tokens():
    """Rows of unlike length: a mean over micro-batches would weigh the short row's tokens too much."""
    ids = pattern_rows(4, seed=1)
    targets = torch.ones_like(ids, dtype=torch.bool)
    targets[0, 2:] = False
    whole = cut(ids, 4)[0]
    whole = Batch(**{**vars(whole), "targets": targets, "segments": targets.long()})
    pieces = [
        Batch(
            **{
                **{k: v[a:b] for k, v in vars(whole).items() if isinstance(v, torch.Tensor)},
                "global_size": 4,
            }
        )
        for a, b in ((0, 1), (1, 4))
    ]
    expected, measured = gradients([whole]), gradients(pieces)
    for name, value in expected.items():
        torch.testing.assert_close(measured[name], value, rtol=1e-4, atol=1e-6)
    assert max(float(value.abs().max()) for value in expected.values()) > 1e-3


@pytest.mark.parametrize("causal", [False, True])
def test_padding_added_to_rows_changes_no_loss(causal):
    ids = pattern_rows(6, seed=1)
    plain, padded = tiny_state(causal=causal), tiny_state(causal=causal)
    objective = NEXT_TOKEN if causal else FixedNoise()
    one = run_steps(plain, 2, objective=objective, batches=itertools.repeat(cut(ids, 6)))
    other = run_steps(padded, 2, objective=objective, batches=itertools.repeat(cut(ids, 6, padding=5)))
    for a, b in zip(one, other, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-5)
        assert b.gradient_norm == pytest.approx(a.gradient_norm, rel=1e-4)
        assert a.tokens == b.tokens


@dataclass(frozen=True)
class FixedNoise:
    """The bound with noise that does not depend on the row's width."""

    exact: bool = False

    def at(self, step):
        del step
        return self

    def likelihood_terms(self, network, batch, *, generator, draws):
        raise NotImplementedError

    def __call__(self, network, batch, *, generator):
        t = torch.linspace(0.2, 0.9, len(batch), dtype=torch.float64)
        noise = torch.ones(batch.ids.shape, dtype=torch.float64)
        noise[:, :LENGTH] = torch.rand(len(batch), LENGTH, generator=keyed_generator(5), dtype=torch.float64)
        nats = BOUND.diffusion(network, batch, t=t, noise=noise)
        return Loss(nats, batch.targets.to(nats.dtype), {"diffusion": nats.detach().sum()})


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(optimizer, dropout):
    runs = []
    for seed in (1, 1, 2):
        state = tiny_state(optimizer=optimizer, dropout=dropout)
        run_steps(state, 4, seed=seed)
        runs.append(everything(state))
    assert differing(runs[0], runs[1]) == []
    assert differing(runs[0], runs[2]) != []


def test_training_neither_reads_nor_moves_the_global_generator():
    first, second = tiny_state(dropout=0.3), tiny_state(dropout=0.3)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    run_steps(first, 2)
    unmoved = bool((torch.random.get_rng_state() == before).all())
    assert unmoved
    torch.manual_seed(2)
    run_steps(second, 2)
    assert differing(everything(first), everything(second)) == []


def test_dropout_differs_from_step_to_step_and_between_micro_batches():
    seen = []

    class Recording(FixedNoise):
        def __call__(self, network, batch, *, generator):
            seen.append(torch.nn.functional.dropout(torch.ones(64), 0.5))
            return super().__call__(network, batch, generator=generator)

    run_steps(tiny_state(), 2, objective=Recording(), batches=pattern_batches(micro=4))
    assert len(seen) == 4
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(seen, 2))


def test_every_step_draws_new_noise():
    """On one repeated batch at a learning rate of zero, only the noise can change the loss."""
    state = tiny_state(learning_rate=0.0)
    state.optimizers[0].param_groups[0]["weight_decay"] = 0.0
    losses = [step.loss for step in run_steps(state, 4, batches=itertools.repeat(cut(pattern_rows(8, seed=1), 8)))]
    assert len(set(losses)) == 4


def test_clipping_scales_the_whole_gradient_down_and_reports_its_length_before():
    batches = [cut(pattern_rows(8, seed=1), 8)]
    free, clipped = {}, {}
    for clip, kept in ((1e9, free), (0.01, clipped)):
        state = tiny_state()
        optimizer = torch.optim.SGD(state.network.parameters(), lr=1.0)
        optimizer.param_groups[0]["peak"] = 1.0
        state.optimizers = [optimizer]
        before = {name: p.detach().clone() for name, p in state.network.named_parameters()}
        (step,) = run_steps(state, 1, batches=iter(batches), clip=clip)
        kept |= {name: before[name] - p.detach() for name, p in state.network.named_parameters()}
        kept["norm"] = step.gradient_norm
    length = math.sqrt(sum(float((v**2).sum()) for v in free.values() if isinstance(v, torch.Tensor)))
    assert free["norm"] == pytest.approx(length, rel=1e-5)
    assert clipped["norm"] == pytest.approx(length, rel=1e-5)
    shrunk = math.sqrt(sum(float((v**2).sum()) for v in clipped.values() if isinstance(v, torch.Tensor)))
    assert shrunk == pytest.approx(0.01, rel=1e-3)


@dataclass(frozen=True)
class Breaking:
    """The bound until step `step`, where the named term, or only the gradient, stops being finite."""

    step: int
    how: str
    now: int = 0
    exact: bool = False

    def at(self, step):
        return Breaking(self.step, self.how, step)

    def likelihood_terms(self, network, batch, *, generator, draws):
        raise NotImplementedError

    def __call__(self, network, batch, *, generator):
        loss = BOUND(network, batch, generator=generator)
        if self.now < self.step:
            return loss
        if self.how == "gradient":
            weight = next(iter(network.parameters()))
            zero = (weight * 0.0).sum()
            return Loss(loss.nats + zero.sqrt(), loss.weight, loss.terms)  # value 0, slope infinite
        value = {"nan": math.nan, "infinity": math.inf}[self.how]
        return Loss(
            loss.nats * value, loss.weight, {"diffusion": loss.terms["diffusion"], "broken": torch.tensor(value)}
        )


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nan", r"^step 3: non-finite loss: the loss is not finite \(term: broken = nan\)"),
        ("infinity", r"^step 3: non-finite loss: the loss is not finite \(term: broken = inf\)"),
        ("gradient", r"^step 3: non-finite gradient: .* though the loss is \(parameter: embedding.weight; norm nan\)"),
    ],
)
def test_a_number_that_is_not_finite_stops_the_run_and_leaves_the_last_good_weights(how, words):
    state, sound = tiny_state(), tiny_state()
    run_steps(sound, 2)
    with pytest.raises(RunError, match=words) as caught:
        run_steps(state, 5, objective=Breaking(3, how))
    assert "\n" not in str(caught.value)
    assert state.step == 2
    assert differing(everything(state), everything(sound)) == []


def test_the_average_is_exponential_with_a_quick_start():
    state = tiny_state(ema=0.5)
    kept = {name: p.detach().clone() for name, p in state.network.named_parameters()}
    for step in (1, 2, 3, 20):
        state.step = step - 1
        run_steps(state, step, batches=pattern_batches(start_step=step))
        decay = min(0.5, (1 + step) / (10 + step))
        for name, parameter in state.network.named_parameters():
            kept[name] = decay * kept[name] + (1 - decay) * parameter.detach()
            torch.testing.assert_close(state.average.average[name], kept[name], rtol=1e-5, atol=1e-7)


def test_an_average_without_decay_is_the_network():
    state = tiny_state(ema=0.0)
    run_steps(state, 2)
    for name, parameter in state.network.named_parameters():
        assert torch.equal(state.average.average[name], parameter.detach())


@pytest.mark.parametrize("tied", [False, True])
def test_the_average_is_lent_and_taken_back_even_when_its_use_fails(tied):
    network = tiny_network()
    if tied:
        network.tie_head()
    average = MovingAverage(network, decay=0.5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    own = {name: p.detach().clone() for name, p in network.named_parameters()}

    def fail_while_lent():
        with average.applied(network):
            for name, parameter in network.named_parameters():
                assert torch.equal(parameter, average.average[name])
                assert not torch.equal(parameter, own[name])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_lent()
    assert all(torch.equal(p, own[name]) for name, p in network.named_parameters())
    assert (network.head.weight is network.embedding.weight) == tied


def test_learning_rates_follow_their_curves():
    warm = warmed(cosine_decay(10, final=0.1), warmup_steps=4)
    assert [warm(k) for k in (1, 2, 4)] == pytest.approx([0.25, 0.5, 1.0])
    assert warm(9) == pytest.approx(0.55)
    assert warm(14) == pytest.approx(0.1)
    assert warm(99) == pytest.approx(0.1)
    line = linear_decay(10, final=0.0)
    assert [line(k) for k in (1, 5, 10)] == pytest.approx([0.9, 0.5, 0.0])
    stable = warmup_stable_decay(10, final=0.0)
    assert [stable(k) for k in (1, 8, 9, 10)] == pytest.approx([1, 1, 0.5, 0])
    assert warmed(constant, warmup_steps=0)(1) == 1.0
    for curve in (cosine_decay(0, final=0.2), linear_decay(0, final=0.2)):
        assert curve(1) == pytest.approx(0.2)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_share_scales_each_groups_own_peak(kind):
    optimizers = tiny_optimizers(tiny_network(), kind)
    set_rate(optimizers, 0.5)
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    assert rates == pytest.approx([0.0015, 0.0015] if kind == "adamw" else [0.01, 0.0015, 0.0015])
    set_rate(optimizers, 1.0)
    assert max(group["lr"] for optimizer in optimizers for group in optimizer.param_groups) in (0.003, 0.02)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_parameter_has_one_optimiser_and_only_matrices_decay(kind):
    network = tiny_network()
    groups = [group for optimizer in tiny_optimizers(network, kind) for group in optimizer.param_groups]
    owned = [id(p) for group in groups for p in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in network.parameters())
    undecayed = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    expected = {id(p) for p in network.parameters() if p.ndim == 1} | {id(network.embedding.weight)}
    assert undecayed == expected


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_parameter_moves_in_the_first_step(optimizer):
    state = tiny_state(optimizer=optimizer)
    before = {name: p.detach().clone() for name, p in state.network.named_parameters()}
    run_steps(state, 1)
    assert [name for name, p in state.network.named_parameters() if torch.equal(p, before[name])] == []


@dataclass
class TinyModel:
    network: torch.nn.Module
    objective: object
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class Scaling(Accelerator):
    """Gradient scaling as on a GPU with float16, on the CPU and in float32."""

    def __init__(self, scaler: torch.amp.GradScaler, optimizers):
        super().__init__(cpu=True)
        self.scaler, self.prepared = scaler, optimizers

    def backward(self, loss, **kwargs):
        self.scaler.scale(loss).backward()

    def unscale_gradients(self, optimizer=None):
        for prepared in self.prepared:
            self.scaler.unscale_(prepared.optimizer)


def test_gradient_scaling_changes_no_step_of_either_optimiser():
    """Scales are powers of two, so the weights must be the same bit for bit; AdamW alone would hide a lost factor."""
    plain, scaled = (tiny_state(optimizer="muon") for _ in range(2))
    run_steps(plain, 3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=10**6)
    scaled.optimizers = [AcceleratedOptimizer(o, device_placement=False, scaler=scaler) for o in scaled.optimizers]
    common = {"objective": BOUND, "batches": pattern_batches(), "curve": constant, "clip": 1.0, "seed": 1, "steps": 3}
    common |= {"world": ALONE, "guard": cautious(scaled.network, steps=3)}
    for _ in train(scaled, accelerator=Scaling(scaler, scaled.optimizers), **common):
        assert scaler.get_scale() == 2.0**16
    assert differing(everything(plain), everything(scaled)) == []


@pytest.mark.parametrize(("objective", "at_most"), [(BOUND, 0.75), (NEXT_TOKEN, 0.3)], ids=["bound", "next_token"])
def test_a_few_seconds_of_training_beat_the_unigram_on_a_pattern(objective, at_most):
    """The unigram needs log 6 = 1.79 nats a token; the pattern itself log(6)/12 = 0.15."""
    state = tiny_state(causal=objective is NEXT_TOKEN, width=32, learning_rate=1e-2)
    judged = [cut(pattern_rows(64, seed=7), 64)[0]]
    unigram = math.log(6)
    steps = run_steps(state, 120, objective=objective, batches=pattern_batches(batch_size=16, micro=16))
    assert steps[0].loss == pytest.approx(math.log(V - 1), rel=0.4)
    sums = row_likelihoods(TinyModel(state.network, objective), judged, draws=16, seed=1)
    nats = float(sums.nats.sum() / sums.tokens.sum())
    assert nats < at_most < unigram
    assert nats > math.log(6) / LENGTH, "below the entropy of the text: not a likelihood"
    assert MASK == V - 1


class Watched(torch.nn.Module):
    """A network that notes what the loop tells it, between the calls made to it."""

    def __init__(self):
        super().__init__()
        self.network, self.log = tiny_network(), []

    def forward(self, z, t, *, segments, positions):
        self.log.append("call")
        return self.network(z, t, segments=segments, positions=positions)

    def begin_step(self, step):
        self.log.append(step)


class Wrapping(Accelerator):
    """As with several processes: what is trained is a wrapper around the network."""

    def unwrap_model(self, model, **kwargs):
        return model.inner


class Wrapper(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_network_is_told_each_step_before_its_first_micro_batch(wrapped):
    network = Watched()
    outer = Wrapper(network) if wrapped else network
    state = TrainingState(outer, tiny_optimizers(outer), MovingAverage(network, decay=0.9), step=4)
    common = {"objective": BOUND, "curve": constant, "clip": 1.0, "seed": 1, "steps": 6}
    common |= {"world": ALONE, "guard": cautious(network, steps=6)}
    accelerator = Wrapping(cpu=True) if wrapped else Accelerator(cpu=True)
    for _ in train(state, batches=pattern_batches(micro=4), accelerator=accelerator, **common):
        pass
    assert network.log == [5, "call", "call", 6, "call", "call"]


@dataclass(frozen=True)
class Steering:
    """The bound, and a note of what the loop hands to `steer`."""

    seen: list = field(default_factory=list)
    exact: bool = False

    def at(self, step):
        del step
        return BOUND

    def likelihood_terms(self, network, batch, *, generator, draws):
        raise NotImplementedError

    def __call__(self, network, batch, *, generator):
        raise NotImplementedError

    def steer(self, network, terms):
        weight = next(network.parameters())
        self.seen.append((dict(terms), float(weight.detach().sum())))
        with torch.no_grad():
            weight += 1.0

    def diagnostics(self, network, terms):
        del network
        return dict(terms)


def test_an_objective_steers_once_a_step_whatever_the_micro_batches_and_the_average_takes_it_in():
    seen = []
    for micro in (8, 3):
        objective = Steering()
        state = tiny_state(ema=0.0)
        before = float(next(state.network.parameters()).detach().sum())
        steps = run_steps(state, 2, objective=objective, batches=pattern_batches(micro=micro))
        assert [terms for terms, _ in objective.seen] == [dict(step.terms) for step in steps]
        assert objective.seen[0][1] != before, "steering comes after the optimiser's step"
        name, weight = next(state.network.named_parameters())
        assert torch.equal(state.average.average[name], weight.detach())
        seen.append([terms["diffusion"] for terms, _ in objective.seen])
    assert seen[1] == pytest.approx(seen[0], rel=1e-4)
