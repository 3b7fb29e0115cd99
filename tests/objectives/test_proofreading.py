"""Proofreading: its noise, its loss by the definition, where its minimum is, and why its bias stays near 0."""

import math
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from scipy import stats
from torch import nn

from doubles import full_batch
from remask.checkpoints import Checkpoints
from remask.data.batch import Batch
from remask.guard import cautious
from remask.networks.mask_bias import MaskBias
from remask.objectives import Proofreading, own_proposals, uniform_proposals
from remask.objectives.proofreading import ordered_pairs, row_chance
from remask.optimisation import MovingAverage, constant
from remask.parallel import ALONE
from remask.randomness import keyed_generator
from remask.schedules import Cosine, Linear
from remask.training import Steered, TrainingState, train
from tiny import BOUND, MASK, V, cut, differing, everything, pattern_batches, pattern_rows, run_steps, tiny_network
from tiny import tiny_optimizers as optimizers_of

TAU = 0.1
PROOFREADING = Proofreading(
    mask_id=MASK,
    vocab_size=V,
    schedule=Linear(),
    t_min=1e-3,
    replaced_share=0.3,
    proofreading_warmup_iters=20,
    penalty_mask_correct=1.0,
    masking_warmup_iters=40,
    target_mask_prob=TAU,
    propose=uniform_proposals,
)


