"""Traps of objectives of concepts: what is padding, what is counted, by what it is divided, and what is added.

Shape letters: B rows, L places, C concepts, D features.
"""

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch

from concept_readers import MASK, PROCESS, Spy, V, reader, rows
from remask.networks.concepts import Concepts
from remask.objectives import LikelihoodBound, concepts, masking_integrand
from remask.objectives.concepts import (
    TERMS,
    ConceptBound,
    ConceptContrastive,
    ConceptMasked,
    ConceptTSDAE,
    Diversity,
    both_sides,
    disjoint_views,
    fixed,
)
from remask.objectives.concepts.contrastive import matching_nats
from remask.objectives.concepts.diversity import between_inputs
from remask.randomness import keyed_generator

MASKED = ConceptMasked(process=PROCESS, rate=0.5)
TSDAE = ConceptTSDAE(process=PROCESS, share=0.6)
CONTRASTIVE = ConceptContrastive(process=PROCESS, views=disjoint_views, temperature=0.1)
BOUND = ConceptBound(bound=LikelihoodBound(process=PROCESS, integrand=masking_integrand, t_min=1e-2))
WITH_TERMS = {
    "bound": BOUND,
    "masked": MASKED,
    "deleted": TSDAE,
    "contrastive": CONTRASTIVE,
    "contrastive_alone": replace(CONTRASTIVE, reconstruction_weight=0.0),
}
"""Every objective that takes terms of diversity."""
WEIGHTS = dict(zip(TERMS, (0.01, 0.02, 0.03, 0.04), strict=True))
TWO_SIDES = rows(count=6, length=10, given=3, lengths=(10, 7, 10, 9, 6, 10))
"""Rows with given tokens, targets and padding."""


def noise(seed: int = 1):
    return keyed_generator(seed, "noise")


def minimised(loss) -> float:
    """What the training loop goes down: the mean over all that is counted."""
    return float(loss.nats.sum() / loss.weight.sum())


class Summing(Spy):
    """A reader whose concepts are sums over the real tokens that it is told, so that they can be checked by hand."""

    table = torch.randn(V, 3, 4, generator=torch.Generator().manual_seed(7))

    def __call__(self, z, t, *, source=None, source_real=None, **told):
        assert source is not None
        assert source_real is not None
        self.vectors = self.told(source, source_real)
        return super().__call__(z, t, source=source, source_real=source_real, **told)

    def told(self, ids, real):
        return (self.table[ids] * real[..., None, None]).sum(1)


# ── padding and given tokens ────────────────────────────────────────────────────────────────────────────────────────


def test_padding_is_no_token_to_an_encoder_that_reads_visible_tokens_alone() -> None:
    """Among ragged rows: what it reads is neither hidden nor padding, and what padding holds is all the same."""
    batch, spy = rows(count=40, given=1, lengths=(8, 5, 3, 1) * 10), Spy()
    MASKED(spy, batch, generator=noise())
    hidden = spy.last["positions"]
    assert torch.equal(spy.last["real"], (batch.segments > 0) & ~hidden)
    assert not (spy.last["real"] & (batch.segments == 0)).any()
    network = reader()
    first = MASKED(network, batch, generator=noise()).nats
    filled = torch.where(batch.segments > 0, batch.ids, 5 - batch.ids)
    second = MASKED(network, replace(batch, ids=filled), generator=noise()).nats
    torch.testing.assert_close(second, first)


@pytest.mark.parametrize("objective", WITH_TERMS.values(), ids=WITH_TERMS)
def test_each_target_counts_once_and_no_given_token_nor_padding_counts(objective) -> None:
    """As a weight of the mean, and as nats."""
    loss = objective(Summing(), TWO_SIDES, generator=noise())
    assert torch.equal(loss.weight, TWO_SIDES.targets.float())
    assert not loss.nats[~TWO_SIDES.targets].any()


def test_given_tokens_and_padding_make_no_mean_of_equal_logits_smaller() -> None:
    """Deletion asks for every target: exactly log(V − 1) of each, however much else stands in the rows."""
    assert minimised(TSDAE(Spy(), TWO_SIDES, generator=noise())) == pytest.approx(math.log(V - 1), rel=1e-6)


# ── by what it is divided ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_the_minimised_loss_of_equal_logits_is_the_logarithm_of_the_clean_ids_at_every_rate(rate) -> None:
    """In the mean over what is hidden of 16,000 targets, within four standard errors."""
    batch = rows(count=2000, length=12, given=2, lengths=(12, 8) * 1000)
    targets = int(batch.targets.sum())
    assert targets == 16_000
    loss = replace(MASKED, rate=rate)(Spy(), batch, generator=noise())
    error = math.sqrt((1 - rate) / (rate * targets))
    assert minimised(loss) / math.log(V - 1) == pytest.approx(1.0, abs=4 * error)
    hidden = loss.nats[loss.nats > 0]
    torch.testing.assert_close(hidden, torch.full_like(hidden, math.log(V - 1) / rate))


# ── terms of diversity ──────────────────────────────────────────────────────────────────────────────────────────────


def test_every_objective_that_takes_terms_of_diversity_is_looked_at_here() -> None:
    modules = [import_module(f"{concepts.__name__}.{found.name}") for found in iter_modules(concepts.__path__)]
    offered = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    taking = {each for each in offered if is_dataclass(each) and "diversity" in {part.name for part in fields(each)}}
    assert taking == {type(objective) for objective in WITH_TERMS.values()}


