"""The likelihood of a named sampler as an objective: exact, unbiased from one round, and nothing besides at λ = 0."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from doubles import Constant, Posterior, Table, full_batch, make_noise, make_process
from exact import all_sequences, chi_squared, random_joint
from remask.data.batch import Batch
from remask.objectives import BijectiveLikelihood, LikelihoodBound, all_steps, bijective, masking_integrand, one_step
from remask.objectives.bijective import Revealed, round_at, step_at
from remask.objectives.likelihood import rising_range, root_weight
from remask.orders import FixedOrder, SureFirst, block_counts, largest_probability, left_to_right, spread
from remask.randomness import keyed_generator
from remask.samplers.bijection import Bijection
from tiny import BOUND, LENGTH, cut, pattern_rows, run_steps, tiny_network, tiny_state

untouched = pytest.mark.usefixtures("global_generator_untouched")

PROCESS = make_process("masking", "polynomial")
TEXTS = all_sequences([0, 2, 3], 4)
ORDERS = {
    "left_to_right": FixedOrder(left_to_right),
    "spread": FixedOrder(spread),
    "confidence": SureFirst(largest_probability),
}
RANKS = {"left_to_right": [0, 1, 2, 3], "spread": [0, 2, 1, 3]}  # of four places, by hand: 0, ½, ¼, ¾ of the row
each_order = pytest.mark.parametrize("name", ORDERS)


def sampler(name: str, steps: int) -> Revealed:
    return Revealed(process=PROCESS, order=ORDERS[name], steps=steps)


def table(seed: int = 1) -> Table:
    return Table(PROCESS, 4, seed=seed)


def objective(**settings) -> BijectiveLikelihood:
    bound = LikelihoodBound(process=PROCESS, integrand=masking_integrand, t_min=1e-3)
    return BijectiveLikelihood(**{"bound": bound, "order": ORDERS["spread"], "steps": 3} | settings)


def by_definition(network: Table, name: str, steps: int) -> np.ndarray:
    """−log P(x | π) of every text, one after another: rounds of ⌊(k+1)n/K⌋ − ⌊kn/K⌋ places, time by hand."""
    result = []
    for text in TEXTS:
        n, z, total = len(text), np.full(len(text), PROCESS.mask_id), 0.0
        for k in range(steps):
            hidden = [i for i in range(n) if z[i] == PROCESS.mask_id]
            t = math.sqrt(len(hidden) / n)  # α(t) = 1 − t² is the share revealed
            p = network.probabilities(z[None], t)[0]
            place = RANKS.get(name) or (-p.max(-1).round(6)).tolist()
            block = sorted(hidden, key=lambda i: (place[i], i))[: (k + 1) * n // steps - k * n // steps]
            total -= sum(math.log(p[i, text[i]]) for i in block)
            z[block] = text[block]
        result.append(total)
    return np.array(result)


# ── what it is ─────────────────────────────────────────────────────────────────────────────────────────────────


@untouched
@each_order
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_all_steps_are_minus_the_log_probability_of_the_named_sampler(name, steps):
    network, batch = table(), full_batch(TEXTS)
    nats = all_steps(sampler(name, steps), network, batch, generator=keyed_generator(1)).sum(-1)
    np.testing.assert_allclose(nats.numpy(), by_definition(network, name, steps), rtol=0, atol=1e-12)
    assert float((-nats).exp().sum()) == pytest.approx(1.0, abs=1e-12)


@each_order
def test_training_and_the_sampler_agree_on_the_likelihood(name):
    network, batch = table(), full_batch(TEXTS)
    trained = all_steps(sampler(name, 3), network, batch, generator=keyed_generator(1))
    drawn = Bijection(model=network, order=ORDERS[name], steps=3).nats(batch.ids, batch.targets)
    torch.testing.assert_close(trained, drawn, rtol=0, atol=1e-12)


def mean_over_rounds(estimate, name: str, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of an estimate over every u there is, its gradient too; each of the 4 places is as likely."""
    network = table()
    network.effect.requires_grad_()
    u = torch.arange(4).repeat_interleave(len(TEXTS)).double().add(0.5) / 4
    batch = full_batch(np.tile(TEXTS, (4, 1)))
    nats = estimate(u, sampler(name, steps), network, batch).sum(-1).view(4, -1).mean(0)
    (gradient,) = torch.autograd.grad((nats * torch.linspace(-1, 1, len(nats))).sum(), network.effect)
    return nats.detach(), gradient


