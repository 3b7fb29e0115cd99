"""Terms that keep concepts apart see what varies between inputs alone.

Shape letters: B rows, C concepts, D features.
"""

import math
from itertools import pairwise

import pytest
import torch

from concept_readers import Spy, reader
from remask.networks.concepts import Concepts
from remask.networks.term_weights import LEAST, MOST, TermWeights
from remask.objectives.base import Loss
from remask.objectives.concepts import NOTHING, TERMS, Diversity, fixed, learned
from remask.objectives.concepts.diversity import between_inputs

B, C, D = 64, 4, 16
WORST = {"orthogonality": 1.0, "uniformity": 4 * B / (B - 1), "variance_covariance": 0.99, "spread": 2.66}
"""What a term gives where no slot varies."""


def concepts(vectors) -> Concepts:
    return Concepts(vectors=vectors, real=torch.ones(vectors.shape[:2], dtype=torch.bool))


def normal(*, seed: int = 0):
    return torch.randn(B, C, D, generator=torch.Generator().manual_seed(seed))


def values(vectors) -> dict[str, float]:
    varying = between_inputs(concepts(vectors))
    return {name: float(term(varying)) for name, term in TERMS.items()}


ORTHOGONAL = math.sqrt(D) * torch.eye(D)[:C].expand(B, C, D)
COLLAPSED = torch.ones(B, C, D)


@pytest.mark.parametrize("vectors", [ORTHOGONAL, COLLAPSED, 0 * COLLAPSED], ids=["orthogonal", "collapsed", "zero"])
def test_slots_that_say_the_same_of_every_text_score_worst_on_every_term(vectors) -> None:
    """However orthogonal they are to each other: within 1 % of the worst, and far from what informative slots get."""
    found, good = values(vectors), values(normal())
    for name, worst in WORST.items():
        assert found[name] == pytest.approx(worst, rel=0.01)
        assert good[name] < 0.7 * found[name], name


def test_a_constant_added_to_every_text_makes_no_score_better() -> None:
    """A large common offset leaves varying slots near where they were, and far from the worst."""
    shifted, plain = values(normal() + 2 * ORTHOGONAL), values(normal())
    for name, worst in WORST.items():
        assert 0.8 * plain[name] < shifted[name] < 0.7 * worst, name


@pytest.mark.parametrize("rank", [8, 32])
def test_vectors_of_few_directions_in_many_features_score_better_than_such_as_say_nothing(rank) -> None:
    """And by features the better the more depends on the text, so that no gradient leads to saying nothing."""
    draw = torch.Generator().manual_seed(3)
    said = torch.randn(B, C, rank, generator=draw) @ torch.randn(rank, 192, generator=draw) / math.sqrt(rank)
    same = torch.randn(1, C, 192, generator=draw)
    by_share = [values(math.sqrt(share) * said + math.sqrt(1 - share) * same) for share in (0.0, 0.2, 0.5, 1.0)]
    assert all(by_share[-1][name] < by_share[0][name] for name in WORST)
    assert all(more["variance_covariance"] < less["variance_covariance"] for less, more in pairwise(by_share))


def test_slots_that_all_say_the_same_are_worst_in_orthogonality() -> None:
    """They vary, together."""
    assert values(normal()[:, :1].expand(B, C, D))["orthogonality"] == pytest.approx(1.0, rel=0.03)


def test_orthogonality_of_random_directions_is_the_expected_squared_cosine() -> None:
    """E cos² = 1/D, and the diagonal leaves next to nothing."""
    assert values(normal())["orthogonality"] == pytest.approx(1 / D, rel=0.15)


def test_uniformity_of_a_regular_simplex_is_zero() -> None:
    """The configuration that Jensen's bound is reached by, but for what counts as varying."""
    simplex = torch.eye(B)[:, None]
    assert float(TERMS["uniformity"](between_inputs(concepts(simplex)))) == pytest.approx(0.0, abs=0.08)


def test_no_term_is_ever_negative() -> None:
    """Random, scaled, nearly constant, few rows, one row."""
    for seed in range(5):
        for scale in (1e-4, 1.0, 1e3):
            for rows in (1, 2, 3, B):
                found = values(scale * normal(seed=seed)[:rows] + (1.0 if seed % 2 else 0.0))
                assert all(value >= -1e-5 and math.isfinite(value) for value in found.values()), found


