"""Objectives of concepts without a likelihood: masking, deletion and contrast.

Shape letters: B rows, L places, C concepts, D features.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from concept_readers import MASK, PROCESS, Spy, V, reader, rows
from remask.config.build import build_model
from remask.config.load import load_recipe
from remask.config.words import own_figure_of
from remask.data.batch import Batch
from remask.evaluation.assessment import assessed
from remask.health.evidence import OWN_FIGURES
from remask.networks.concepts import Concepts
from remask.objectives.base import Assessed
from remask.objectives.concepts import (
    ConceptContrastive,
    ConceptMasked,
    ConceptTSDAE,
    both_sides,
    contrastive,
    deleted,
    disjoint_views,
    dropped_views,
    masked,
    masks_too,
    thinned_sides,
)
from remask.objectives.concepts.common_words import TEMPERATURES
from remask.objectives.concepts.contrastive import doubled, heard_alone, matching_nats, pooled
from remask.randomness import keyed_generator
from remask.recipes import recipe_names
from remask.tokenizers import CharacterTokenizer

MASKED = ConceptMasked(process=PROCESS, rate=0.5)
TSDAE = ConceptTSDAE(process=PROCESS, share=0.6)
CONTRASTIVE = ConceptContrastive(process=PROCESS, views=disjoint_views, temperature=0.1)
OBJECTIVES = (MASKED, TSDAE, CONTRASTIVE)


def noise(seed: int = 1):
    return keyed_generator(seed, "noise")


def named(objective) -> str:
    return type(objective).__name__


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_it_has_a_figure_of_its_own_and_refuses_a_likelihood(objective) -> None:
    """No name that could be taken for one."""
    assert isinstance(objective, Assessed)
    assert objective.quantity in OWN_FIGURES
    assert objective.quantity not in ("nats_per_token", "bits_per_byte")
    with pytest.raises(ValueError, match="no likelihood"):
        objective.likelihood_terms(Spy(), rows(), generator=noise(), draws=1)


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("concept-")])
def test_recipes_know_which_figure_their_objective_is_judged_by(name) -> None:
    """What commands refuse before torch is imported is what the objective says."""
    pairs = ["data.source=pairs.jsonl"]
    left_open = {
        "concept-prior": ["network.codec=other"],
        "concept-sentences": pairs,
        "concept-stretches": pairs,
        "concept-context": ["data.source=text.txt"],
        "concept-company": ["data.source=text.txt"],
    }.get(name, [])
    recipe = load_recipe(name, ["tokenizer.kind=byte", "training.precision=float32", *left_open])
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"length": 8})})
    if recipe.network.kind != "concept":
        assert own_figure_of(recipe) is None
        return
    small = {"width": 24, "heads": 2, "layers": 2, "decoder_layers": 1, "concepts": 2}
    recipe = recipe.model_copy(update={"network": recipe.network.model_copy(update=small)})
    model = build_model(recipe, CharacterTokenizer("abcde"), device=torch.device("cpu"))
    objective = assessed(model.objective)
    assert own_figure_of(recipe) == (None if objective is None else objective.quantity)


@pytest.mark.parametrize("objective", [MASKED, TSDAE], ids=named)
def test_equal_logits_cost_the_logarithm_of_the_clean_ids(objective) -> None:
    """Exactly, whatever is hidden; padding and given tokens are not counted."""
    batch = rows(given=2, lengths=(8, 5, 8, 3))
    found = objective.assess(Spy(), batch, generator=noise(), draws=3)
    assert float(found.nats.sum() / found.weight.sum()) == pytest.approx(math.log(V - 1), rel=1e-5)
    assert (found.weight <= 3 * batch.targets.sum(1)).all()


def test_masking_hides_tokens_from_the_encoder_and_asks_for_no_others() -> None:
    """Hidden places are no source; whatever stood there, encoder and decoder are told the same."""
    batch, spy = rows(count=40, given=1), Spy()
    MASKED(spy, batch, generator=noise())
    first = spy.last
    hidden = first["positions"]
    assert torch.equal(first["z"] == MASK, hidden)
    assert not (first["real"] & hidden).any()
    assert torch.equal(first["real"] | hidden, batch.segments > 0)
    other = replace(batch, ids=torch.where(hidden, 5 - batch.ids, batch.ids))
    MASKED(spy, other, generator=noise())
    assert torch.equal(spy.last["z"], first["z"])
    assert torch.equal(spy.last["source"][spy.last["real"]], first["source"][first["real"]])
    assert 0.4 < float(hidden[:, 1:].float().mean()) < 0.6


def test_an_encoder_that_meets_masks_is_told_where_they_are_and_not_what_they_hide() -> None:
    batch, spy = rows(count=40, given=1, lengths=(8, 5) * 20), Spy()
    objective = replace(MASKED, source=masks_too)
    objective(spy, batch, generator=noise())
    first = spy.last
    hidden = first["positions"]
    assert torch.equal(first["real"], batch.segments > 0)
    assert (first["source"][hidden] == MASK).all()
    other = replace(batch, ids=torch.where(hidden, 5 - batch.ids, batch.ids))
    objective(spy, other, generator=noise())
    assert torch.equal(spy.last["source"], first["source"])
    assert torch.equal(spy.last["z"], first["z"])


def test_deletion_closes_up_what_the_encoder_reads_and_masks_every_target() -> None:
    """The encoder's row is shorter, and the decoder starts from nothing at t = 1."""
    batch, spy = rows(count=3, length=12), Spy()
    TSDAE(spy, batch, generator=noise())
    told = spy.last
    assert told["source"].shape[1] < 12
    assert (told["z"] == MASK).all()
    assert told["t"].tolist() == [1.0] * 3
    assert torch.equal(told["positions"], batch.targets)
    assert all(real[: int(real.sum())].all() for real in told["real"])
    for source, ids in zip(spy.sources(), batch.ids.tolist(), strict=True):
        walk = iter(ids)
        assert all(token in walk for token in source), "what is left stands in its order"