def whole(name: str, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    return mean_over_rounds(lambda _, *rest: all_steps(*rest, generator=keyed_generator(1)), name, steps)


@untouched
@each_order
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_one_round_has_all_of_them_as_its_mean_and_so_has_its_gradient(name, steps):
    for drawn, exact in zip(mean_over_rounds(step_at, name, steps), whole(name, steps), strict=True):
        torch.testing.assert_close(drawn, exact, rtol=0, atol=1e-12)


def without_weight(u, revealed: Revealed, network, batch: Batch):
    drawn = round_at(u, revealed.counts(batch))
    return revealed.nats(network, batch, hidden=revealed.hidden_before(network, batch, drawn), count=drawn.count)[0]


def with_even_rounds(u, revealed: Revealed, network, batch: Batch):
    """K times a round, but of rounds drawn by their size."""
    return without_weight(u, revealed, network, batch) * revealed.steps


@pytest.mark.parametrize("wrong", [without_weight, with_even_rounds])
def test_an_estimate_with_a_wrong_weight_is_found_out(wrong):
    mean, _ = mean_over_rounds(wrong, "spread", 3)
    assert float((mean - whole("spread", 3)[0]).abs().mean()) > 0.1


class Peeking(FixedOrder):
    """Reveals first what the model gets right, which no sampler can know."""

    def __init__(self, ids: torch.Tensor) -> None:
        object.__setattr__(self, "ids", ids)

    def wanted(self, hidden, count):
        return hidden & (count > 0)[:, None]

    def choose(self, log_p, wanted, hidden, count):
        right = log_p.gather(-1, self.ids[wanted][:, None]).squeeze(-1)
        score = torch.full(wanted.shape, -torch.inf, dtype=log_p.dtype).masked_scatter(wanted, right)
        return hidden & (score.argsort(-1, descending=True).argsort(-1) < count[:, None])


def mass(nats: torch.Tensor) -> float:
    return float((-nats.sum(-1)).exp().sum())


def test_an_order_that_peeks_and_tokens_scored_given_the_clean_row_are_no_likelihoods():
    network, batch = table(), full_batch(TEXTS)
    peeking = Revealed(process=PROCESS, order=Peeking(batch.ids), steps=4)
    assert mass(all_steps(peeking, network, batch, generator=keyed_generator(1))) > 1.1
    noise = make_noise("masking", "polynomial")
    honest = Posterior(PROCESS, noise, random_joint(noise, 4, seed=1))
    seen = torch.zeros(batch.ids.shape).double()
    for place in range(4):
        alone = torch.zeros_like(batch.targets).index_fill(1, torch.tensor([place]), True)
        log_p = sampler("spread", 4).log_p(honest, batch, hidden=alone, positions=alone)
        seen[:, place] = -log_p.gather(-1, batch.ids[:, place, None]).squeeze(-1)
    assert mass(seen) > 1.5
    assert mass(all_steps(sampler("spread", 4), honest, batch, generator=keyed_generator(1))) == pytest.approx(1.0)


def test_a_constant_predictor_costs_log_n_a_token_whichever_round_is_drawn():
    batch = full_batch([[0, 3, 2, 0, 0, 2, 3]] * 9)
    for steps in (1, 3, 5, 50):
        nats = one_step(
            replace(sampler("spread", 1), steps=steps), Constant(PROCESS), batch, generator=keyed_generator(steps)
        )
        torch.testing.assert_close(
            nats.sum(-1), torch.full((9,), 7 * math.log(3), dtype=torch.float64), rtol=1e-14, atol=0
        )


# ── which round is drawn ───────────────────────────────────────────────────────────────────────────────────────


class Watching(Table):
    """Keeps every row that it was shown."""

    def __init__(self, *args, **settings) -> None:
        super().__init__(*args, **settings)
        self.shown = []

    def predict(self, z, t):
        self.shown.append(z)
        return super().predict(z, t)


def drawn_rounds(rows: int, steps: int, seed: int) -> list[int]:
    """The round of each row, from how much the network sees."""
    network = Watching(PROCESS, 8, seed=1)
    batch = full_batch([[0, 3, 2, 2, 0, 0, 3, 2]] * rows)
    one_step(sampler("left_to_right", steps), network, batch, generator=keyed_generator(seed))
    revealed = (network.shown[-1] != PROCESS.mask_id).sum(-1)
    return [[8 * k // steps for k in range(steps)].index(int(count)) for count in revealed]


@untouched
def test_rounds_are_spread_evenly_over_the_batch():
    for seed in range(5):
        counts = np.bincount(drawn_rounds(24, 4, seed), minlength=4)
        assert counts.sum() == 24
        assert ((counts >= 5) & (counts <= 7)).all()


@pytest.mark.parametrize("row", [0, 3])
def test_each_row_draws_each_round_as_often_as_the_round_has_tokens(row, monkeypatch):
    """Rows do not keep to a stratum: the estimate is unbiased for each of them, not in mean over shuffled rows only."""
    batch, drawn = full_batch([[0] * 8] * 4), []
    monkeypatch.setattr(bijective, "step_at", lambda u, *_: drawn.append(u) or torch.zeros(batch.ids.shape))
    for seed in range(400):
        one_step(sampler("spread", 3), table(), batch, generator=keyed_generator(seed))
    counts = sampler("spread", 3).counts(batch)
    drawn = torch.stack([round_at(u, counts).number[row] for u in drawn])[:, None].numpy()
    shares = np.array([2, 3, 3]) / 8
    assert chi_squared(drawn, np.arange(3)[:, None], shares) > 1e-3
    assert chi_squared(drawn, np.arange(3)[:, None], np.array([0.5, 0.25, 0.25])) < 1e-3


def test_a_row_without_targets_draws_a_round_of_weight_zero():
    drawn = round_at(torch.tensor([0.0, 0.9, 1.0]).double(), block_counts(torch.tensor([0, 5, 5]), 3))
    assert drawn.weight.tolist() == [0.0, 2.5, 2.5]
    assert drawn.revealed.tolist() == [0, 3, 3]


@untouched
def test_an_order_that_asks_the_model_walks_there_over_what_is_revealed_and_asks_no_gradient():
    network = Watching(PROCESS, 4, seed=1)
    network.effect.requires_grad_()
    batch = full_batch([[0, 3, 2, 2]] * 4)
    step_at(torch.tensor([0.1, 0.3, 0.6, 0.9]).double(), sampler("confidence", 4), network, batch)
    assert [(z != PROCESS.mask_id).sum(-1).tolist() for z in network.shown] == [
        [0, 0, 0, 0],
        [0, 1, 1, 1],
        [0, 1, 2, 2],
        [0, 1, 2, 3],
    ]
    fixed = Watching(PROCESS, 4, seed=1)
    step_at(torch.tensor([0.1, 0.3, 0.6, 0.9]).double(), sampler("spread", 4), fixed, batch)
    assert [(z != PROCESS.mask_id).sum(-1).tolist() for z in fixed.shown] == [[0, 1, 2, 3]]


def test_hidden_tokens_do_not_choose_the_next_block():
    network = table(seed=4)
    batch = full_batch(TEXTS)
    hidden = torch.tensor([False, True, True, True]).expand(len(TEXTS), 4)
    _, block = sampler("confidence", 4).nats(
        network, batch, hidden=hidden, count=torch.ones(len(TEXTS), dtype=torch.int64)
    )
    for first in (0, 2, 3):
        alike = block[batch.ids[:, 0] == first]
        assert (alike == alike[0]).all()
    assert len(block.unique(dim=0)) > 1  # what is revealed does


# ── rows, processes, prompts ───────────────────────────────────────────────────────────────────────────────────


@each_order
def test_micro_batches_and_processes_change_no_loss(name):
    ids = pattern_rows(6, seed=1)
    network = tiny_network().double()
    loss = BijectiveLikelihood(bound=BOUND, order=ORDERS[name], steps=5, weight=0.7)
    (whole,) = cut(ids, 6)
    together = loss(network, whole, generator=keyed_generator(1))
    parts = [loss(network, part, generator=keyed_generator(1)) for part in cut(ids, 2)]
    torch.testing.assert_close(torch.cat([part.nats for part in parts]), together.nats, rtol=0, atol=1e-12)
    for term in ("diffusion", "sampler_nats"):
        total = sum(float(part.terms[term]) for part in parts)
        assert total == pytest.approx(float(together.terms[term]), rel=1e-12)


@each_order
@pytest.mark.parametrize("estimate", [one_step, all_steps])
def test_padding_changes_nothing_and_costs_nothing(name, estimate):
    ids, network = pattern_rows(4, seed=1), tiny_network().double()
    revealed = Revealed(process=BOUND.process, order=ORDERS[name], steps=5)
    bare, padded = (
        estimate(revealed, network, cut(ids, 4, padding=padding)[0], generator=keyed_generator(1)) for padding in (0, 5)
    )
    torch.testing.assert_close(padded[:, :LENGTH], bare, rtol=0, atol=1e-12)
    assert not padded[:, LENGTH:].any()


@each_order
@pytest.mark.parametrize("estimate", [one_step, all_steps])
def test_a_prompt_is_seen_from_the_start_and_costs_nothing(name, estimate):
    network = Watching(PROCESS, 4, seed=1)
    batch = full_batch([[0, 3, 2, 2], [2, 0, 0, 3]])
    batch = replace(batch, targets=torch.tensor([[False, True, True, True], [False, False, False, False]]))
    nats = estimate(sampler(name, 2), network, batch, generator=keyed_generator(1))
    assert not nats[~batch.targets].any()
    assert (nats >= 0).all()
    assert nats[0].any()
    assert all((z[~batch.targets] == batch.ids[~batch.targets]).all() for z in network.shown)


# ── the objective ──────────────────────────────────────────────────────────────────────────────────────────────


def loss_and_gradients(loss, network, batch):
    result = loss(network, batch, generator=keyed_generator(5))
    return result, torch.autograd.grad(result.nats.sum(), list(network.parameters()))


def test_at_weight_zero_nothing_is_asked_and_not_a_bit_is_different():
    network, (batch,) = tiny_network(), cut(pattern_rows(6, seed=1), 6)
    plain = replace(BOUND, reweight=root_weight)
    both = BijectiveLikelihood(bound=plain, order=ORDERS["spread"], steps=4, weight=0.0)
    ours, ours_gradients = loss_and_gradients(both, network, batch)
    theirs, their_gradients = loss_and_gradients(plain, network, batch)
    assert torch.equal(ours.nats, theirs.nats)
    assert ours.terms == theirs.terms
    assert all(torch.equal(a, b) for a, b in zip(ours_gradients, their_gradients, strict=True))
    _, others = loss_and_gradients(replace(both, weight=0.1), network, batch)
    assert not torch.equal(others[0], their_gradients[0])
    double = table()
    objective(weight=0.0)(double, full_batch(TEXTS), generator=keyed_generator(1))
    assert double.calls == 1


@untouched
@pytest.mark.parametrize(("estimate", "calls"), [(one_step, 2), (all_steps, 4)])
def test_the_loss_is_the_bound_and_a_share_of_the_likelihood(estimate, calls):
    network, batch = table(), full_batch(TEXTS)
    loss = objective(weight=0.3, estimate=estimate)(network, batch, generator=keyed_generator(2))
    assert network.calls == calls
    generator = keyed_generator(2)
    bound = objective().bound(network, batch, generator=generator)
    nats = estimate(objective().sampler, network, batch, generator=generator)
    torch.testing.assert_close(loss.nats, bound.nats + 0.3 * nats, rtol=0, atol=0)
    assert float(loss.terms["sampler_nats"]) == float(nats.sum())
    told = objective().diagnostics(torch.nn.Identity(), {name: float(term) / 9 for name, term in loss.terms.items()})
    assert told == {"sampler_nats": pytest.approx(float(nats.sum()) / batch.ids.numel())}
    assert not objective().diagnostics(torch.nn.Identity(), {"diffusion": 1.0})
    assert loss.terms["diffusion"] == bound.terms["diffusion"]
    assert torch.equal(loss.weight, batch.targets.to(loss.nats.dtype))


def test_the_weight_rises_from_nothing_and_the_bound_keeps_its_curriculum():
    bound = replace(objective().bound, curriculum=rising_range(start=0.25, steps=4))
    rising = objective(bound=bound, weight=0.2, warmup=4)
    assert [rising.at(step).weight for step in (1, 2, 3, 5, 100)] == pytest.approx([0, 0.05, 0.1, 0.2, 0.2])
    assert [rising.at(step).bound.t_max for step in (1, 5)] == [0.25, 1.0]
    network = table()
    loss = rising.at(1)(network, full_batch(TEXTS), generator=keyed_generator(1))
    assert network.calls == 1
    assert "sampler_nats" not in loss.terms
    assert objective(weight=0.2).at(1).weight == 0.2


def test_the_likelihood_that_is_reported_is_the_bound():
    network, batch = table(), full_batch(TEXTS[:8])
    terms = [
        judged.likelihood_terms(network, batch, generator=keyed_generator(1), draws=2)
        for judged in (objective(), objective().bound)
    ]
    assert not objective().exact
    assert terms[0].keys() == terms[1].keys()
    assert all(torch.equal(terms[0][name], terms[1][name]) for name in terms[0])


@pytest.mark.parametrize(
    ("wrong", "named"), [({"weight": -0.1}, "weight"), ({"warmup": -1}, "warmup"), ({"steps": 0}, "steps")]
)
def test_numbers_out_of_range_are_refused_by_name(wrong, named):
    with pytest.raises(ValueError, match=named):
        objective(**wrong)


@pytest.mark.parametrize("kind", ["uniform", "hybrid"])
def test_noise_that_hides_no_token_for_good_is_refused(kind):
    other = LikelihoodBound(process=make_process(kind, "linear"), integrand=masking_integrand, t_min=1e-3)
    with pytest.raises(ValueError, match="Masking"):
        objective(bound=other)


def test_training_brings_the_samplers_nats_below_the_entropy_of_single_tokens():
    """The text repeats one pattern: a token alone has log 6 nats, one whose neighbour is known none."""
    learning = BijectiveLikelihood(bound=BOUND, order=ORDERS["spread"], steps=4, weight=1.0, warmup=5)
    steps = run_steps(tiny_state(learning_rate=1e-2), 24, objective=learning)
    assert "sampler_nats" not in steps[0].terms
    assert steps[1].terms["sampler_nats"] == pytest.approx(math.log(6), abs=0.3)
    assert sum(step.terms["sampler_nats"] for step in steps[-8:]) / 8 < 0.8 * math.log(6)