class Biased(nn.Module):
    """Logits from a table of what each position reads [V V], and a bias on the mask's."""

    def __init__(self, table: torch.Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.table = nn.Parameter(table)
        self.mask_logit_bias = nn.Parameter(torch.tensor([bias], dtype=table.dtype), requires_grad=False)
        self.seen = []

    def forward(self, z, t, *, segments, positions):
        self.seen.append((z, t, positions))
        return self.table[z[positions]] + self.mask_logit_bias * nn.functional.one_hot(torch.tensor(MASK), V)


def random_table(seed: int = 1) -> torch.Tensor:
    return torch.randn(V, V, generator=keyed_generator(seed), dtype=torch.float64)


def random_batch(rows: int = 2000, length: int = 10) -> Batch:
    return full_batch(torch.randint(V - 1, (rows, length), generator=keyed_generator(5)))


# ── corruption ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_position_is_masked_wrong_or_right_in_the_shares_that_were_asked_for():
    batch = random_batch()
    noisy = PROOFREADING.corrupt(Biased(random_table()), batch, generator=keyed_generator(1))
    assert torch.equal(noisy.masked.int() + noisy.wrong + noisy.right, torch.ones_like(batch.ids, dtype=torch.int))
    assert (noisy.z[noisy.masked] == MASK).all()
    assert torch.equal(noisy.z[noisy.right], batch.ids[noisy.right])
    assert (noisy.z[noisy.wrong] != batch.ids[noisy.wrong]).all()
    assert (noisy.z[noisy.wrong] != MASK).all()
    masked, visible = int(noisy.masked.sum()), int((~noisy.masked).sum())
    assert masked / batch.ids.numel() == pytest.approx(0.5, abs=0.01)
    # a proposal is the true word one time in six
    assert stats.binomtest(int(noisy.wrong.sum()), visible, 0.3 * 5 / 6).pvalue > 1e-3


def test_only_targets_are_corrupted():
    batch = random_batch(200)
    targets = torch.rand(batch.ids.shape, generator=keyed_generator(2)) < 0.5
    noisy = PROOFREADING.corrupt(
        Biased(random_table()), Batch(**{**vars(batch), "targets": targets}), generator=keyed_generator(1)
    )
    assert torch.equal(noisy.z[~targets], batch.ids[~targets])
    assert not (noisy.masked | noisy.wrong | noisy.right)[~targets].any()


@pytest.mark.usefixtures("global_generator_untouched")
@pytest.mark.parametrize("propose", [uniform_proposals, own_proposals])
def test_the_noise_of_an_example_does_not_depend_on_the_micro_batch(propose):
    ids = pattern_rows(7, seed=1)
    network, objective = Biased(random_table()), replace(PROOFREADING, propose=propose)
    (whole,) = (objective.corrupt(network, part, generator=keyed_generator(1)) for part in cut(ids, 7))
    parts = [objective.corrupt(network, part, generator=keyed_generator(1)) for part in cut(ids, 3)]
    assert torch.equal(torch.cat([part.z for part in parts]), whole.z)
    assert torch.equal(torch.cat([part.wrong for part in parts]), whole.wrong)


def proposals(propose, network, count: int = 20_000) -> torch.Tensor:
    """Proposals at masked positions of rows of one token each."""
    z = torch.full((count, 1), MASK)
    return propose(
        PROOFREADING.process,
        network,
        full_batch(torch.zeros_like(z)),
        z=z,
        t=torch.full((count,), 0.5, dtype=torch.float64),
        positions=torch.ones_like(z, dtype=torch.bool),
        noise=torch.rand(count, 1, generator=keyed_generator(3), dtype=torch.float64),
    )


def fit(words: torch.Tensor, law: torch.Tensor) -> float:
    """The p-value of a χ² test of words against a law over all but the mask."""
    observed = torch.bincount(words, minlength=V)
    assert observed[MASK] == 0
    return stats.chisquare(observed[:MASK].numpy(), (law[:MASK] / law[:MASK].sum() * len(words)).numpy()).pvalue


def test_uniform_proposals_are_uniform_over_words_and_own_ones_follow_the_network():
    table = random_table()
    own = table[MASK].exp()
    uniform = torch.ones(V, dtype=torch.float64)
    assert fit(proposals(uniform_proposals, Biased(table)), uniform) > 1e-3
    assert fit(proposals(own_proposals, Biased(table)), own) > 1e-3
    assert fit(proposals(own_proposals, Biased(table)), uniform) < 1e-12, "the test can fail"


def test_own_proposals_are_asked_for_with_the_position_hidden_and_leave_no_gradient():
    network = Biased(random_table())
    objective = replace(PROOFREADING, propose=own_proposals)
    loss = objective(network, random_batch(20), generator=keyed_generator(1))
    (first, _, wanted), _ = network.seen
    assert wanted.any()
    assert (first[wanted] == MASK).all()
    loss.nats.sum().backward()
    assert network.table.grad is not None


def test_both_curricula_rise_from_nothing():
    batch, network = random_batch(), Biased(random_table())
    shares = []
    for step in (1, 10, 20, 500):
        noisy = PROOFREADING.at(step).corrupt(network, batch, generator=keyed_generator(1))
        shares.append(float(noisy.wrong.sum() / (noisy.wrong | noisy.right).sum()))
    assert shares == pytest.approx([0.3 * 5 / 6 * rise for rise in (0.05, 0.5, 1, 1)], abs=0.012)
    gate = torch.zeros(1, dtype=torch.float64)
    kept = {"wrong": torch.tensor([False]), "right": torch.tensor([True])}
    nats = [float(PROOFREADING.at(step).remask_nats(gate, gate, **kept)) for step in (0, 20, 40, 500)]
    assert nats == pytest.approx([math.log(2) * (1 + 0.5 * rise) for rise in (0, 0.5, 1, 1)])


@pytest.mark.parametrize("penalty", [0.0, 1.0, 5.0])
def test_doubt_comes_to_rest_at_the_chance_of_a_wrong_word_and_below_it_with_a_penalty(penalty):
    objective, wrong = replace(PROOFREADING, penalty_mask_correct=penalty), 0.3
    gate = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    kinds = {"wrong": torch.tensor([True, False]), "right": torch.tensor([False, True])}
    weights = torch.tensor([wrong, 1 - wrong], dtype=torch.float64)
    for _ in range(400):
        nats = objective.remask_nats(torch.zeros(2, dtype=torch.float64), gate, **kinds)
        (slope,) = torch.autograd.grad((nats * weights).sum(), gate)
        gate = (gate - slope.sum()).detach().requires_grad_()
    p = float(gate[0].detach().sigmoid())
    assert wrong * (1 - p) == pytest.approx((1 - wrong) * (1 + penalty * p) * p, abs=1e-9)
    assert p == pytest.approx(wrong) if penalty == 0 else p < wrong - 0.02


# ── the loss ───────────────────────────────────────────────────────────────────────────────────────────────────


def loss_by_definition(objective: Proofreading, table: torch.Tensor, batch: Batch, noisy) -> torch.Tensor:
    """The docstring's formulas, a position at a time, from the whole softmax [B L]."""
    nats = torch.zeros(batch.ids.shape, dtype=torch.float64)
    for b in range(len(batch)):
        t = float(noisy.t[b])
        for i in range(batch.ids.shape[1]):
            p, x = table[noisy.z[b, i]].softmax(-1), batch.ids[b, i]
            q = p[:MASK] / (1 - p[MASK])
            if noisy.masked[b, i]:
                reward = 1 - (1 - objective.reward_correct_unmask) * float((q * q).sum().detach())
                alpha, slope = 1 - math.sin(math.pi / 2 * t), -math.pi / 2 * math.cos(math.pi / 2 * t)
                weight = objective.weight_unmask_task * -slope / (1 - alpha) * (1 - objective.t_min) * reward
                nats[b, i] = weight * -((1 - TAU) * p[x].log() + TAU * p[MASK].log())
            elif noisy.wrong[b, i]:
                nats[b, i] = objective.weight_remask_task * -p[MASK].log()
            else:
                penalty = 1 + objective.penalty_mask_correct * float(p[MASK].detach())
                nats[b, i] = objective.weight_remask_task * penalty * -p[x].log()
    return nats


@pytest.mark.usefixtures("global_generator_untouched")
def test_the_loss_is_that_of_the_definition():
    objective = replace(PROOFREADING, schedule=Cosine(), weight_unmask_task=0.7, weight_remask_task=1.6)
    batch, network = random_batch(15), Biased(random_table())
    loss = objective(network, batch, generator=keyed_generator(1))
    noisy = objective.corrupt(network, batch, generator=keyed_generator(1))
    torch.testing.assert_close(loss.nats, loss_by_definition(objective, network.table, batch, noisy))
    assert float(loss.terms["unmask"] + loss.terms["remask"]) == pytest.approx(float(loss.nats.detach().sum()))


def test_the_bias_changes_no_loss_and_no_gradient():
    """Otherwise the network learns to undo it as fast as it is raised."""
    batch, found = random_batch(15), []
    for bias in (0.0, 3.0):
        network = Biased(random_table(), bias)
        loss = PROOFREADING(network, batch, generator=keyed_generator(1))
        loss.nats.sum().backward()
        found.append((loss.nats.detach(), network.table.grad))
    torch.testing.assert_close(found[1][0], found[0][0])
    torch.testing.assert_close(found[1][1], found[0][1])


def expected_slope(objective, law: torch.Tensor, weigh) -> torch.Tensor:
    """The mean gradient of the unmask task [V] at logits that are right: q = law, P = τ; answers drawn from law."""
    logits = torch.cat([law.log(), torch.tensor([math.log(TAU / (1 - TAU))], dtype=torch.float64)]).requires_grad_()
    rows = logits.expand(MASK, V)
    log_q, gate = objective.split(rows, bias=torch.zeros(1, dtype=torch.float64))
    x = torch.arange(MASK)
    t = torch.full((MASK,), 0.5, dtype=torch.float64)
    nats = objective.unmask_nats(log_q, log_q[x, x], gate, t)
    (law * weigh(log_q[x, x].detach().exp()) * nats).sum().backward()
    assert logits.grad is not None
    return logits.grad


def test_rewards_leave_the_minimum_at_the_truth_and_one_that_reads_the_answer_would_not():
    law = torch.tensor([0.5, 0.3, 0.1, 0.05, 0.03, 0.02], dtype=torch.float64)
    for reward in (0.1, 0.5, 1.0):
        slope = expected_slope(replace(PROOFREADING, reward_correct_unmask=reward), law, torch.ones_like)
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-12)
    by_answer = expected_slope(replace(PROOFREADING, reward_correct_unmask=1.0), law, lambda q_x: 1 - 0.9 * q_x)
    assert by_answer[0] > 0.05, "the likeliest word would be pushed below its share"


