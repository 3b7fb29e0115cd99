"""Score entropy: SEDD's own sum, what it shares with the likelihood bound, and what lack of normalisation costs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles import CURVES, Constant, Table, full_batch, make_noise, make_process
from exact import score_entropy
from remask.objectives import (
    LikelihoodBound,
    ScoreEntropy,
    absorbing_score_entropy,
    generic_integrand,
    masking_integrand,
    uniform_score_entropy,
)
from remask.randomness import keyed_generator

pytestmark = pytest.mark.usefixtures("global_generator_untouched")
FORMS = {"masking": absorbing_score_entropy, "uniform": uniform_score_entropy}
each_curve = pytest.mark.parametrize("schedule", CURVES)
each_graph = pytest.mark.parametrize("kind", FORMS)
cases = given(size=st.integers(3, 6), seed=st.integers(0, 10**6), t=st.floats(0.01, 0.99))


def random_case(kind: str, schedule: str, *, size: int, seed: int, t: float):
    """Process, its definition, logits, and noisy and clean tokens at positions that the integrand sees."""
    generator = keyed_generator(seed)
    mask_id = seed % size
    process = make_process(kind, schedule, vocab_size=size, mask_id=mask_id)
    noise = make_noise(kind, schedule, vocab_size=size, mask_id=mask_id)
    clean = torch.tensor(noise.clean)
    x, z = (clean[torch.randint(len(clean), (8,), generator=generator)] for _ in range(2))
    z[:3] = x[:3]
    if kind == "masking":
        z[:] = mask_id
    logits = 2 * torch.randn(8, size, generator=generator, dtype=torch.float64)
    return process, noise, logits.requires_grad_(), z, x, torch.full((8,), t, dtype=torch.float64)


def value_and_gradient(values: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return values.detach(), torch.autograd.grad(values.sum(), logits)[0]


def absorbing_by_definition(noise, logits, x, t) -> torch.Tensor:
    """SEDD equations 5 and 9 at masked positions, term by term, with scores α/(1 − α) · exp(f_y − log n)."""
    total = []
    for row, text in enumerate(x.tolist()):
        at = float(t[row])
        matrix, rate = noise.matrix(at), noise.rates(at)
        value = torch.zeros((), dtype=logits.dtype)
        for y in noise.clean:
            score = matrix[y, y] / matrix[y, noise.mask_id] * torch.exp(logits[row, y] - math.log(len(noise.clean)))
            ratio = matrix[text, y] / matrix[text, noise.mask_id]
            known = ratio * (math.log(ratio) - 1) - ratio * score.log() if ratio > 0 else 0.0
            value = value + rate[y, noise.mask_id] * (score + known)
        total.append(value)
    return torch.stack(total)


# ── integrands ─────────────────────────────────────────────────────────────────────────────────────────────────


@each_curve
@settings(max_examples=6)
@cases
def test_absorbing_score_entropy_is_sedds_sum(schedule, size, seed, t):
    process, noise, logits, z, x, times = random_case("masking", schedule, size=size, seed=seed, t=t)
    ours = value_and_gradient(absorbing_score_entropy(process, logits, z, x, times), logits)
    sedd = value_and_gradient(absorbing_by_definition(noise, logits, x, times), logits)
    for one, other in zip(ours, sedd, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@each_curve
@settings(max_examples=6)
@cases
def test_uniform_score_entropy_is_sedds_sum_and_the_likelihood_bound(schedule, size, seed, t):
    process, noise, logits, z, x, times = random_case("uniform", schedule, size=size, seed=seed, t=t)
    ours = value_and_gradient(uniform_score_entropy(process, logits, z, x, times), logits)
    sedd = value_and_gradient(score_entropy(noise, logits, z, x, times), logits)
    bound = value_and_gradient(generic_integrand(process, logits, z, x, times), logits)
    for one, other, third in zip(ours, sedd, bound, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(one, third, rtol=1e-8, atol=1e-9)


@each_curve
@settings(max_examples=6)
@cases
def test_absorbing_score_entropy_is_the_bound_plus_what_normalisation_is_off_by(schedule, size, seed, t):
    process, _, logits, z, x, times = random_case("masking", schedule, size=size, seed=seed, t=t)
    total = (logits.exp() / process.data_size)[:, [v for v in range(size) if v != process.mask_id]].sum(-1)
    weight = -process.schedule.slope(times) / (1 - process.schedule.alpha(times))
    excess = absorbing_score_entropy(process, logits, z, x, times) - masking_integrand(process, logits, z, x, times)
    torch.testing.assert_close(excess, weight * (total - 1 - total.log()), rtol=1e-7, atol=1e-9)
    assert (excess >= -1e-9).all()


def test_normalised_absorbing_scores_cost_no_more_than_the_bound():
    process, _, logits, z, x, times = random_case("masking", "cosine", size=5, seed=3, t=0.4)
    normalised = process.log_clean(logits) + math.log(process.data_size)
    torch.testing.assert_close(
        absorbing_score_entropy(process, normalised, z, x, times), masking_integrand(process, logits, z, x, times)
    )
    shifted = absorbing_score_entropy(process, normalised + 0.5, z, x, times)
    assert (shifted > masking_integrand(process, logits, z, x, times) + 0.1).all(), "a constant added counts here"


def test_forgetting_the_logarithm_of_n_is_told_apart():
    """The negative: scores α/(1 − α) · exp(f) instead of exp(f − log n) are another loss."""
    process, noise, logits, z, x, times = random_case("masking", "linear", size=5, seed=3, t=0.4)
    wrong = absorbing_score_entropy(process, logits + math.log(process.data_size), z, x, times)
    assert ((wrong - absorbing_by_definition(noise, logits, x, times)).abs() > 0.1).all()


@each_graph
def test_the_mask_logit_changes_nothing(kind):
    process, _, logits, z, x, times = random_case(kind, "linear", size=5, seed=3, t=0.4)
    bumped = logits.detach().clone()
    bumped[:, process.mask_id] = 50.0
    assert torch.equal(FORMS[kind](process, bumped, z, x, times), FORMS[kind](process, logits.detach(), z, x, times))


@each_graph
@pytest.mark.parametrize("t", [1e-3, 0.1, 0.5, 0.99, 0.9999])
def test_float32_keeps_the_digits(kind, t):
    """Up to the ends of time and at a real vocabulary; half precision is widened first."""
    size = 2000
    generator = keyed_generator(9)
    process = make_process(kind, "linear", vocab_size=size, mask_id=size - 1)
    x, z = (torch.randint(size - 1, (30,), generator=generator) for _ in range(2))
    z[:10] = x[:10]
    if kind == "masking":
        z[:] = size - 1
    logits = 3 * torch.randn(30, size, generator=generator)
    logits[torch.arange(30), x] += 8
    times = torch.full((30,), t, dtype=torch.float64)
    short = FORMS[kind](process, logits, z, x, times)
    assert short.dtype == FORMS[kind](process, logits.bfloat16(), z, x, times).dtype == torch.float32
    torch.testing.assert_close(short.double(), FORMS[kind](process, logits.double(), z, x, times), rtol=1e-3, atol=1e-4)


# ── the objective ──────────────────────────────────────────────────────────────────────────────────────────────


def bound_of(kind: str, *, t_min: float) -> LikelihoodBound:
    return LikelihoodBound(process=make_process(kind, "linear"), integrand=generic_integrand, t_min=t_min)


@each_graph
def test_training_records_the_bound_beside_the_score_entropy(kind):
    """On the same draws as the likelihood bound's own training loss."""
    objective = ScoreEntropy(process=make_process(kind, "linear"), t_min=0.05)
    network, batch = Table(objective.process, 3, seed=2, scale=0.5), full_batch([[0, 3, 2], [2, 2, 0]] * 4)
    loss = objective(network, batch, generator=keyed_generator(1))
    bound = bound_of(kind, t_min=0.05)(network, batch, generator=keyed_generator(1))
    assert float(loss.terms["diffusion"]) == pytest.approx(float(bound.nats.sum()))
    assert float(loss.terms["score_entropy"]) == pytest.approx(float(loss.nats.sum()))
    if kind == "uniform":
        torch.testing.assert_close(loss.nats, bound.nats)
    else:
        assert (loss.nats >= bound.nats - 1e-12).all()
        assert float(loss.nats.sum()) > float(bound.nats.sum()) + 0.1
    assert torch.equal(loss.weight, bound.weight)
    assert network.calls == 2


