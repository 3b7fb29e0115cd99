"""What concepts carry: geometry against its definition, and gaps in nats of a model whose posterior is known."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from doubles import full_batch
from remask.config.build.concepts import build_concept_network
from remask.config.schema import ConceptSpec
from remask.data.batch import Batch
from remask.evaluation.concept_gaps import (
    NONE,
    OWN,
    SHUFFLED,
    ConceptSums,
    concept_figures,
    gap_measurements,
    gap_sentences,
    keeping,
    kept_measurements,
    lacking,
    ladder,
    own,
    read_tokens,
    recovered,
    row_nats,
    row_vectors,
    shuffled,
    slot_measurements,
    spread_slots,
)
from remask.evaluation.concepts import geometry, geometry_measurements, geometry_warnings
from remask.evaluation.likelihood import row_likelihoods
from remask.health import verdict
from remask.networks.concepts import Concepts
from remask.objectives import LikelihoodBound, masking_integrand
from remask.objectives.concepts import ConceptBound
from remask.processes import Masking
from remask.schedules import Linear
from remask.tokenizers import ByteTokenizer

R, C, D = 12, 4, 6


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(vectors):
    """Effective rank and participation ratio of what varies, from the singular values of the whole matrix."""
    x = np.asarray(vectors, dtype=np.float64).reshape(len(vectors), -1)
    sigma = np.linalg.svd(x - x.mean(0), compute_uv=False)
    sigma = sigma[sigma**2 > 1e-9 * (x**2).sum()]
    p = sigma / sigma.sum()
    return math.exp(-(p * np.log(p)).sum()), (sigma**2).sum() ** 2 / (sigma**4).sum()


ORTHOGONAL = torch.eye(C, D, dtype=torch.float64).expand(R, C, D)


@pytest.mark.parametrize("vectors", [normal(R, C, D), normal(40, 2, 3), ORTHOGONAL + normal(R, C, D)])
def test_ranks_are_those_of_the_singular_values(vectors):
    found = geometry(vectors)
    rank, ratio = by_definition(vectors)
    pooled_rank, pooled_ratio = by_definition(vectors.mean(1))
    assert found.effective_rank == pytest.approx(rank, rel=1e-9)
    assert found.participation_ratio == pytest.approx(ratio, rel=1e-9)
    assert found.effective_rank_pooled == pytest.approx(pooled_rank, rel=1e-9)
    assert found.participation_ratio_pooled == pytest.approx(pooled_ratio, rel=1e-9)


def test_known_singular_values_have_a_known_rank():
    """Directions of standard deviation 3 and 1: p = (3/4, 1/4)."""
    left = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    vectors = torch.zeros(4, 1, 3, dtype=torch.float64)
    vectors[:, 0, :2] = left * torch.tensor([3.0, 1.0])
    found = geometry(vectors + 7)
    assert found.effective_rank == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
    assert found.participation_ratio == pytest.approx(100 / 82)
    assert found.slot_cosine_mean is None


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_constant_orthogonal_slots_score_as_badly_as_can_be(noise):
    """The rank of one text's slots, as it is often reported, calls them perfect."""
    one_text = torch.linalg.svdvals(ORTHOGONAL[0])
    p = one_text / one_text.sum()
    assert float((-(p * p.log()).sum()).exp()) == pytest.approx(C)
    found = geometry(ORTHOGONAL + noise * normal(R, C, D))
    assert (found.effective_rank, found.participation_ratio, found.effective_rank_pooled) == (0, 0, 0)
    assert found.input_share < 1e-6
    assert (found.slot_cosine_mean, found.slot_cosine_max) == (1, 1)


def test_a_collapsed_encoder_has_rank_one():
    found = geometry(normal(R, 1, 1) * normal(1, C, D, seed=2) + 1)
    assert found.effective_rank == pytest.approx(1, abs=1e-6)
    assert found.effective_rank_pooled == pytest.approx(1, abs=1e-6)


def test_ranks_do_not_see_what_every_text_shares_nor_a_rotation_of_features():
    vectors = normal(R, C, D)
    rotation = torch.linalg.qr(normal(D, D, seed=3))[0]
    moved, turned = geometry(vectors + 5 * ORTHOGONAL), geometry(vectors @ rotation)
    for each in (moved, turned):
        assert each.effective_rank == pytest.approx(geometry(vectors).effective_rank, rel=1e-9)
    assert moved.input_share < geometry(vectors).input_share