def test_the_likelihood_is_the_bound_of_masked_diffusion_and_the_bias_plays_no_part():
    batch, network = cut(pattern_rows(6, seed=1), 6)[0], MaskBias(tiny_network(), MASK)
    plain = BOUND.likelihood_terms(network.network, batch, generator=keyed_generator(2), draws=3)
    network.mask_logit_bias.fill_(4.0)
    terms = PROOFREADING.likelihood_terms(network, batch, generator=keyed_generator(2), draws=3)
    assert terms.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(terms[name], value)
    assert not PROOFREADING.exact


# ── the bias ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_bias_moves_towards_its_target_by_no_more_than_its_rate():
    network = Biased(random_table())
    for mean, change in ((TAU, 0.0), (1e-6, 0.02), (0.99, -0.02), (0.12, -0.02 * math.log(0.12 / 0.88 * 9))):
        network.mask_logit_bias.zero_()
        PROOFREADING.steer(network, {"masked": 0.5, "masked_probability": 0.5 * mean})
        assert float(network.mask_logit_bias) == pytest.approx(change, abs=1e-9)
    PROOFREADING.steer(network, {"masked": 0.0, "masked_probability": 0.0})
    assert isinstance(PROOFREADING, Steered)


def test_a_network_without_a_bias_is_refused():
    with pytest.raises(ValueError, match="MaskBias"):
        PROOFREADING(tiny_network(), cut(pattern_rows(4, seed=1), 4)[0], generator=keyed_generator(1))