def test_two_views_are_read_in_one_pass_and_share_no_token() -> None:
    """First views before second ones, each closed up."""
    batch, spy = rows(count=5, length=10), Spy(vectors=torch.randn(10, 2, 3))
    CONTRASTIVE(spy, batch, generator=noise())
    sources = spy.sources()
    for first, second, ids in zip(sources[:5], sources[5:], batch.ids.tolist(), strict=True):
        assert sorted(first + second) == sorted(ids)
    assert len(spy.calls) == 1
    drawn = dropped_views(0.6)(batch, noise())
    assert not torch.equal(*drawn)


def test_the_sides_of_a_pair_are_views_of_their_own() -> None:
    """What is given against the targets, padding in neither; the first side's copy writes the targets too."""
    batch, spy = rows(count=4, length=10), Spy(vectors=torch.randn(8, 2, 3))
    behind = torch.arange(10) >= 4
    batch = replace(batch, targets=batch.targets & behind)
    replace(CONTRASTIVE, views=both_sides)(spy, batch, generator=noise())
    sources = spy.sources()
    real = batch.segments > 0
    assert sources[:4] == [ids[there & ~behind].tolist() for ids, there in zip(batch.ids, real, strict=True)]
    assert sources[4:] == [ids[there & behind].tolist() for ids, there in zip(batch.ids, real, strict=True)]


def test_sides_are_thinned_each_by_itself_and_none_is_left_empty() -> None:
    """About the share is deleted of either side, and nothing of one stands in the other."""
    batch = rows(count=400, length=12)
    behind = torch.arange(12) >= 2
    batch = replace(batch, targets=batch.targets & behind)
    first, second = thinned_sides(0.7)(batch, noise())
    assert not (first & behind).any()
    assert not (second & ~behind).any()
    assert first.any(1).all()
    assert second.any(1).all()
    assert float(second.sum() / (400 * 10)) == pytest.approx(0.3, abs=0.03)


def test_texts_that_nothing_tells_apart_cost_the_logarithm_of_their_number() -> None:
    """Exactly, and it is the trivial value that stands beside the figure."""
    batch, spy = rows(count=6), Spy(vectors=torch.ones(12, 2, 3))
    found = CONTRASTIVE.assess(spy, batch, generator=noise(), draws=2)
    assert float(found.nats.sum() / found.weight.sum()) == pytest.approx(math.log(6), rel=1e-6)
    assert CONTRASTIVE.trivial([batch], {})["equal guess"] == pytest.approx(math.log(6))
    mixed = CONTRASTIVE.trivial([batch, rows(count=2)], {})["equal guess"]
    assert mixed == pytest.approx((6 * math.log(6) + 2 * math.log(2)) / 8)


