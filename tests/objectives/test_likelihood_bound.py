"""The likelihood bound of DESIGN section 3, facts 1 to 4, by enumeration of every text, noise and time."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles import ALL_NOISES, KINDS, Constant, Posterior, Table, full_batch, make_noise, make_process
from exact import (
    all_sequences,
    posteriors,
    product_law,
    random_joint,
    reverse_chain_law,
    score_entropy,
    smooth_times,
    steer,
)
from remask.objectives import LikelihoodBound, generic_integrand, masking_integrand, spread_integrand
from remask.objectives.likelihood import rising_range
from remask.randomness import keyed_generator

pytestmark = pytest.mark.usefixtures("global_generator_untouched")
CLOSED_FORM = {"masking": masking_integrand, "uniform": spread_integrand, "hybrid": spread_integrand}
each_kind = pytest.mark.parametrize("kind", KINDS)
each_noise = pytest.mark.parametrize(("kind", "schedule"), ALL_NOISES)


def make_bound(kind: str, schedule: str, *, t_min: float, integrand=None, **size) -> LikelihoodBound:
    process = make_process(kind, schedule, **size)
    return LikelihoodBound(process=process, integrand=integrand or CLOSED_FORM[kind], t_min=t_min)


def exact_terms(bound: LikelihoodBound, noise, network, texts: np.ndarray, *, times: int = 60) -> dict:
    """The three terms of each text [K], noise summed over every z and times by quadrature, through the real code."""
    states = all_sequences(range(noise.vocab_size), texts.shape[1])
    pairs = [(k, z) for k in range(len(texts)) for z in states]
    chosen, z = np.array([k for k, _ in pairs]), np.array([z for _, z in pairs])
    x = texts[chosen]

    def mean(estimate, at: np.ndarray, weight: np.ndarray) -> np.ndarray:
        here = np.repeat(at, len(pairs))
        many_x, many_z = np.tile(x, (len(at), 1)), np.tile(z, (len(at), 1))
        rows = np.arange(len(here))[:, None]
        chance = noise.matrix(here)[rows, many_x, many_z].prod(-1)
        kept = chance > 1e-200
        numbers = steer(noise, many_x, many_z, here)
        batch = full_batch(many_x[kept])
        t, u = torch.from_numpy(here[kept]), torch.from_numpy(numbers[kept])
        assert (bound.process.corrupt(batch.ids, t, noise=u).numpy() == many_z[kept]).all()
        nats = estimate(batch, t, u).sum(-1).numpy()
        share = (np.repeat(weight, len(pairs)) * chance)[kept] * nats
        return np.bincount(np.tile(chosen, len(at))[kept], share, minlength=len(texts))

    nodes, weights = smooth_times(times, start=bound.t_min)
    batch = full_batch(texts)
    return {
        "diffusion": mean(lambda b, t, u: bound.diffusion(network, b, t=t, noise=u), nodes, weights),
        "reconstruction": mean(
            lambda b, t, u: bound.reconstruction(network, b, noise=u), np.array([bound.t_min]), np.ones(1)
        ),
        "prior": bound.process.prior_divergence(batch.ids, like=torch.zeros((), dtype=torch.float64)).sum(-1).numpy(),
    }


# ── integrands ─────────────────────────────────────────────────────────────────────────────────────────────────


def random_case(kind: str, schedule: str, *, size: int, seed: int, t: float, scale: float = 2.0):
    """Logits, noisy and clean tokens and times at positions that the integrand sees."""
    generator = keyed_generator(seed)
    mask_id = seed % size
    process = make_process(kind, schedule, vocab_size=size, mask_id=mask_id)
    noise = make_noise(kind, schedule, vocab_size=size, mask_id=mask_id)
    clean = torch.tensor(noise.clean)
    x = clean[torch.randint(len(clean), (8,), generator=generator)]
    times = torch.full((8,), t, dtype=torch.float64)
    z = clean[torch.randint(len(clean), (8,), generator=generator)]
    z[:3] = x[:3]
    if kind != "uniform":
        z[3 if kind == "hybrid" else 0 :] = mask_id
    logits = scale * torch.randn(8, size, generator=generator, dtype=torch.float64)
    return process, noise, logits.requires_grad_(), z, x, times


cases = given(size=st.integers(3, 6), seed=st.integers(0, 10**6), t=st.floats(0.01, 0.99))


def value_and_gradient(values: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return values.detach(), torch.autograd.grad(values.sum(), logits)[0]


@each_noise
@settings(max_examples=6)
@cases
def test_the_closed_form_is_the_generic_integrand(kind, schedule, size, seed, t):
    process, _, logits, z, x, times = random_case(kind, schedule, size=size, seed=seed, t=t)
    closed = value_and_gradient(CLOSED_FORM[kind](process, logits, z, x, times), logits)
    generic = value_and_gradient(generic_integrand(process, logits, z, x, times), logits)
    for one, other in zip(closed, generic, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@each_noise
@settings(max_examples=6)
@cases
def test_the_score_entropy_of_sedd_is_the_same_integrand(kind, schedule, size, seed, t):
    """The score read off the same posterior: values and gradients (DESIGN fact 1)."""
    process, noise, logits, z, x, times = random_case(kind, schedule, size=size, seed=seed, t=t)
    generic = value_and_gradient(generic_integrand(process, logits, z, x, times), logits)
    sedd = value_and_gradient(score_entropy(noise, logits, z, x, times), logits)
    for one, other in zip(generic, sedd, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)


@each_noise
@settings(max_examples=6)
@cases
def test_the_integrand_is_a_divergence(kind, schedule, size, seed, t):
    """Never negative, and zero for a network that knows the clean token."""
    process, _, logits, z, x, times = random_case(kind, schedule, size=size, seed=seed, t=t)
    integrand = CLOSED_FORM[kind]
    assert (integrand(process, logits, z, x, times) >= -1e-12).all()
    certain = torch.full_like(logits, -torch.inf).scatter(-1, x[:, None], 0.0)
    torch.testing.assert_close(integrand(process, certain, z, x, times), torch.zeros(8).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(
        generic_integrand(process, certain, z, x, times), torch.zeros(8).double(), atol=1e-9, rtol=0
    )


def test_masking_weighs_cross_entropy_by_the_schedule():
    """MDLM equation 10, by hand: linear schedule at t = 1/4, p(x) = 1/3: 4 · log 3."""
    process = make_process("masking", "linear")
    logits = torch.zeros(1, 4, dtype=torch.float64)
    value = masking_integrand(process, logits, torch.tensor([1]), torch.tensor([0]), torch.tensor([0.25]).double())
    assert float(value) == pytest.approx(4 * math.log(3))


@each_kind
def test_visible_tokens_cost_nothing_under_masking_and_something_under_uniform_noise(kind):
    process = make_process(kind, "linear")
    x = torch.tensor([0, 2, 3])
    value = generic_integrand(
        process,
        torch.randn(3, 4, generator=keyed_generator(1)).double(),
        x,
        x,
        torch.full((3,), 0.5).double(),
    )
    assert (value == 0).all() if kind == "masking" else (value > 0.01).all()


@each_kind
def test_the_mask_logit_changes_nothing(kind):
    process, _, logits, z, x, times = random_case(kind, "linear", size=5, seed=3, t=0.4)
    bumped = logits.detach().clone()
    bumped[:, process.mask_id] = 50.0
    for integrand in (CLOSED_FORM[kind], generic_integrand):
        assert torch.equal(integrand(process, bumped, z, x, times), integrand(process, logits.detach(), z, x, times))


@each_kind
@pytest.mark.parametrize("t", [1e-3, 0.1, 0.5, 0.99, 0.9999])
def test_float32_keeps_the_digits_of_the_closed_form(kind, t):
    """Up to the ends of time and at a real vocabulary: the loss is taken in float32."""
    size = 2000
    generator = keyed_generator(9)
    process = make_process(kind, "linear", vocab_size=size, mask_id=size - 1)
    x = torch.randint(size - 1, (30,), generator=generator)
    z = torch.randint(size - 1, (30,), generator=generator)
    z[:10] = x[:10]
    if kind != "uniform":
        z[20 if kind == "hybrid" else 0 :] = size - 1
    logits = 3 * torch.randn(30, size, generator=generator)
    logits[torch.arange(30), x] += 8
    times = torch.full((30,), t, dtype=torch.float64)
    short = CLOSED_FORM[kind](process, logits, z, x, times)
    assert short.dtype == torch.float32
    torch.testing.assert_close(
        short.double(), CLOSED_FORM[kind](process, logits.double(), z, x, times), rtol=1e-3, atol=1e-4
    )


def test_half_precision_logits_are_widened_before_the_loss():
    process, _, logits, z, x, times = random_case("hybrid", "linear", size=5, seed=3, t=0.4)
    for integrand in (spread_integrand, generic_integrand):
        assert integrand(process, logits.detach().bfloat16(), z, x, times).dtype == torch.float32


# ── the bound ──────────────────────────────────────────────────────────────────────────────────────────────────


@each_noise
@pytest.mark.parametrize("t_min", [1e-3, 0.2])
def test_the_true_posterior_reaches_the_entropy_of_the_data(kind, schedule, t_min):
    """The mean bound exceeds the entropy by exactly what is left out by construction:

    the divergence of the true law at t = 1 from the prior, and what tokens know of each other given z at t_min
    (reconstruction draws them independently). Both vanish with t_min and α_1.
    """
    noise = make_noise(kind, schedule)
    joint = random_joint(noise, 2, seed=11)
    bound = make_bound(kind, schedule, t_min=t_min)
    terms = exact_terms(bound, noise, Posterior(bound.process, noise, joint), joint.texts)
    mean = sum(float(joint.p @ term) for term in terms.values())
    left_out = divergence_from_prior(joint, noise) + dependence_given_noise(joint, noise, t_min)
    assert mean - joint.entropy == pytest.approx(left_out, abs=2e-5)
    if t_min == 1e-3 and schedule != "log_linear":
        # hybrid noise grows as √t, so that a share of 3 % is noise at t_min
        assert mean == pytest.approx(joint.entropy, abs=1e-3 if kind == "hybrid" else 1e-4)


def divergence_from_prior(joint, noise) -> float:
    """KL of the law of z at t = 1 from independent draws of the prior."""
    states = all_sequences(range(noise.vocab_size), joint.texts.shape[1])
    q_1 = noise.matrix(1.0)
    true = joint.p @ product_law(q_1[joint.texts], states)
    prior = product_law(np.tile(q_1[noise.clean].mean(0), (states.shape[1], 1)), states)
    inside = true > 1e-30
    return float((true[inside] * np.log(true[inside] / prior[inside])).sum())


def dependence_given_noise(joint, noise, t: float) -> float:
    """Σ_i H(x_i | z) − H(x | z) at time t: the mean total correlation of the posterior."""
    states = all_sequences(range(noise.vocab_size), joint.texts.shape[1])
    both = joint.p[:, None] * product_law(noise.matrix(t)[joint.texts], states)  # [K S]
    given_z = both / np.where(both.sum(0) > 0, both.sum(0), 1)
    whole = -(both * np.log(np.where(given_z > 0, given_z, 1))).sum()
    marginals = posteriors(joint, np.tile(noise.matrix(t), (len(states), 1, 1)), states, leave_out=False)
    single = -(marginals * np.log(np.where(marginals > 0, marginals, 1))).sum((1, 2))
    return float((both.sum(0) * single).sum() - whole)


@pytest.mark.parametrize(
    ("kind", "schedule", "term", "at_least"),
    [
        *[(kind, "linear", "diffusion", 1.0) for kind in KINDS],
        ("uniform", "linear", "reconstruction", 0.1),
        ("masking", "linear", "reconstruction", 0.05),
        ("uniform", "log_linear", "prior", 0.005),
        ("masking", "log_linear", "prior", 0.1),
        ("hybrid", "log_linear", "prior", 0.03),
    ],
)
def test_a_bound_without_one_of_its_terms_claims_too_much(kind, schedule, term, at_least):
    """DESIGN fact 3: without the term, the 'bound' of the true posterior lies below the entropy of the data."""
    t_min = 0.05
    noise = make_noise(kind, schedule)
    # independent, evenly spread tokens: nothing is left out by construction, so the bound is the entropy itself
    joint = random_joint(noise, 2, seed=0, sharpness=0.0)
    bound = make_bound(kind, schedule, t_min=t_min)
    terms = exact_terms(bound, noise, Posterior(bound.process, noise, joint), joint.texts)
    means = {name: float(joint.p @ value) for name, value in terms.items()}
    assert sum(means.values()) == pytest.approx(joint.entropy, abs=1e-7)
    assert joint.entropy - (sum(means.values()) - means[term]) > at_least


@each_noise
@pytest.mark.parametrize("integrand", ["closed", "generic"])
def test_a_constant_predictor_gets_exactly_log_v(kind, schedule, integrand):
    """All three terms together, log of the number of tokens that text can hold, for every text and any t_min."""
    noise = make_noise(kind, schedule, vocab_size=5, mask_id=2)
    chosen = generic_integrand if integrand == "generic" else None
    bound = make_bound(kind, schedule, t_min=0.01, integrand=chosen, vocab_size=5, mask_id=2)
    terms = exact_terms(bound, noise, Constant(bound.process), all_sequences(noise.clean, 1), times=120)
    np.testing.assert_allclose(sum(terms.values()), math.log(4), atol=1e-7)


@each_kind
@pytest.mark.parametrize("schedule", ["linear", "log_linear"])
@pytest.mark.parametrize("network", ["true", "wrong", "worse"])
def test_the_bound_lies_above_the_likelihood_of_every_text(kind, schedule, network):
    """−log p(x) of the network's own reverse chain, by its master equation over all V^L states."""
    t_min = 0.01
    noise = make_noise(kind, schedule)
    joint = random_joint(noise, 2, seed=4)
    bound = make_bound(kind, schedule, t_min=t_min)
    process = bound.process
    model = (
        Posterior(process, noise, joint)
        if network == "true"
        else Table(process, 2, seed=1, scale=0.5 if network == "wrong" else 2.0)
    )
    terms = exact_terms(bound, noise, model, joint.texts)
    prior = process.prior(torch.zeros((), dtype=torch.float64)).numpy()
    law, states = reverse_chain_law(noise, model.probabilities, prior, start=t_min, length=2, steps=300)
    assert law.sum() == pytest.approx(1, abs=1e-9)
    index = {tuple(state): k for k, state in enumerate(states)}
    p = law[[index[tuple(text)] for text in joint.texts]]
    assert p.sum() == pytest.approx(1, abs=1e-6), "text never holds a mask"
    gap = sum(terms.values()) + np.log(p)
    assert gap.min() > -1e-3
    if network == "true":
        if schedule == "linear":  # with α_1 > 0 the chain does not start from the law of the data
            np.testing.assert_allclose(p, redrawn(joint, noise, t_min), atol=2e-3)
    else:
        assert joint.p @ sum(terms.values()) > joint.entropy + 0.05