@pytest.mark.parametrize(
    ("name", "value"), [("reward_correct_unmask", 0.0), ("target_mask_prob", 1.0), ("replaced_share", -0.1)]
)
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: {value} was given"):
        replace(PROOFREADING, **{name: value})


def proofreading_state(seed: int = 1) -> TrainingState:
    network = MaskBias(tiny_network(seed=seed), MASK)
    return TrainingState(network, optimizers_of(network, learning_rate=1e-2), MovingAverage(network, decay=0.9))


def test_micro_batches_change_neither_bias_nor_figures():
    figures = []
    for micro in (8, 3):
        state = proofreading_state()
        steps = run_steps(state, 4, objective=PROOFREADING, batches=pattern_batches(micro=micro))
        figures.append(PROOFREADING.diagnostics(state.network, steps[-1].terms))
    assert figures[1] == pytest.approx(figures[0], rel=1e-3)
    assert figures[0]["mask_logit_bias"] != 0


def test_a_resumed_run_has_the_same_weights_bias_and_average(tmp_path):
    whole, first, second = (proofreading_state() for _ in range(3))
    run_steps(whole, 6, objective=PROOFREADING)
    run_steps(first, 3, objective=PROOFREADING)
    Checkpoints(tmp_path, keep=1).save(first, extra={})
    Checkpoints(tmp_path, keep=1).load_newest(second)
    run_steps(second, 6, objective=PROOFREADING)
    assert differing(everything(whole), everything(second)) == []
    assert float(second.network.mask_logit_bias) != 0


def test_the_chance_of_a_row_is_that_of_two_of_its_tokens_being_the_same():
    ids = torch.tensor([[0, 0, 1, 2], [3, 3, 3, 3]])
    targets = torch.tensor([[True, True, True, False], [True] * 4])
    batch = Batch(**{**vars(full_batch(ids)), "targets": targets})
    assert row_chance(batch).tolist() == pytest.approx([0.5, 0.5, 0.0, 1, 1, 1, 1])


class HardTarget(Proofreading):
    """As Proofreading, but masked positions are given no mass on [MASK]: the bias alone has to hold P up."""

    def unmask_nats(self, log_q, log_q_x, gate, t):
        return (nn.functional.softplus(gate) - log_q_x) / t.to(gate.dtype)


def course(objective: Proofreading, *, steps: int = 200) -> tuple[list[float], dict[str, float]]:
    """The bias after each step of training on a pattern, and the figures of the last hundred steps."""
    state, biases, terms = proofreading_state(), [], {}
    common = {"curve": constant, "clip": 1.0, "seed": 1, "steps": steps, "accelerator": Accelerator(cpu=True)}
    common |= {"world": ALONE, "guard": cautious(state.network, steps=steps)}
    for step in train(state, objective=objective, batches=pattern_batches(), **common):
        biases.append(float(state.network.mask_logit_bias))
        if step.index > steps - 100:
            terms = {name: terms.get(name, 0.0) + value for name, value in step.terms.items()}
    return biases, objective.diagnostics(state.network, terms)


def test_both_tasks_are_learned_while_the_bias_stays_near_zero():
    biases, figures = course(replace(PROOFREADING, bias_rate=0.1))
    assert max(map(abs, biases)) < 1.0
    assert abs(figures["mask_probability"] - TAU) < 0.02
    assert figures["mask_on_wrong"] > 5 * figures["mask_on_right"]
    assert figures["remask_auc"] > 0.75
    assert figures["unmask_accuracy"] > 2 * figures["unmask_chance"]


def test_without_a_target_for_the_mask_the_bias_climbs_and_right_words_are_called_wrong():
    """The failure that the soft target prevents."""
    own = {name: getattr(PROOFREADING, name) for name in PROOFREADING.__dataclass_fields__}
    biases, figures = course(HardTarget(**{**own, "bias_rate": 0.1}))
    assert biases[-1] > 2.5
    assert figures["mask_on_right"] > 0.3


def test_pairs_of_a_row_are_counted_one_by_one_and_equal_ones_by_half():
    low, high = torch.tensor([0.1, 0.5, 0.5, 0.9, 0.0]), torch.tensor([0.5, 0.05, 1.0, 1.0])
    row_low, row_high = torch.tensor([0, 0, 1, 1, 3]), torch.tensor([0, 1, 1, 2])
    both = [(a, b) for a, r in zip(low, row_low, strict=True) for b, q in zip(high, row_high, strict=True) if r == q]
    by_hand = sum(float(a < b) + 0.5 * float(a == b) for a, b in both)
    pairs, ordered = ordered_pairs(low, high, row_low=row_low, row_high=row_high)
    assert (pairs, ordered) == (len(both), by_hand)
    assert 0 < by_hand < len(both)