def test_slots_that_say_the_same_have_cosine_one_and_add_no_rank():
    one = normal(R, 1, D)
    copies = geometry(one.expand(R, C, D) * torch.tensor([1.0, 2, -1, 3])[:, None] + ORTHOGONAL)
    assert copies.slot_cosine_mean == pytest.approx(1)
    assert copies.effective_rank == pytest.approx(geometry(one).effective_rank, rel=1e-6)
    apart = torch.zeros(R, 2, D, dtype=torch.float64)
    apart[:, 0, :3], apart[:, 1, 3:] = normal(R, 3), normal(R, 3, seed=4)
    assert geometry(apart).slot_cosine_max == pytest.approx(0, abs=1e-9)


def test_a_slot_that_does_not_vary_counts_as_a_copy_of_every_other():
    vectors = torch.zeros(R, 3, D, dtype=torch.float64)
    vectors[:, 0, 0], vectors[:, 1, 1], vectors[:, 2] = normal(R), normal(R, seed=5), 1.0
    found = geometry(vectors)
    assert found.slot_cosine_max == 1
    assert found.slot_cosine_mean == pytest.approx((1 + 1 + abs(float(_cosine(vectors[:, 0], vectors[:, 1])))) / 3)


def _cosine(a, b):
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum() / (a.norm() * b.norm())


def test_the_share_that_varies_is_that_of_the_mean_square():
    shared, varying = 3.0, normal(1000, 1, 1)
    share = geometry(shared + varying).input_share
    centred = varying - varying.mean()
    assert share == pytest.approx(float(centred.square().sum() / (shared + varying).square().sum()))


def test_each_figure_stands_beside_constant_slots_and_noise_of_its_shape():
    figures = {m.name: m for m in geometry_measurements(normal(R, C, D).float(), protocol={"rows": R}, seed=1)}
    assert figures["effective_rank"].unit == "dimensions"
    assert figures["effective_rank"].trivial["constant slots"] == 0
    assert R - 3 < figures["effective_rank"].trivial["independent noise"] < R - 1
    assert figures["slot_cosine_max"].trivial["constant slots"] == 1
    assert figures["input_share"].n == R
    assert geometry_warnings(list(figures.values())) == []
    flat = geometry_measurements(ORTHOGONAL.float(), protocol={}, seed=1)
    said = geometry_warnings(flat)
    assert "HARDLY DEPEND ON THE TEXT: 0.00%" in said[0]
    assert "COLLAPSED: all texts lie within 0.0 directions" in said[1]


def test_a_rank_that_so_few_rows_cannot_exceed_is_no_collapse():
    figures = geometry_measurements(normal(2, C, D).float(), protocol={}, seed=1)
    assert next(m for m in figures if m.name == "effective_rank").value == pytest.approx(1)
    assert geometry_warnings(figures) == []


def test_one_text_has_no_geometry():
    with pytest.raises(ValueError, match=r"\[1, 4, 6\]"):
        geometry(normal(1, C, D))


# --- nats -------------------------------------------------------------------------------------------------

V, MASK = 4, 3
PROCESS = Masking(schedule=Linear(), vocab_size=V, mask_id=MASK)
BOUND = ConceptBound(bound=LikelihoodBound(process=PROCESS, integrand=masking_integrand, t_min=1e-3))
KNOWS = math.log(0.8 / 0.1)


class Knowing(torch.nn.Module):
    """Slot c is a one-hot of given token c; the logits of every target are the sum over real slots, times a weight."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(KNOWS))

    def encode(self, source, *, real):
        return Concepts(torch.nn.functional.one_hot(source, V).float(), real)

    def decode(self, z, t, concepts, *, segments, positions):
        del t, segments
        logits = self.weight * (concepts.vectors * concepts.real[..., None]).sum(1)
        return logits[:, None].expand(*z.shape, V)[positions]

    def forward(self, z, t, *, segments, positions, source, source_real, **rest):
        del rest
        return self.decode(z, t, self.encode(source, real=source_real), segments=segments, positions=positions)


@dataclass
class Judged:
    objective: object = BOUND
    network: torch.nn.Module = field(default_factory=Knowing)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def batch_of(ids, given):
    ids = torch.tensor(ids)
    return Batch(
        ids=ids,
        segments=torch.ones_like(ids),
        targets=(torch.arange(ids.shape[1]) >= given).expand(ids.shape),
        byte_lengths=torch.ones_like(ids),
        rows=torch.arange(len(ids)),
        global_size=len(ids),
    )


def log_p(row, given, slots):
    """log p of a row's targets given the tokens of some slots, by enumeration."""
    logits = [sum(KNOWS * (row[slot] == v) for slot in slots) for v in range(V - 1)]
    total = math.log(sum(map(math.exp, logits)))
    return sum(logits[x] - total for x in row[given:])


ROWS = [[0, 1, 0], [1, 2, 1], [2, 2, 0], [0, 0, 2]]
CHANGES = {
    OWN: own,
    SHUFFLED: shuffled,
    NONE: keeping(0),
    "kept 1": keeping(1),
    "kept 2": keeping(2),
    "slot 0": lacking(0),
    "slot 1": lacking(1),
}