def redrawn(joint, noise, t: float) -> np.ndarray:
    """The law of texts that are noised to time t and reconstructed token by token from the true posterior."""
    states = all_sequences(range(noise.vocab_size), joint.texts.shape[1])
    law = joint.p @ product_law(noise.matrix(t)[joint.texts], states)
    marginals = posteriors(joint, np.tile(noise.matrix(t), (len(states), 1, 1)), states, leave_out=False)
    return law @ product_law(marginals, joint.texts)


@each_kind
def test_a_wrong_network_has_a_larger_mean_bound_than_the_true_posterior(kind):
    noise = make_noise(kind, "cosine")
    joint = random_joint(noise, 2, seed=4)
    bound = make_bound(kind, "cosine", t_min=0.01)
    best = exact_terms(bound, noise, Posterior(bound.process, noise, joint), joint.texts)
    for other in (Table(bound.process, 2, seed=1, scale=0.3), Constant(bound.process)):
        terms = exact_terms(bound, noise, other, joint.texts)
        assert joint.p @ sum(terms.values()) > joint.p @ sum(best.values()) + 0.05


def test_the_posterior_given_all_tokens_is_a_worse_leave_one_out_network_for_uniform_noise():
    """DESIGN fact 2, as a likelihood: the misuse does not reach the entropy."""
    noise = make_noise("uniform", "linear")
    joint = random_joint(noise, 2, seed=4)
    bound = make_bound("uniform", "linear", t_min=1e-3)
    misuse = exact_terms(bound, noise, Posterior(bound.process, noise, joint, leave_out=False), joint.texts)
    assert joint.p @ sum(misuse.values()) > joint.entropy + 0.1