def test_rows_without_a_concept_are_left_out() -> None:
    """Whatever their vectors hold."""
    vectors = normal()
    real = torch.ones(B, C, dtype=torch.bool)
    real[B // 2 :] = False
    half = between_inputs(Concepts(vectors=vectors, real=real))
    torch.testing.assert_close(half.parts, between_inputs(concepts(vectors[: B // 2])).parts)


@pytest.mark.parametrize("name", list(TERMS))
def test_following_a_term_wakes_slots_that_hardly_vary(name) -> None:
    """A few steps down its gradient from nearly constant slots raise what varies between texts."""
    vectors = (ORTHOGONAL + 1e-2 * normal()).requires_grad_()
    before = float(between_inputs(concepts(vectors)).parts.detach().square().mean())
    for _ in range(20):
        (slope,) = torch.autograd.grad(TERMS[name](between_inputs(concepts(vectors))), vectors)
        vectors = (vectors - 0.02 * slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-12)).detach().requires_grad_()
    assert float(between_inputs(concepts(vectors)).parts.detach().square().mean()) > 2 * before


def loss_of(task: float) -> Loss:
    """A task's loss of 6 targets in 2 rows of 4."""
    weight = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 0]])
    return Loss(task * weight, weight)


def test_weighted_terms_are_added_to_the_mean_over_targets() -> None:
    """And recorded, each with its weight."""
    diversity = Diversity(terms=dict(TERMS), weigh=fixed(dict.fromkeys(TERMS, 0.01)))
    added = diversity.added(loss_of(5.0), concepts(normal()), Spy())
    expected = 5.0 + 0.01 * sum(values(normal()).values())
    assert float(added.nats.sum() / added.weight.sum()) == pytest.approx(expected, rel=1e-5)
    assert not added.nats[:, 3].any()
    told = diversity.diagnostics(reader(), {name: float(value) / 6 for name, value in added.terms.items()})
    assert {name: told[name] for name in TERMS} == pytest.approx(values(normal()))
    assert (told["task_nats"], told["diversity_cap"], told["spread_weight"]) == pytest.approx((5.0, 1.0, 0.01))


def test_terms_never_outweigh_the_share_of_the_task_that_they_may_have() -> None:
    """A thousandfold weight adds half of the task's loss and no more."""
    diversity = Diversity(terms=dict(TERMS), weigh=fixed(dict.fromkeys(TERMS, 1000.0)), cap=0.5)
    added = diversity.added(loss_of(2.0), concepts(normal()), Spy())
    assert float(added.nats.sum() / added.weight.sum()) == pytest.approx(3.0, rel=1e-5)
    assert 0 < float(added.terms["diversity_cap"]) / 6 < 1e-3


def test_learned_weights_are_drawn_to_one_over_their_term_and_leave_the_loss_its_value() -> None:
    """Kendall and Gal's weights: no pull at w = 1/d, up from below, down from above."""
    d = values(ORTHOGONAL)["uniformity"]
    for weight, sign in ((0.5 / d, -1.0), (1 / d, 0.0), (0.7, 1.0)):
        network = reader()
        network.add_module("term_weights", TermWeights({"uniformity": weight}))
        diversity = Diversity(terms={"uniformity": TERMS["uniformity"]}, weigh=learned)
        added = diversity.added(loss_of(4.0), concepts(ORTHOGONAL), network)
        mean = added.nats.sum() / added.weight.sum()
        assert mean.item() == pytest.approx(4.0 + weight * d, rel=1e-3)
        mean.backward()
        pull = -network.term_weights.logits.grad  # of s; a larger s is a smaller weight
        assert torch.equal(pull.abs().gt(1e-3), torch.tensor([sign != 0.0]))
        assert pull.item() * sign >= -1e-6


def test_learned_weights_stay_within_bounds() -> None:
    """They neither fall to nothing nor drown the task, wherever their parameter goes."""
    weights = TermWeights({"spread": 1e-9, "uniformity": 50.0})
    for logit in (-100.0, 0.0, 100.0):
        torch.nn.init.constant_(weights.logits, logit)
        assert all(0.99 * LEAST < math.exp(-s.item()) < 1.01 * MOST for s in weights.log_variances().values())


def test_no_term_costs_and_changes_nothing() -> None:
    """The loss is handed on as it is."""
    loss = loss_of(3.0)
    assert NOTHING.added(loss, concepts(normal()), Spy()) is loss
    assert NOTHING.diagnostics(reader(), {}) == {}


def test_a_cap_beyond_the_task_itself_is_refused() -> None:
    """Side terms may never outweigh the task."""
    for cap in (0.0, 1.5):
        with pytest.raises(ValueError, match="cap"):
            Diversity(cap=cap)