def sums_of(rows=ROWS, *, draws=3, end_share=None):
    batches, other = [batch_of(rows, 2)], [batch_of(rows[1:] + rows[:1], 2)]
    return row_nats(Judged(), batches, other, changes=CHANGES, draws=draws, seed=1, end_share=end_share)


def test_every_variant_has_the_nats_of_its_posterior_on_the_same_noise():
    """With one target and logits that do not read z, the bound is the noise's weight times −log p, row by row."""
    nats = sums_of().nats
    weights = nats[NONE] / math.log(V - 1)
    slots = {OWN: (0, 1), "kept 1": (0,), "kept 2": (0, 1), "slot 0": (1,), "slot 1": (0,)}
    assert (weights > 0).all()
    for name, seen in slots.items():
        expected = [-log_p(row, 2, seen) for row in ROWS]
        assert nats[name] / weights == pytest.approx(expected, rel=1e-5), name
    foreign = [-log_p([*other[:2], row[2]], 2, (0, 1)) for row, other in zip(ROWS, ROWS[1:] + ROWS[:1], strict=True)]
    assert nats[SHUFFLED] / weights == pytest.approx(foreign, rel=1e-5)


def test_own_concepts_cost_what_the_likelihood_says():
    for end_share in (None, 0.1):
        batches = [batch_of(ROWS, 2)]
        sums = row_likelihoods(Judged(), batches, draws=3, seed=1, end_share=end_share)
        assert sums_of(end_share=end_share).nats[OWN] == pytest.approx(sums.nats, rel=1e-6)


def test_a_gap_is_paired_over_rows_and_its_interval_is_told():
    sums = sums_of()
    gaps = {m.name: m for m in gap_measurements(sums, protocol={"rows": 4}, identity="these")}
    difference = sums.nats[SHUFFLED] - sums.nats[OWN]
    gap = gaps["shuffle_gap"]
    assert gap.value == pytest.approx(difference.mean())
    assert gap.stderr == pytest.approx(difference.std(ddof=1) / 2)
    assert (gap.trivial, gap.unit, gap.examples.identity) == ({"unread concepts": 0}, "nats/token", "these")
    low, high = gap.value - 1.96 * gap.stderr, gap.value + 1.96 * gap.stderr
    assert f"95 % interval {low:.4f} to {high:.4f}" in gap_sentences([gap])[0]


def test_rows_of_one_document_are_not_counted_as_independent():
    """Each row there twice is no more evidence: the error is that of the documents, the gap the same."""
    plain = gap_measurements(sums_of(), protocol={}, identity="these")[0]
    sums = sums_of(ROWS)
    nats = {name: np.repeat(values, 2) for name, values in sums.nats.items()}
    twice = ConceptSums(nats=nats, tokens=np.repeat(sums.tokens, 2), documents=np.repeat(np.arange(4), 2))
    gap = gap_measurements(twice, protocol={}, identity="these")[0]
    assert (gap.value, gap.stderr) == (pytest.approx(plain.value), pytest.approx(plain.stderr))
    assert gap.protocol["errors_over"] == "4 documents"
    assert "over 4 documents" in gap_sentences([gap])[0]


def test_concepts_that_nothing_reads_have_no_gap_and_are_called_useless():
    model = Judged()
    torch.nn.init.zeros_(model.network.weight)
    batches = [batch_of(ROWS, 2)]
    changes = {name: CHANGES[name] for name in (OWN, SHUFFLED, NONE)}
    sums = row_nats(
        model, batches, [batch_of(ROWS[1:] + ROWS[:1], 2)], changes=changes, draws=1, seed=1, end_share=None
    )
    gaps = gap_measurements(sums, protocol={}, identity="these")
    assert [gap.value for gap in gaps] == [0, 0]
    assert "NO USE OF THE CONCEPTS" in gap_sentences(gaps)[0]
    sure_and_worthless = replace(gaps[0], value=1e-4, stderr=1e-6)
    assert "NO USE OF THE CONCEPTS" in gap_sentences([sure_and_worthless])[0]
    assert "carry the text" in gap_sentences([replace(gaps[0], value=0.1, stderr=0.01)])[0]


def test_kept_concepts_and_slots_are_named_in_the_protocol():
    sums = sums_of()
    kept = kept_measurements(sums, trivial_nats={"unigram": 4.0}, protocol={"rows": 4}, identity="these")
    assert [(m.protocol["kept"], m.trivial) for m in kept] == [(1, {"unigram": 1.0}), (2, {"unigram": 1.0})]
    assert kept[1].value == pytest.approx(sums.nats[OWN].mean())
    slots = slot_measurements(sums, protocol={"rows": 4}, identity="these")
    assert [m.protocol["slot"] for m in slots] == [0, 1]
    assert slots[1].value == pytest.approx((sums.nats["slot 1"] - sums.nats[OWN]).mean())


