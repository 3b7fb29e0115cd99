"""The objective of a thought, where the true posterior is known, and its parts."""

from dataclasses import replace

import pytest
import torch

from doubles import full_batch
from remask.gaussian import CLEAN, NOISE, VELOCITY, CosineNoise, LinearNoise, SquareRootNoise
from remask.networks.thought.warping import TimeWarp
from remask.objectives.thought import cross_entropy, rows_in, squared_error
from remask.objectives.thought_rows import TableRows
from remask.randomness import keyed_generator
from thoughts import ANSWERS, EOS, MASK, Knowing, V, question_rows, random_law, random_table, thought_network
from thoughts import thought_objective as objective

TOKENS = (1, 4, 7)


def texts(law, count, *, seed=5):
    index = torch.multinomial(law.flatten(), count, replacement=True, generator=keyed_generator(seed, "texts"))
    return full_batch(torch.stack([index // V, index % V], 1))


def per_token(loss):
    return float(loss.nats.sum() / loss.weight.sum())


def test_the_true_posterior_of_a_place_is_bayes_rule_over_the_table():
    law, table, t = random_law(*TOKENS), random_table(2), torch.tensor([0.6], dtype=torch.float64)
    network = Knowing(law, table)
    z = torch.randn(1, 2, 2, generator=keyed_generator(1, "z"), dtype=torch.float64)
    every = torch.ones(1, 2, dtype=torch.bool)
    said = network(z, t, ids=every.long(), noisy=every, segments=every.long(), before=None, positions=every)
    alpha, sigma = CosineNoise().coefficients(t)
    joint = torch.zeros(V, V, dtype=torch.float64)
    for one in TOKENS:
        for other in TOKENS:
            off = (z[0] - alpha * table[[one, other]]).square().sum()
            joint[one, other] = law[one, other] * (-off / (2 * sigma**2)).exp().item()
    p = objective().readout.spoken(said).exp()
    torch.testing.assert_close(p, torch.stack([joint.sum(1), joint.sum(0)]) / joint.sum())


def test_the_true_posterior_loses_least_and_beats_the_linear_filter_everywhere():
    law, table = random_law(*TOKENS), random_table(2)
    batch, of = texts(law, 4000), objective(memory=0.0, t_min=0.05)
    generator = [torch.Generator().manual_seed(1) for _ in range(2)]
    true = of(Knowing(law, table), batch, generator=generator[0])
    wrong = of(Knowing(random_law(*TOKENS, seed=1), table), batch, generator=generator[1])
    assert per_token(true) < per_token(wrong) - 0.01
    assert of.diagnostics(torch.nn.Module(), {k: float(v) for k, v in true.terms.items()})["worst_skill"] > 0.0


def test_a_constant_network_costs_the_logarithm_of_the_vocabulary_and_its_estimate_is_the_mean_vector():
    network, batch = thought_network(), question_rows()
    torch.nn.init.zeros_(network.trunk.head.weight)
    loss = objective()(network, batch, generator=torch.Generator().manual_seed(1))
    assert per_token(loss) == pytest.approx(torch.tensor(V - 1.0).log().item(), rel=1e-6)
    vectors = network.codec.vectors()
    estimate = objective().readout.read(torch.zeros(1, V), torch.zeros(1, 4), torch.ones(1), rows_in(batch, network))
    kept = torch.arange(V) != MASK
    torch.testing.assert_close(estimate.clean[0], vectors[kept].mean(0))
    assert bool((estimate.log_p[:, MASK] == -torch.inf).all())


@pytest.mark.parametrize("answers", [None, ANSWERS])
def test_every_weight_has_a_gradient_in_the_first_step(answers):
    network, of = thought_network(), objective(answers=answers).at(1)
    of(network, question_rows(), generator=torch.Generator().manual_seed(1)).nats.sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or float(p.grad.abs().max()) == 0.0]
    assert still == []


def test_micro_batches_change_nothing():
    network, batch = thought_network(), question_rows(("1=?2#34", "5=?6#70", "8=?99#1", "4=?1#2"))
    of = objective(answers=ANSWERS).at(1)
    whole = of(network, batch, generator=keyed_generator(1, "noise"))
    parts = []
    for rows in (slice(0, 1), slice(1, 4)):
        tables = {name: getattr(batch, name)[rows] for name in ("ids", "segments", "targets", "byte_lengths", "rows")}
        parts.append(of(network, replace(batch, **tables), generator=keyed_generator(1, "noise")).nats)
    torch.testing.assert_close(torch.cat(parts), whole.nats, atol=1e-5, rtol=1e-5)


def test_the_first_step_remembers_and_as_many_of_the_others_as_the_share_says():
    of = objective(memory=0.5)
    assert [of.at(step).remembering for step in range(1, 7)] == [True, False, True, False, True, False]
    assert sum(objective(memory=0.25).at(step).remembering for step in range(1, 41)) == 10
    assert not any(objective(memory=0.0).at(step).remembering for step in range(1, 9))
    assert all(objective(memory=1.0).at(step).remembering for step in range(1, 9))


def test_what_is_remembered_brings_no_gradient_of_its_own():
    network, batch = thought_network(), question_rows()
    calls = []

    class Watched(torch.nn.Module):
        codec = network.codec

        def forward(self, *arguments, before, **rest):
            calls.append((torch.is_grad_enabled(), before))
            return network(*arguments, before=before, **rest)

    objective().at(1)(Watched(), batch, generator=torch.Generator().manual_seed(1))
    assert [enabled for enabled, _ in calls] == [False, True]
    (_, first), (_, before) = calls
    assert first is None
    assert not before.requires_grad
    assert bool((before[~batch.targets] == 0).all())


@pytest.mark.parametrize(("known", "mean"), [([0.0] * 20, 0.5), ([0.0] * 19 + [1.0], 0.9275)])
def test_training_times_are_drawn_where_the_network_knows_its_loss_to_rise(known, mean):
    """A tenth of them uniform, the others in the last of 20 ranges."""
    network, batch, seen = thought_network(), question_rows(("1=?2#34", "5=?6#70") * 50), []
    network.warp = TimeWarp()
    network.warp.nats.data = torch.tensor(known)
    network.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    objective(memory=0.0)(network, batch, generator=keyed_generator(1, "noise"))
    assert float(torch.cat(seen).mean()) == pytest.approx(mean, abs=0.01)


def test_the_figure_is_told_at_uniform_times_beside_uniform_and_unigram():
    law, table = random_law(*TOKENS), random_table(2)
    found = objective().assess(Knowing(law, table), texts(law, 50), generator=torch.Generator().manual_seed(1), draws=4)
    assert found.weight.tolist() == [8.0] * 50
    assert 0.0 < float(found.nats.sum() / found.weight.sum()) < 1.1
    beside = objective().trivial([], {"uniform": 3.0, "unigram": 2.0, "byte 2-gram": 1.0})
    assert beside == {"uniform": 3.0, "unigram": 2.0}
    with pytest.raises(ValueError, match="no likelihood"):
        objective().likelihood_terms(Knowing(law, table), texts(law, 2), generator=torch.Generator(), draws=1)


def test_a_row_is_rebuilt_with_its_question_as_it_was():
    batch = question_rows()
    rows = objective().rebuild(thought_network(), batch, generator=torch.Generator().manual_seed(1))
    assert bool((rows == batch.ids)[~batch.targets].all())
    assert MASK not in rows


@pytest.mark.parametrize("process", [CosineNoise(), LinearNoise(), SquareRootNoise()])
def test_noisy_vectors_have_unit_variance_at_every_time(process):
    t = torch.linspace(0.001, 1.0, 9, dtype=torch.float64)
    torch.testing.assert_close(process.expected_square(t, variance=1.0), torch.ones_like(t))


# ── squared errors ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prediction", [CLEAN, NOISE, VELOCITY])
def test_who_says_zero_gets_the_trivial_loss(prediction):
    of = objective(vectors=True, loss=squared_error, memory=0.0, prediction=prediction)
    network, batch = thought_network(speaks=4), question_rows(("1=?2#34",) * 400)
    torch.nn.init.zeros_(network.say.weight)
    loss = of(network, batch, generator=torch.Generator().manual_seed(1))
    assert per_token(loss) == pytest.approx(of.trivial_loss["zero"], rel=0.05)
    assert of.trivial_loss["linear filter"] <= of.trivial_loss["zero"]  # for velocity zero is the filter
    if prediction is NOISE:
        assert of.trivial_loss["zero"] == pytest.approx(1.0)


def test_a_squared_error_of_the_mean_vector_is_that_of_the_estimate():
    law, table = random_law(*TOKENS), random_table(2)
    batch, of = texts(law, 300), objective(loss=squared_error, memory=0.0)
    loss = of(Knowing(law, table), batch, generator=torch.Generator().manual_seed(1))
    assert 0.0 < per_token(loss) < of.trivial_loss["linear filter"]
    assert objective(loss=cross_entropy).trivial_loss == {}


def test_tokens_are_read_off_a_vector_by_distance():
    vectors = random_table(3).float()
    readout = objective(vectors=True, loss=squared_error).readout
    every = torch.arange(MASK)[None]
    rows = TableRows(ids=every, free=every >= 0, segments=torch.ones_like(every), vectors=vectors)
    estimate = readout.read(vectors[:MASK] + 0.01, torch.zeros(MASK, 3), torch.full((MASK,), 0.5), rows)
    assert estimate.log_p.argmax(-1).tolist() == list(range(MASK))


# ── answers ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_stands_behind_the_last_mark_and_ends_with_the_first_end_of_text():
    batch = question_rows(("1=?2#34#5", "5=?6", "8=?#99#1"), length=11)
    found = ANSWERS.find(batch)
    assert [row[real].tolist() for row, real in zip(found.ids, found.real, strict=True)] == [
        [batch.ids[0, 8], EOS],
        [],
        [batch.ids[2, 7], EOS],
    ]
    whole = replace(ANSWERS, marks=None).find(batch)
    assert whole.real.sum(1).tolist() == [7, 2, 6]


def test_a_mark_in_the_question_is_none():
    batch = question_rows(("#=?2",))
    assert not bool(ANSWERS.find(batch).real.any())


def test_answers_of_a_share_of_the_rows_are_written_and_spread_over_the_batch():
    batch = question_rows(("1=?2#34",) * 8)
    assert replace(ANSWERS, share=0.25).rows(batch).tolist() == [False, False, False, True] * 2
    assert replace(ANSWERS, share=0.1).rows(batch).tolist() == [False] * 7 + [True], "never nobody's"
    plain = objective()(thought_network(), batch, generator=keyed_generator(1, "noise"))
    both = objective(answers=replace(ANSWERS, share=0.25))(
        thought_network(), batch, generator=keyed_generator(1, "noise")
    )
    more = (both.nats - plain.nats).detach()
    assert bool((more[3] > 0.5).any())
    torch.testing.assert_close(more[:3], torch.zeros(3, 10))
    written = {k: float(v) for k, v in both.terms.items()}
    mean = written["answer_nats"] / written["answer_tokens"]
    assert float(more.sum() / both.weight.sum()) == pytest.approx(ANSWERS.weight * mean, rel=1e-5), (
        "beside a place's mean"
    )
    figures = objective(answers=ANSWERS).diagnostics(torch.nn.Module(), written)
    assert figures["answer_nats_per_token"] == pytest.approx(torch.tensor(V - 1.0).log().item(), rel=0.3)
