"""The bound on what follows a text, given that text through concepts.

Shape letters: B rows, L places, S targets of a row.
"""

import math
from dataclasses import replace

import pytest
import torch

from concept_readers import PROCESS, Spy, V, reader, rows
from remask.data.given import split_given
from remask.objectives.concepts import ConceptBound
from remask.objectives.concepts.contract import kept_concepts
from remask.objectives.likelihood import LikelihoodBound, masking_integrand
from remask.randomness import keyed_generator

BOUND = LikelihoodBound(process=PROCESS, integrand=masking_integrand, t_min=1e-2)
OBJECTIVE = ConceptBound(bound=BOUND)


def noise():
    return keyed_generator(1, "noise")


def total(terms):
    return sum(terms.values())


def test_it_is_the_bound_of_the_targets_under_a_network_that_was_told_the_rest() -> None:
    """All three terms, term by term, on rows of a prefix and equally many targets."""
    batch, network = rows(given=5), reader()
    given = split_given(batch)
    concepts = network.encode(given.source, real=given.source_real)

    def told(z, t, *, segments, positions):
        return network.decode(z, t, concepts, segments=segments, positions=positions)

    plain = replace(BOUND, draw=lambda generator, _: torch.rand(4, 8, generator=generator, dtype=torch.float64)[:, 5:])
    expected = plain.drawn_terms(told, given.response, generator=noise(), draws=3)
    found = OBJECTIVE.likelihood_terms(network, batch, generator=noise(), draws=3)
    assert set(found) == {"diffusion", "reconstruction", "prior"}
    for name, term in expected.items():
        torch.testing.assert_close(found[name][:, 5:], term)
        assert not found[name][:, :5].any()


def test_equal_logits_cost_the_logarithm_of_the_clean_ids() -> None:
    """In the mean over noise: 8,000 tokens, within four standard errors of 0.7 %."""
    batch = rows(count=800, length=12, given=2)
    loss = ConceptBound(bound=replace(BOUND, t_min=0.5))(Spy(), batch, generator=noise())
    found = loss.nats.sum() / loss.weight.sum() / 0.5
    assert abs(float(found) / math.log(V - 1) - 1) < 0.028


def test_the_source_holds_given_tokens_alone_and_the_loss_counts_targets_alone() -> None:
    """Ragged rows: padding is in neither."""
    batch, spy = rows(given=3, lengths=(8, 5, 6, 8)), Spy()
    loss = OBJECTIVE(spy, batch, generator=noise())
    assert spy.sources() == batch.ids[:, :3].tolist()
    assert torch.equal(loss.weight, batch.targets.float())
    assert not loss.nats[~batch.targets].any()


def test_a_target_never_reaches_the_encoder() -> None:
    """Other targets, the same source."""
    batch, spy = rows(given=3), Spy()
    OBJECTIVE(spy, batch, generator=noise())
    first = spy.sources()
    OBJECTIVE(spy, replace(batch, ids=torch.where(batch.targets, 5 - batch.ids, batch.ids)), generator=noise())
    assert spy.sources() == first


def test_padding_and_the_company_of_other_rows_change_no_loss() -> None:
    """A row's noise is drawn for its whole length, so shorter neighbours and micro-batches leave it alone."""
    batch, network = rows(given=3, lengths=(8, 5, 6, 4)), reader()
    objective = ConceptBound(bound=BOUND, concepts=4, nested_share=0.5)
    whole = objective(network, batch, generator=noise()).nats
    parts = []
    for cut in (slice(0, 2), slice(2, 4)):
        cuts = {name: getattr(batch, name)[cut] for name in ("ids", "segments", "targets", "byte_lengths", "rows")}
        parts.append(objective(network, replace(batch, **cuts), generator=noise()).nats)
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=1e-5)


def test_measuring_under_other_concepts_uses_the_same_noise_and_says_something_else() -> None:
    """The row's own concepts give the likelihood itself; those of another row do not."""
    batch, network = rows(given=5), reader()
    given = split_given(batch)
    concepts = network.encode(given.source, real=given.source_real)
    measured = total(OBJECTIVE.likelihood_terms(network, batch, generator=noise(), draws=2))
    own = total(OBJECTIVE.terms_given(network, given, concepts, generator=noise(), draws=2))
    torch.testing.assert_close(own, measured)
    other = concepts.shuffled(torch.tensor([1, 2, 3, 0]))
    assert not torch.allclose(total(OBJECTIVE.terms_given(network, given, other, generator=noise(), draws=2)), own)


def test_nested_rows_keep_some_first_concepts_and_a_likelihood_keeps_all() -> None:
    """Half of the rows in training; none in what is reported."""
    batch = rows(count=400, length=4, given=2)
    nested, spy = ConceptBound(bound=BOUND, concepts=16, nested_share=0.5), Spy()
    nested(spy, batch, generator=noise())
    kept = spy.last["kept"]
    assert 0.4 < float((kept < 16).float().mean()) < 0.6
    assert (int(kept.min()), int(kept.max())) == (1, 16)
    network, few = reader(), rows(given=5)
    for objective in (replace(nested, concepts=4), OBJECTIVE):
        found = total(objective.likelihood_terms(network, few, generator=noise(), draws=1))
        torch.testing.assert_close(found, total(OBJECTIVE.likelihood_terms(network, few, generator=noise(), draws=1)))


def test_the_number_kept_is_log_uniform() -> None:
    """P(k) = log((k + 1)/k) / log(C + 1), within 1e-3 over an even grid of draws."""
    u = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    kept = kept_concepts(torch.stack([torch.zeros_like(u), u], 1), share=0.5, concepts=4)
    k = torch.arange(1, 5, dtype=torch.float64)
    expected = ((k + 1) / k).log() / torch.tensor(5.0, dtype=torch.float64).log()
    torch.testing.assert_close(torch.bincount(kept)[1:] / 10_000.0, expected, atol=1e-3, rtol=0, check_dtype=False)


def test_dropping_concepts_where_there_are_none_is_refused() -> None:
    """A share needs two concepts, and must be one."""
    for changes in ({"nested_share": 0.5}, {"nested_share": 0.5, "concepts": 1}, {"nested_share": 2.0, "concepts": 4}):
        with pytest.raises(ValueError, match="nested_share"):
            ConceptBound(bound=BOUND, **changes)