# ── the objective as it is used ────────────────────────────────────────────────────────────────────────────────


@each_kind
def test_drawn_terms_have_the_enumerated_means(kind):
    noise = make_noise(kind, "log_linear")
    bound = make_bound(kind, "log_linear", t_min=0.05)
    network = Table(bound.process, 2, seed=2, scale=0.5)
    text = np.array([[0, 3]])
    exact = exact_terms(bound, noise, network, text)
    batch = full_batch(np.tile(text, (4000, 1)))
    drawn = bound.likelihood_terms(network, batch, generator=keyed_generator(1), draws=4)
    for name, term in exact.items():
        rows = drawn[name].sum(-1)
        spread = 4.5 * float(rows.std()) / len(rows) ** 0.5 + 1e-9
        assert float(rows.mean()) == pytest.approx(float(term[0]), abs=spread), name


@each_kind
def test_the_training_loss_is_the_diffusion_term(kind):
    noise = make_noise(kind, "linear")
    bound = make_bound(kind, "linear", t_min=0.05)
    network = Table(bound.process, 2, seed=2, scale=0.5)
    text = np.array([[0, 3]])
    exact = float(exact_terms(bound, noise, network, text)["diffusion"][0])
    loss = bound(network, full_batch(np.tile(text, (20_000, 1))), generator=keyed_generator(1))
    rows = loss.nats.sum(-1)
    assert float(rows.mean()) == pytest.approx(exact, abs=4.5 * float(rows.std()) / 20_000**0.5)
    assert float(loss.terms["diffusion"]) == pytest.approx(float(loss.nats.sum()))
    assert loss.weight.sum() == 40_000