def test_words_in_common_tell_texts_apart_as_well_as_they_can() -> None:
    """Nothing where views share no token, all where no two texts do; a token of few texts says more."""
    ids = torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 10, 11]])
    batch = replace(rows(count=3, length=4), ids=ids)

    def nats(first: list[list[int]], second: list[list[int]]) -> float:
        left = tuple(torch.tensor(each, dtype=torch.bool) for each in (first, second))
        objective = replace(CONTRASTIVE, views=lambda *_: left)
        return objective.trivial([batch], {})["words in common"]

    halves, whole = ([[1, 1, 0, 0]] * 3, [[0, 0, 1, 1]] * 3), [[1, 1, 1, 1]] * 3
    assert nats(*halves) == pytest.approx(math.log(3))
    assert nats(whole, whole) == pytest.approx(0.0, abs=1e-6)
    batch = replace(batch, ids=torch.tensor([[0, 1, 0, 0], [0, 1, 0, 2], [0, 3, 0, 3]]))
    log2, log25, log4 = math.log(2), math.log(2.5), math.log(4)
    first, second = (
        ([log2, log25, 0, 0], [log2, log25, 0, 0], [log2, 0, 0, log4]),
        (
            [log2, 0, 0, 0],
            [log2, 0, log4, 0],
            [log2, 0, 0, log4],
        ),
    )
    bags = torch.tensor([*first, *second], dtype=torch.float32)
    expected = min(float(matching_nats(bags, temperature=tau).mean()) for tau in TEMPERATURES)
    assert nats([[1, 1, 0, 0]] * 3, [[0, 0, 1, 1]] * 3) == pytest.approx(expected, rel=1e-5)


def test_matching_is_cross_entropy_of_cosines_both_ways() -> None:
    """Written out by hand for two texts."""
    views = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [0.0, 5.0]])
    first, second = [(1.0, 0.0), (0.0, 1.0)], [(0.5**0.5, 0.5**0.5), (0.0, 1.0)]
    scores = [[(a[0] * b[0] + a[1] * b[1]) / 0.1 for b in second] for a in first]

    def cost(own: float, *others: float) -> float:
        return math.log(sum(math.exp(score - own) for score in (own, *others)))

    expected = [
        0.5 * (cost(scores[0][0], scores[0][1]) + cost(scores[0][0], scores[1][0])),
        0.5 * (cost(scores[1][1], scores[1][0]) + cost(scores[1][1], scores[0][1])),
    ]
    assert matching_nats(views, temperature=0.1).tolist() == pytest.approx(expected, rel=1e-5)


def test_pooling_passes_over_concepts_that_are_not_real() -> None:
    """A text without one is the zero vector, not nan."""
    vectors = torch.tensor([[[1.0, 2.0], [9.0, 9.0]], [[7.0, 7.0], [7.0, 7.0]]])
    real = torch.tensor([[True, False], [False, False]])
    assert pooled(Concepts(vectors=vectors, real=real)).tolist() == [[1.0, 2.0], [0.0, 0.0]]


def test_the_contrastive_loss_is_matching_and_weighted_reconstruction() -> None:
    """In the mean over targets; both are recorded."""
    batch = rows(count=6, lengths=(8, 8, 8, 5, 5, 5))
    loss = CONTRASTIVE(Spy(vectors=torch.ones(12, 2, 3)), batch, generator=noise())
    tokens = float(loss.weight.sum())
    assert float(loss.nats.sum()) / tokens == pytest.approx(math.log(6) + 0.1 * math.log(V - 1), rel=1e-5)
    told = CONTRASTIVE.diagnostics(reader(), {name: float(value) / tokens for name, value in loss.terms.items()})
    assert told["matching_nats"] == pytest.approx(told["matching_nats_trivial"], rel=1e-5)
    assert told["reconstruction_nats_per_token"] == pytest.approx(math.log(V - 1), rel=1e-5)


def padded(batch: Batch, ids: Sequence[int]) -> Batch:
    """The same rows with places of padding behind them that hold these ids."""
    behind = torch.tensor(ids).expand(len(batch), -1)
    wide = {"ids": torch.cat([batch.ids, behind], 1)}
    for name in ("segments", "targets", "byte_lengths"):
        wide[name] = functional.pad(getattr(batch, name), (0, len(ids)))
    return replace(batch, **wide)


def draw_the_same_for_rows_of_every_length(patch: pytest.MonkeyPatch) -> None:
    """A place keeps its draw when its row grows, which an ordinary draw for longer rows would change."""

    def drawn(generator: torch.Generator, batch: Batch, *shape: int) -> torch.Tensor:
        longest = torch.rand(batch.global_size, *shape[:-1], 40, generator=generator, dtype=torch.float64)
        return longest[batch.rows][..., : shape[-1]]

    for module in (masked, deleted, contrastive):
        patch.setattr(module, "batch_uniform", drawn)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