def test_the_recovered_share_is_0_at_no_context_and_1_at_all_of_it():
    sums = sums_of()
    none, full = sums.nats[OWN] + 2.0, sums.nats[OWN] - 1.0
    common = {"protocol": {}, "identity": "these"}
    assert recovered(sums, none=none, full=full, **common).value == pytest.approx(2 / 3)
    assert recovered(sums, none=sums.nats[OWN], full=full, **common).value == 0
    assert recovered(sums, none=none, full=sums.nats[OWN], **common).value == 1
    useless = recovered(sums, none=none, full=none + 1, **common)
    assert "MEANS NOTHING" in gap_sentences([useless])[0]


def test_the_numbers_of_kept_concepts_double_up_to_all():
    assert [ladder(c) for c in (1, 2, 5, 8, 9)] == [[1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 8], [1, 2, 4, 8, 9]]
    assert spread_slots(3) == [0, 1, 2]
    assert spread_slots(64) == list(range(0, 64, 4))


def test_vectors_are_of_given_tokens_or_where_there_are_none_of_whole_rows():
    given = row_vectors(Judged(), [batch_of(ROWS, 2)])
    assert given.argmax(-1).tolist() == [row[:2] for row in ROWS]
    assert row_vectors(Judged(), [batch_of(ROWS, 0)]).argmax(-1).tolist() == ROWS
    assert read_tokens(batch_of(ROWS, 2))[0].tolist() == [row[:2] for row in ROWS]


def test_a_network_is_judged_without_dropout_and_left_as_it_was():
    model = Judged()
    model.network.train()
    seen = []
    model.network.encode = lambda source, *, real: (
        seen.append(model.network.training) or Knowing().encode(source, real=real)
    )
    row_vectors(model, [batch_of(ROWS, 2)])
    assert (seen, model.network.training) == ([False], True)


# --- while a run trains -----------------------------------------------------------------------------------


def test_a_training_model_of_concepts_is_told_its_rank_and_share():
    wide = [batch_of(ROWS, 2)]
    model = Judged()
    assert concept_figures(model, wide) == {}  # slots that are tokens differ from text to text
    model.network.concepts = 2
    found, vectors = concept_figures(model, wide), row_vectors(model, wide)
    expected = geometry(vectors)
    assert found == {"effective_rank": expected.effective_rank, "input_share": expected.input_share}


@pytest.mark.parametrize(("whole", "told"), [(0, False), (3, False), (4, True)])
def test_rows_that_lack_concepts_tell_no_rank_and_a_few_whole_ones_none_either(whole, told):
    """Of three rows noise has a rank of 2 at most, which would be taken for a collapse."""
    network = build_concept_network(
        ConceptSpec(width=16, heads=2, encoder="stretches", concepts=8, decoder="none"),
        ByteTokenizer(), length=8, seed=1,
    )  # fmt: skip
    places = torch.arange(8) < torch.tensor([8] * whole + [5] * (12 - whole))[:, None]
    ids = torch.randint(256, (12, 8), generator=torch.Generator().manual_seed(2))
    batch = replace(full_batch(ids.numpy()), segments=places.long(), targets=places)
    assert bool(concept_figures(replace(Judged(), network=network), [batch])) == told


@pytest.mark.parametrize(
    ("rank", "share", "rows", "collapsed"),
    [(6.0, 0.2, 8, False), (1.2, 0.2, 8, True), (6.0, 0.002, 8, True), (None, None, 8, True), (1.0, 0.2, 2, False)],
)
def test_a_run_whose_concepts_collapsed_is_told_so(rank, share, rows, collapsed):
    told = {"effective_rank": rank or 0.0, "input_share": share or 0.0}
    lines = [{"kind": "trivial", "bits_per_byte": {"uniform": 8.0, "unigram": 5.0, "byte 2-gram": 4.0}}]
    lines += [{"kind": "train", "step": 20 * k, "loss": 3.0 - k / 20, "bits_per_byte": 4.0} for k in range(1, 31)]
    lines.append({"kind": "validation", "step": 600, "bits_per_byte": 3.0, "stderr": 0.01, "rows": rows, **told})
    found = [finding for finding in verdict(lines).findings if finding.startswith("collapsed concepts")]
    assert bool(found) == collapsed
    if collapsed:
        assert verdict(lines).level == "weak"
        assert f"{told['input_share']:.2%} of the concepts' mean square" in found[0]
    plain = [{key: value for key, value in line.items() if key not in told} for line in lines]
    assert "concepts" not in " ".join(verdict(plain).findings)