def first_heard(objective, spy: Summing, batch) -> torch.Tensor:
    """The vectors that the terms are of: those of what each row's encoder reads, of two views the first."""
    if isinstance(objective, ConceptContrastive):
        return spy.told(batch.ids, objective.views(batch, noise())[0])
    return spy.told(spy.last["source"], spy.last["real"])


@pytest.mark.parametrize("objective", WITH_TERMS.values(), ids=WITH_TERMS)
def test_the_minimised_loss_rises_by_exactly_what_the_named_terms_say(objective) -> None:
    """The same at every target and nowhere else; each term is on record under its name, with its weight."""
    spy, diverse = Summing(), replace(objective, diversity=Diversity(terms=dict(TERMS), weigh=fixed(WEIGHTS)))
    plain, loss = (each(spy, TWO_SIDES, generator=noise()) for each in (objective, diverse))
    vectors = first_heard(objective, spy, TWO_SIDES)
    varying = between_inputs(Concepts(vectors=vectors, real=torch.ones(vectors.shape[:2], dtype=torch.bool)))
    values = {name: float(term(varying)) for name, term in TERMS.items()}
    rise = sum(WEIGHTS[name] * value for name, value in values.items())
    assert 0.05 < rise < minimised(plain)
    assert minimised(loss) - minimised(plain) == pytest.approx(rise, rel=1e-4)
    torch.testing.assert_close(loss.nats - plain.nats, rise * TWO_SIDES.targets.float(), rtol=1e-4, atol=1e-6)
    tokens = float(loss.weight.sum())
    told = {name: float(value) / tokens for name, value in loss.terms.items()}
    assert {name: told[name] for name in TERMS} == pytest.approx(values, rel=1e-4)
    assert {name: told[f"{name}_weight"] for name in TERMS} == pytest.approx(WEIGHTS)
    assert told["diversity_terms"] == pytest.approx(rise, rel=1e-4)
    assert told["diversity_cap"] == pytest.approx(1.0)
    assert not set(TERMS) & set(plain.terms)


@pytest.mark.parametrize("objective", WITH_TERMS.values(), ids=WITH_TERMS)
def test_a_term_of_diversity_reaches_the_encoder_with_its_gradient(objective) -> None:
    """Concepts are heard as the weights made them: following a term moves what reads the text."""
    written = getattr(objective, "reconstruction_weight", 1.0)
    network = reader(decoder="denoising" if written else "none", layers=1 if written else 2)
    slopes = []
    for diversity in (Diversity(), Diversity(terms=dict(TERMS), weigh=fixed(WEIGHTS))):
        loss = replace(objective, diversity=diversity)(network, TWO_SIDES, generator=noise())
        (slope,) = torch.autograd.grad(loss.nats.sum() / loss.weight.sum(), [network.get_parameter("encoder.latents")])
        slopes.append(slope)
    assert float((slopes[1] - slopes[0]).abs().max()) > 1e-4


@pytest.mark.parametrize("weight", [0.1, 0.0])
def test_terms_of_diversity_see_the_first_view_of_each_text_and_never_the_second(weight) -> None:
    """Both views of a text mean the same, and are not to be pushed apart."""
    diversity = Diversity(terms=dict(TERMS), weigh=fixed(WEIGHTS))
    objective = replace(CONTRASTIVE, views=both_sides, reconstruction_weight=weight, diversity=diversity)

    def told(batch) -> dict[str, float]:
        loss = objective(Summing(), batch, generator=noise())
        return {name: float(loss.terms[name]) for name in (*TERMS, "matching_nats")}

    behind, before = TWO_SIDES.targets, ~TWO_SIDES.targets & (TWO_SIDES.segments > 0)
    base, others = told(TWO_SIDES), (TWO_SIDES.ids + 1 + TWO_SIDES.rows[:, None]) % MASK
    second, first = (
        told(replace(TWO_SIDES, ids=torch.where(side, others, TWO_SIDES.ids))) for side in (behind, before)
    )
    assert second["matching_nats"] != pytest.approx(base["matching_nats"], rel=1e-3)
    assert {name: second[name] for name in TERMS} == pytest.approx({name: base[name] for name in TERMS})
    assert all(first[name] != pytest.approx(base[name], rel=1e-3) for name in TERMS)


# ── either view ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Favouring(Spy):
    """Gives token 0 an extra logit, the first of two in rows that are first views, the second in second ones."""

    favours: tuple[float, float] = (0.0, 0.0)

    def __call__(self, z, t, *, positions, **told):
        half = torch.arange(len(z)) >= len(z) // 2
        extra = torch.where(half, self.favours[1], self.favours[0])[positions.nonzero(as_tuple=True)[0]]
        return super().__call__(z, t, positions=positions, **told) + extra[:, None] * (torch.arange(V) == 0)


def test_a_text_is_written_from_either_view_and_both_count_alike() -> None:
    """By hand: rows of token 0 alone, which a decoder is surer of behind one view than behind the other."""
    batch = replace(TWO_SIDES, ids=torch.zeros_like(TWO_SIDES.ids))
    vectors = torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(3))
    matching = float(matching_nats(vectors.mean(1), temperature=0.1).mean())

    def cost(extra: float) -> float:
        return math.log(math.exp(extra) + V - 2) - extra

    for favours in ((0.0, 3.0), (3.0, 0.0), (1.0, -2.0)):
        loss = CONTRASTIVE(Favouring(vectors=vectors, favours=favours), batch, generator=noise())
        mean = (cost(favours[0]) + cost(favours[1])) / 2
        told = float(loss.terms["reconstruction_nats_per_token"] / loss.weight.sum())
        assert told == pytest.approx(mean, rel=1e-5)
        assert minimised(loss) == pytest.approx(matching + 0.1 * mean, rel=1e-5)