@pytest.mark.parametrize("decoder", ["denoising", "weighted"])
def test_every_part_of_a_network_is_trained_and_padding_changes_nothing(objective, decoder, monkeypatch) -> None:
    """Gradients reach encoder and decoder; two more places of padding leave figures alone."""
    draw_the_same_for_rows_of_every_length(monkeypatch)
    network, batch = reader(decoder=decoder), rows(lengths=(8, 8, 6, 6))
    loss = objective(network, batch, generator=noise())
    (loss.nats.sum() / loss.weight.sum()).backward()
    slopes = {name: weight.grad for name, weight in network.named_parameters()}
    assert [name for name, slope in slopes.items() if slope is None or float(slope.abs().max()) < 1e-6] == []
    rebuilt = objective.rebuild(network, batch, generator=noise())
    assert not (rebuilt[batch.segments > 0] == MASK).any()
    assert torch.equal(rebuilt[batch.segments == 0], batch.ids[batch.segments == 0])
    found = objective.assess(network, batch, generator=noise(), draws=2)
    for ids in ((0, 5), (3, 1), (MASK, MASK)):
        wide = padded(replace(batch, ids=torch.where(batch.segments > 0, batch.ids, ids[0])), ids)
        other = objective(network, wide, generator=noise())
        torch.testing.assert_close(other.nats[:, :8], loss.nats, atol=1e-5, rtol=1e-5)
        assert not other.nats[:, 8:].any()
        torch.testing.assert_close(other.weight, functional.pad(loss.weight, (0, 2)))
        assert torch.equal(objective.rebuild(network, wide, generator=noise())[wide.targets], rebuilt[batch.targets])
        figure = objective.assess(network, wide, generator=noise(), draws=2)
        torch.testing.assert_close(figure.nats, found.nats, atol=1e-5, rtol=1e-5)
        assert torch.equal(figure.weight, found.weight)


def test_at_no_weight_nothing_is_written_and_no_part_is_left_untrained() -> None:
    """The network has no decoder and no vocabulary projection; the loss is matching alone, the same as with one."""
    network, batch = reader(decoder="none", layers=2), rows(lengths=(8, 8, 6, 6))
    assert not any(name.startswith(("decoder", "head")) for name, _ in network.named_parameters())
    alone = replace(CONTRASTIVE, reconstruction_weight=0.0)
    loss = alone(network, batch, generator=noise())
    (loss.nats.sum() / loss.weight.sum()).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []
    assert alone.rebuild(network, batch, generator=noise()) is None
    assert set(loss.terms) == {"matching_nats", "matching_nats_trivial", "contrastive_steps"}
    with torch.no_grad():
        found = alone.assess(network, batch, generator=noise(), draws=1)
        assert float(found.nats.mean()) == pytest.approx(float(loss.nats.sum() / loss.weight.sum()), rel=1e-5)


@pytest.mark.parametrize("encoder", ["perceiver", "tokens", "stretches"])
def test_texts_read_in_groups_of_one_length_have_the_concepts_of_texts_read_alone(encoder) -> None:
    """In their order, whatever stands beside them, and with as many slots as they have."""
    network = reader(decoder="none", encoder=encoder)
    batch = rows(count=70, lengths=tuple(1 + k % 8 for k in range(70)))
    found = heard_alone(network, batch.ids, left=batch.segments > 0, mask_id=MASK)
    for k in (0, 7, 33, 69):
        alone = network.encode(batch.ids[k : k + 1, : 1 + k % 8], real=torch.ones(1, 1 + k % 8, dtype=torch.bool))
        slots = alone.real.shape[1]
        torch.testing.assert_close(found.vectors[k, :slots], alone.vectors[0], atol=1e-6, rtol=1e-5)
        assert torch.equal(found.real[k, :slots], alone.real[0])
        assert not found.real[k, slots:].any()


def test_numbers_out_of_range_are_refused() -> None:
    """Each with its name."""
    for build, key in (
        (lambda: replace(MASKED, rate=1.0), "rate"),
        (lambda: replace(TSDAE, share=0.0), "share"),
        (lambda: replace(CONTRASTIVE, temperature=0.0), "temperature"),
        (lambda: replace(CONTRASTIVE, reconstruction_weight=-1.0), "reconstruction_weight"),
    ):
        with pytest.raises(ValueError, match=key):
            build()


def test_doubled_rows_keep_their_places_in_the_global_batch() -> None:
    """The same rows twice over."""
    batch = rows(count=2)
    twice = doubled(batch)
    assert (twice.rows.tolist(), twice.global_size, len(twice)) == ([0, 1, 0, 1], 2, 4)
