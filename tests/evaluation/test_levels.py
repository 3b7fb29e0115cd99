"""The loss by level of noise: its mean is the likelihood's diffusion term, and it tells what the mean hides."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

import concept_readers
from doubles import Constant, make_process
from remask.evaluation.levels import (
    LevelSums,
    bound_of,
    has_levels,
    level_measurements,
    level_warnings,
    row_levels,
    skill,
)
from remask.evaluation.likelihood import row_likelihoods
from remask.networks import block_causal
from remask.networks.mask_bias import MaskBias
from remask.objectives import (
    BlockDiffusion,
    LikelihoodBound,
    MaskedLanguageModel,
    Proofreading,
    ScoreEntropy,
    generic_integrand,
)
from remask.objectives.concepts.bound import ConceptBound
from remask.objectives.prompt_dropout import PromptDropout
from remask.processes import Masking, Uniform
from remask.randomness import keyed_generator
from remask.schedules import Cosine, Linear
from tiny import BOUND, MASK, NEXT_TOKEN, PROCESS, V, cut, pattern_rows, tiny_network

UNIGRAM = np.array([0.5, 1.0, 1.5, 2.0, 3.0, 4.0, math.inf])
OBJECTIVES = {
    "masking": BOUND,
    "curriculum": replace(BOUND, t_max=0.5),
    "cosine": replace(BOUND, process=Masking(schedule=Cosine(), vocab_size=V, mask_id=MASK)),
    "uniform noise": LikelihoodBound(
        process=Uniform(schedule=Linear(), vocab_size=V, mask_id=MASK), integrand=generic_integrand, t_min=1e-2
    ),
    "score entropy": ScoreEntropy(process=PROCESS, t_min=1e-3),
    "masked language model": MaskedLanguageModel(process=PROCESS),
    "blocks": BlockDiffusion(bound=BOUND, block_length=3),
    "dropped prompts": PromptDropout(objective=BOUND, share=0.5, mask_id=MASK),
}


@dataclass
class Model:
    network: torch.nn.Module
    objective: object
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def network_for(objective):
    network = tiny_network(seed=3, dropout=0.5)
    if isinstance(objective, BlockDiffusion):
        network.direction = block_causal(objective.block_length)
    return network


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_mean_over_levels_is_the_diffusion_term_of_the_likelihood_with_as_many_draws(name):
    model = Model(network_for(OBJECTIVES[name]), OBJECTIVES[name])
    batches = cut(pattern_rows(5, seed=2), 3)
    found = row_levels(model, batches, levels=2, draws=2, seed=7, unigram=UNIGRAM)
    expected = row_likelihoods(model, batches, draws=4, seed=7).terms["diffusion"]
    assert found.nats[""].shape == (5, 2)
    assert found.nats[""].mean(1).sum() == pytest.approx(expected, rel=1e-5)
    assert model.network.training


@pytest.mark.parametrize("name", OBJECTIVES)
def test_rows_that_are_seen_one_at_a_time_have_the_same_noise_at_every_level(name):
    model, batches = Model(network_for(OBJECTIVES[name]), OBJECTIVES[name]), cut(pattern_rows(5, seed=2), 3)
    asked = {"levels": 2, "draws": 2, "seed": 7, "unigram": UNIGRAM}
    together, apart = (row_levels(model, batches, **asked, at_once=most) for most in (32, 1))
    for predictor, nats in together.nats.items():
        np.testing.assert_allclose(apart.nats[predictor], nats, rtol=1e-4, atol=1e-4)


def test_levels_of_a_bound_given_concepts_are_of_the_targets_told_through_concepts_alone():
    """Their mean is the likelihood's diffusion term: given tokens never stand in the row that is denoised."""
    objective = ConceptBound(bound=replace(BOUND, process=concept_readers.PROCESS, t_max=0.5))
    model = Model(concept_readers.reader(), objective)
    batches = [concept_readers.rows(given=3, lengths=(8, 5, 6, 4))]
    sums = row_levels(model, batches, levels=4, draws=2, seed=1, unigram=UNIGRAM)
    whole = row_likelihoods(model, batches, draws=8, seed=1)
    mean = (sums.nats[""] * np.diff(sums.edges)).sum(1) / np.diff(sums.edges).sum()
    assert mean == pytest.approx(whole.rows["diffusion"], rel=1e-5)
    assert sums.nats["uniform"].min() >= 0


