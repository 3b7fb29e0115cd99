"""The bound of a latent diffusion over concepts, where the true prior and the true decoder are known.

Each text has a concept of its own, drawn once: a vector of one number. Then p(z_t0) is a mixture over texts, the true
estimate of the clean concept and the true decoder follow by Bayes' rule, and the five terms must add up to −log p(x).
"""

import math
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest
import torch

from concept_readers import PROCESS, Spy, V, rows
from doubles import full_batch, make_process
from exact import all_sequences, chi_squared
from remask.gaussian import VELOCITY, CosineNoise
from remask.imagination import imagine
from remask.networks.concepts import Concepts
from remask.objectives import LikelihoodBound, masking_integrand
from remask.objectives.concepts.autoencoder import ConceptAutoencoder
from remask.objectives.concepts.channel import LatentChannel
from remask.objectives.concepts.prior import ConceptPrior, per_target, skill_of
from remask.objectives.gaussian import LatentDiffusion, own_error
from remask.objectives.responses import AsTexts
from remask.randomness import keyed_generator
from remask.samplers import Prompt, ancestral, blank_prompt
from remask.samplers.gaussian import ddim, ddpm, heun
from remask.schedules import time_grid

T0, MASK = 0.25, 1
TEXTS = torch.from_numpy(all_sequences([0, 2, 3], 2))