@each_graph
def test_its_likelihood_is_the_bound_of_the_normalised_network(kind):
    objective = ScoreEntropy(process=make_process(kind, "linear"), t_min=0.05)
    network, batch = Table(objective.process, 3, seed=2), full_batch([[0, 3, 2]] * 4)
    ours = objective.likelihood_terms(network, batch, generator=keyed_generator(1), draws=3)
    bound = bound_of(kind, t_min=0.05).likelihood_terms(network, batch, generator=keyed_generator(1), draws=3)
    assert ours.keys() == bound.keys()
    for name, term in ours.items():
        torch.testing.assert_close(term, bound[name])
    assert objective.exact is False
    assert objective.at(5) is objective


@each_graph
def test_a_network_that_starts_at_zero_pays_nothing_for_normalisation(kind):
    """SEDD's own start: Z = 1."""
    objective = ScoreEntropy(process=make_process(kind, "linear"), t_min=0.05)
    loss = objective(Constant(objective.process), full_batch([[0, 3]] * 500), generator=keyed_generator(1))
    assert float(loss.terms["score_entropy"]) == pytest.approx(float(loss.terms["diffusion"]))


def test_noise_that_has_no_score_entropy_here_is_refused():
    with pytest.raises(ValueError, match=r"Hybrid was given.*Masking and Uniform"):
        ScoreEntropy(process=make_process("hybrid", "linear"), t_min=0.05)