def test_levels_divide_the_times_of_the_bound():
    found = row_levels(
        Model(tiny_network(), BOUND), cut(pattern_rows(2, seed=2), 2), levels=5, draws=1, seed=1, unigram=UNIGRAM
    )
    np.testing.assert_allclose(found.edges, 1e-3 + 0.999 * np.arange(6) / 5)
    figures = level_measurements(found, protocol={"split": "validation"})
    assert [f.protocol["t"] for f in figures] == pytest.approx([0.1009, 0.3007, 0.5005, 0.7003, 0.9001])
    assert figures[-1].protocol["t_high"] == 1.0
    assert all(f.name == "nats_at_level" and f.n == 2 and f.protocol["split"] == "validation" for f in figures)


@pytest.mark.parametrize("kind", ["masking", "uniform"])
def test_trivial_predictors_get_what_a_model_that_predicts_as_they_do_gets(kind):
    process = make_process(kind, "linear")
    bound = LikelihoodBound(process=process, integrand=generic_integrand, t_min=1e-2)
    rows = torch.tensor([0, 2, 3])[torch.randint(3, (64, 8), generator=keyed_generator(1))]
    network = Wrapped(Constant(process))
    unigram = np.array([0.7, math.inf, 1.1, 1.9])
    found = row_levels(Model(network, bound), cut(rows, 64), levels=3, draws=2, seed=1, unigram=unigram)
    np.testing.assert_allclose(found.nats[""], found.nats["uniform"], rtol=1e-4, atol=1e-4)  # float32 here
    assert (found.nats["unigram"] != found.nats["uniform"]).any()


def test_under_linear_masking_every_level_of_the_uniform_predictor_is_log_v_in_the_mean():
    rows = torch.randint(6, (400, 12), generator=keyed_generator(1))
    found = row_levels(Model(tiny_network(), BOUND), cut(rows, 400), levels=3, draws=1, seed=1, unigram=UNIGRAM)
    means = found.nats["uniform"].mean(0) / 12 / 0.999
    errors = found.nats["uniform"].std(0, ddof=1) / 20 / 12
    assert (abs(means - math.log(6)) < 4.5 * errors).all()


class Wrapped(torch.nn.Module):
    def __init__(self, double) -> None:
        super().__init__()
        self.double = double

    def forward(self, z, t, *, segments, positions):
        return self.double(z, t, segments=segments, positions=positions)


def sums(*levels):
    rows = 4
    values = {"": levels, "uniform": [3.5] * len(levels), "unigram": [3.0] * len(levels)}
    return LevelSums(
        edges=np.linspace(0, 1, len(levels) + 1),
        nats={name: np.outer(np.full(rows, 10.0), numbers) for name, numbers in values.items()},
        tokens=np.full(rows, 10.0),
    )


def test_a_level_that_is_worse_than_trivial_is_named_though_the_mean_is_good():
    figures = level_measurements(sums(0.5, 1.0, 3.2), protocol={})
    assert np.mean([f.value for f in figures]) < 3.0
    assert [skill(f) for f in figures] == pytest.approx([1 - 0.5 / 3, 1 - 1 / 3, 1 - 3.2 / 3])
    (warning,) = level_warnings(figures)
    assert "t = 0.666667 to 1:" in warning
    assert "3.200 nats a token against 3.000" in warning
    assert level_warnings(figures[:2]) == []
    assert len(level_warnings(level_measurements(sums(math.nan), protocol={}))) == 1


def test_an_autoregressive_model_has_no_levels():
    assert not has_levels(NEXT_TOKEN)
    assert all(has_levels(objective) for objective in OBJECTIVES.values())
    with pytest.raises(ValueError, match="NextToken has no levels"):
        bound_of(NEXT_TOKEN)


def test_proofreading_is_judged_by_the_bound_of_its_words():
    proofreading = Proofreading(
        mask_id=MASK,
        vocab_size=V,
        schedule=Linear(),
        t_min=1e-3,
        replaced_share=0.1,
        proofreading_warmup_iters=0,
        penalty_mask_correct=0.0,
        masking_warmup_iters=0,
        target_mask_prob=0.1,
    )
    assert bound_of(proofreading) == BOUND
    model = Model(MaskBias(tiny_network(), MASK), proofreading)
    batches = cut(pattern_rows(3, seed=2), 3)
    found = row_levels(model, batches, levels=2, draws=1, seed=7, unigram=UNIGRAM)
    assert found.nats[""].mean(1).sum() == pytest.approx(
        row_likelihoods(model, batches, draws=2, seed=7).terms["diffusion"], rel=1e-5
    )