def test_reweighting_touches_training_alone():
    plain = make_bound("masking", "linear", t_min=0.05)
    doubled = LikelihoodBound(
        process=plain.process,
        integrand=plain.integrand,
        t_min=0.05,
        reweight=lambda t: torch.full_like(t, 2.0),
    )
    network, batch = Table(plain.process, 2, seed=2), full_batch([[0, 3]] * 6)
    one, two = (bound(network, batch, generator=keyed_generator(1)).nats for bound in (plain, doubled))
    torch.testing.assert_close(two, 2 * one)
    one, two = (
        bound.likelihood_terms(network, batch, generator=keyed_generator(1), draws=2) for bound in (plain, doubled)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_curriculum_cuts_training_short_and_never_a_likelihood():
    plain = make_bound("masking", "linear", t_min=0.05)
    rising = replace(plain, curriculum=rising_range(start=0.3, steps=4))
    assert [rising.at(step).t_max for step in (1, 3, 5, 100)] == pytest.approx([0.3, 0.65, 1.0, 1.0])
    batch = full_batch([[0, 3]] * 50)

    class Watching(Table):
        def predict(self, z, t):
            self.latest = float(t.max())
            return super().predict(z, t)

    network = Watching(plain.process, 2, seed=2)
    early = rising.at(1)(network, batch, generator=keyed_generator(1))
    assert network.latest < 0.3
    assert "diffusion" not in early.terms, "a cut-short loss is no estimate of the likelihood"
    assert torch.equal(
        rising.at(5)(network, batch, generator=keyed_generator(1)).nats,
        plain(network, batch, generator=keyed_generator(1)).nats,
    )
    whole, cut = (
        bound.likelihood_terms(network, batch, generator=keyed_generator(1), draws=2) for bound in (plain, rising.at(1))
    )
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def padded(batch, extra: int):
    """The same rows with `extra` positions of padding at the end."""

    def wider(table, value):
        return torch.nn.functional.pad(table, (0, extra), value=value)

    return type(batch)(
        ids=wider(batch.ids, 0),
        segments=wider(batch.segments, 0),
        targets=wider(batch.targets, False),
        byte_lengths=wider(batch.byte_lengths, 0),
        rows=batch.rows,
        global_size=batch.global_size,
    )


@each_kind
def test_padding_is_neither_corrupted_nor_counted(kind):
    """Positions that are no target keep their token, cost nothing and weigh nothing, in loss and likelihood."""
    bound = make_bound(kind, "linear", t_min=0.05)

    class Watching(Constant):
        def predict(self, z, t):
            assert (z[:, 2:] == 0).all(), "padding was corrupted"
            return super().predict(z, t)

    batch = padded(full_batch([[3, 2]] * 8), 3)
    network = Watching(bound.process)
    loss = bound(network, batch, generator=keyed_generator(1))
    terms = bound.likelihood_terms(network, batch, generator=keyed_generator(1), draws=2)
    for table in (loss.nats, loss.weight, *terms.values()):
        assert (table[:, 2:] == 0).all()
    assert 3 <= network.calls <= 5  # reconstruction asks nothing where no token was hidden


@each_kind
@pytest.mark.parametrize("parts", [[4, 4], [1, 5, 2]])
def test_losses_do_not_depend_on_micro_batches(kind, parts):
    bound = make_bound(kind, "linear", t_min=0.05)
    network = Table(bound.process, 3, seed=2)
    ids = torch.tensor([0, 2, 3])[torch.randint(3, (8, 3), generator=keyed_generator(5))]
    whole = bound(network, full_batch(ids), generator=keyed_generator(1)).nats
    starts = [0, *itertools.accumulate(parts)]
    pieces = [
        bound(network, full_batch(ids[a:b], rows=range(a, b), global_size=8), generator=keyed_generator(1)).nats
        for a, b in itertools.pairwise(starts)
    ]
    assert torch.equal(whole, torch.cat(pieces))


def test_a_bound_never_claims_to_be_the_likelihood():
    assert make_bound("masking", "linear", t_min=0.1).exact is False