def random_law(seed: int) -> torch.Tensor:
    """A law over the nine texts."""
    weights = torch.rand(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    return weights / weights.sum()


@dataclass
class Knowing:
    """Encoder by a table, prior and decoder by Bayes' rule under a law of texts; `believed` may be a wrong one."""

    law: torch.Tensor
    places: torch.Tensor
    believed: torch.Tensor | None = None
    process: CosineNoise = field(default_factory=CosineNoise)

    def _log_joint(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """log p(text) N(z; α f(text), σ²) of concepts [B] and every text [B 9], up to a constant a row."""
        alpha, sigma = self.process.coefficients(t)
        off = (z[:, None] - alpha[:, None] * self.places) / sigma[:, None]
        return (self.law if self.believed is None else self.believed).log() - 0.5 * off.square()

    def encode(self, source, *, real):
        assert bool(real.all())
        index = (source[:, None] == TEXTS).all(-1).long().argmax(-1)
        return Concepts(vectors=self.places[index][:, None, None], real=torch.ones(len(source), 1, dtype=torch.bool))

    def __call__(self, z, t):
        clean = (self._log_joint(z[:, 0, 0], t).softmax(-1) @ self.places)[:, None, None]
        return self.process.velocity(clean, t, noise=self.process.noise_of_clean(z, clean, t))

    def told(self, vectors):
        return Concepts(vectors=vectors, real=torch.ones(vectors.shape[:2], dtype=torch.bool))

    def decode(self, z, t, concepts, *, segments, positions):
        start = torch.full((len(z),), T0, dtype=torch.float64)
        log_joint = self._log_joint(concepts.vectors[:, 0, 0].double(), start)
        fits = ((z[:, None] == MASK) | (z[:, None] == TEXTS)).all(-1)
        chance = log_joint.masked_fill(~fits, -torch.inf).softmax(-1)
        onehot = torch.nn.functional.one_hot(TEXTS, 4).double()
        return torch.einsum("bk,klv->blv", chance, onehot).clamp_min(1e-300).log()[positions]


def network(seed: int = 3, **changes) -> Knowing:
    places = torch.randn(9, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    return replace(Knowing(law=random_law(seed), places=places), **changes)


def objective() -> ConceptPrior:
    process = make_process("masking", "linear", mask_id=MASK)
    bound = LikelihoodBound(process=process, integrand=masking_integrand, t_min=1e-3)
    channel = LatentChannel(process=CosineNoise(), time=T0, concepts=1, width=1)
    diffusion = LatentDiffusion(process=CosineNoise(), prediction=VELOCITY, weighting=own_error(VELOCITY), t_min=T0)
    return ConceptPrior(bound=bound, channel=channel, diffusion=diffusion, skill=skill_of(diffusion))


def terms_of(knowing: Knowing, *, copies: int = 300, draws: int = 12) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The mean of each term for each text [9], and the standard error of their sum."""
    batch = full_batch(TEXTS.repeat(copies, 1).numpy())
    terms = objective().likelihood_terms(knowing, batch, generator=keyed_generator(5, "test"), draws=draws)
    rows = {name: term.sum(-1).double().view(copies, 9).numpy() for name, term in terms.items()}
    total = sum(rows.values())
    return {name: value.mean(0) for name, value in rows.items()}, total.std(0) / math.sqrt(copies)


@cache
def true_terms() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The terms of the network that knows the law."""
    return terms_of(network())


def test_the_five_terms_of_the_truth_add_up_to_the_texts_own_nats():
    knowing = network()
    terms, error = true_terms()
    gap = sum(terms.values()) + knowing.law.log().numpy()
    assert sorted(terms) == ["concepts_diffusion", "concepts_prior", "diffusion", "prior", "reconstruction"]
    assert (np.abs(gap) < 4 * error).all()
    assert error.max() < 0.18
    assert abs(float(knowing.law @ torch.from_numpy(gap))) < 0.06


def test_the_rate_is_what_the_noisy_concept_tells_of_the_text():
    """E over texts of the rate is the mutual information of z_t0 and the text, here by quadrature over z."""
    knowing = network()
    terms, _ = true_terms()
    rate = float(knowing.law.numpy() @ (terms["concepts_prior"] + terms["concepts_diffusion"]))
    alpha, sigma = math.cos(math.pi * T0 / 2), math.sin(math.pi * T0 / 2)
    z = torch.linspace(-6, 6, 20001, dtype=torch.float64)
    density = torch.exp(-0.5 * ((z - alpha * knowing.places[:, None]) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    together = knowing.law @ density
    information = float((knowing.law[:, None] * density * (density / together).log().nan_to_num()).sum() * 12 / 20000)
    assert rate == pytest.approx(information, abs=0.04)


def test_a_wrong_belief_costs_its_divergence_from_the_truth():
    """The model's own law is the belief, so the bound of each text lies at its nats under that law."""
    belief = random_law(8)
    knowing = network(believed=belief)
    terms, error = terms_of(knowing)
    total = sum(terms.values())
    assert (total > -belief.log().numpy() - 4 * error).all()
    divergence = float((knowing.law * (knowing.law / belief).log()).sum())
    excess = float(knowing.law @ (torch.from_numpy(total) + knowing.law.log()))
    assert excess > 0.5 * divergence > 0.05


def test_a_reconstruction_alone_is_no_likelihood():
    """Without the rate the figure lies far below the entropy: Σ p over texts would exceed 1."""
    terms, _ = true_terms()
    distortion = sum(terms[name] for name in objective().parts["distortion"])
    assert float(np.exp(-distortion).sum()) > 1.5


def test_a_prior_that_has_learned_nothing_pays_the_stated_rate():
    class Silent(Knowing):
        def __call__(self, z, t):
            return torch.zeros_like(z)

    places = torch.randn(9, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    white = (places - places.mean()) / places.std(correction=0)  # mean square 1 over texts that are all alike
    silent = Silent(law=torch.full((9,), 1 / 9, dtype=torch.float64), places=white)
    terms, _ = terms_of(silent)
    assert float(terms["concepts_diffusion"].mean()) == pytest.approx(objective().trivial_rate, rel=0.04)
    assert objective().trivial_rate == pytest.approx(0.5 * math.log1p(1 / math.tan(math.pi * T0 / 2) ** 2))
    assert objective().channel.capacity == pytest.approx(objective().trivial_rate)


def test_training_sees_the_plain_squared_error_of_the_velocity_at_every_target():
    class Silent(Knowing):
        def __call__(self, z, t):
            return torch.zeros_like(z)

    places = torch.ones(9, dtype=torch.float64)
    silent = Silent(law=random_law(3), places=places)
    batch = full_batch(TEXTS.repeat(300, 1).numpy())
    loss = objective()(silent, batch, generator=keyed_generator(5, "test"))
    assert float(loss.nats.sum() / loss.weight.sum()) == pytest.approx(1.0, rel=0.05)
    assert objective().trivial_loss == pytest.approx({"linear filter": 1.0})


def test_skill_is_over_a_filter_that_knows_how_much_the_concepts_of_texts_differ():
    class Silent(Knowing):
        def __call__(self, z, t):
            return torch.zeros_like(z)  # a velocity of zero is the best filter of white vectors

    def skill(places):
        silent = Silent(law=torch.full((9,), 1 / 9, dtype=torch.float64), places=places)
        batch = full_batch(TEXTS.repeat(300, 1).numpy())
        loss = objective()(silent, batch, generator=keyed_generator(5, "test"))
        return objective().diagnostics(torch.nn.Module(), {name: float(v) for name, v in loss.terms.items()})

    differ = torch.linspace(-1, 1, 9, dtype=torch.float64)
    white = skill(differ / differ.std(correction=0))
    assert [white[f"skill_t{k}"] for k in range(5)] == pytest.approx([0.0] * 5, abs=0.15)
    assert skill(1.0 + 0.1 * differ)["worst_skill"] < -1.0  # nearly the same of every text: there is little to say


def test_a_micro_batch_of_few_rows_says_nothing_of_skill():
    """Its rows do not tell how much concepts vary."""
    batch = full_batch(TEXTS.numpy())
    loss = objective()(network(), batch, generator=keyed_generator(5, "test"))
    many = objective()(network(), full_batch(TEXTS.repeat(2, 1).numpy()), generator=keyed_generator(5, "test"))
    assert loss.terms.keys() == many.terms.keys()
    figures = [
        objective().diagnostics(torch.nn.Module(), {k: float(v) for k, v in x.terms.items()}) for x in (loss, many)
    ]
    assert figures[0] == {}
    assert "worst_skill" in figures[1]


def test_what_concepts_cost_who_knows_what_all_texts_share_stands_beside():
    batch = full_batch(TEXTS.numpy())
    places = torch.linspace(0.5, 1.5, 9, dtype=torch.float64)
    knowing = Knowing(law=torch.full((9,), 1 / 9, dtype=torch.float64), places=places)
    rate = objective().trivial_parts(knowing, [batch])["rate"]
    snr = 1 / math.tan(math.pi * T0 / 2) ** 2
    assert rate["linear filter"] == pytest.approx(objective().trivial_rate)
    assert rate["means and variances"] == pytest.approx(0.5 * math.log1p(float(places.var()) * snr), rel=1e-3)
    split = [full_batch(TEXTS[:4].numpy()), full_batch(TEXTS[4:].numpy())]
    assert objective().trivial_parts(knowing, split)["rate"] == pytest.approx(rate)
    assert objective().trivial_parts(knowing, [full_batch(TEXTS[:1].numpy())])["rate"].keys() == {"linear filter"}


def test_a_rows_nats_are_spread_over_its_targets_and_none_are_lost():
    batch = full_batch(TEXTS[:2].numpy())
    batch = replace(batch, targets=torch.tensor([[True, True], [True, False]]))
    assert per_target(torch.tensor([3.0, 5.0]), batch).tolist() == [[1.5, 1.5], [5.0, 0.0]]


@pytest.mark.parametrize(("walk", "steps"), [(ddpm, 40), (ddim, 40), (heun, 15)])
def test_concepts_and_then_texts_are_drawn_from_the_law(walk, steps):
    knowing, generator = network(), keyed_generator(7, "test")
    prompt = blank_prompt(1200, 2)
    told = imagine(knowing, objective(), prompt, walk=walk, times=time_grid(steps, end=T0), generator=generator)
    drawn = ancestral(told, time_grid(20), prompt=prompt, generator=generator).numpy()
    assert chi_squared(drawn, TEXTS.numpy(), knowing.law.numpy()) > 1e-4
    assert chi_squared(drawn, TEXTS.numpy(), random_law(8).numpy()) < 1e-4


def test_a_prompt_is_refused_in_one_line():
    from remask.errors import UserError

    fixed = torch.tensor([[True, False]])
    prompt = Prompt(ids=TEXTS[:1], fixed=fixed)
    with pytest.raises(UserError, match="takes no prompt"):
        imagine(network(), objective(), prompt, walk=ddpm, times=[1.0, T0], generator=keyed_generator(1))


def test_noise_between_the_parts_lies_within_the_process():
    with pytest.raises(ValueError, match=r"time: 1\.0"):
        LatentChannel(process=CosineNoise(), time=1.0, concepts=1, width=1)


def test_what_fills_a_response_up_makes_its_reconstruction_no_better():
    """A decoder that is sure of ends of text is right behind a response, whatever the length of rows."""

    class Ending(Spy):
        def __call__(self, z, t, **told):
            return super().__call__(z, t, **told) + 4.0 * (torch.arange(V) == 5)

    def judged(length):
        batch = rows(count=3, length=length, given=2, lengths=(5, 8, 8))
        batch = replace(batch, ids=batch.ids.clamp_max(4))  # no end of text in a response
        autoencoder = ConceptAutoencoder(
            bound=LikelihoodBound(process=PROCESS, integrand=masking_integrand, t_min=1e-3),
            channel=LatentChannel(process=CosineNoise(), time=T0, concepts=2, width=3),
            texts=AsTexts(length=length, eos_id=5),
        )
        found = autoencoder.assess(Ending(), batch, generator=keyed_generator(1, "test"), draws=400)
        assert found.weight.tolist() == [400 * 3, 400 * 6, 400 * 6]
        return float(found.nats.sum() / found.weight.sum())

    wrong = math.log(5 + math.exp(4.0))
    assert judged(8) == pytest.approx(wrong, rel=0.05)
    assert judged(24) == pytest.approx(wrong, rel=0.05)
