"""Figures of models that give text no likelihood."""

import numpy as np
import pytest

from remask.comparison.statistics import paired_over_examples, sample_of
from remask.evaluation.assessment import AssessedRows, assessment_measurement
from remask.evaluation.likelihood import RowSums, likelihood_measurements
from remask.objectives.concepts import ConceptMasked
from remask.processes import Masking
from remask.schedules import Linear

OBJECTIVE = ConceptMasked(process=Masking(schedule=Linear(), vocab_size=7, mask_id=6))
DOCUMENTS = np.repeat(np.arange(12), 4)


def figure(nats, *, documents=None):
    rows = AssessedRows(nats=nats, weights=np.full(len(nats), 10.0), documents=documents)
    return assessment_measurement(rows, objective=OBJECTIVE, unit="nats", trivial={}, protocol={}, identity="rows")


def test_rows_that_share_documents_say_no_more_than_those():
    """Copies of a row add nothing to what is known."""
    alone = np.random.default_rng(0).normal(50.0, 5.0, 12)
    copied, once = figure(np.repeat(alone, 4), documents=DOCUMENTS), figure(alone)
    assert copied.value == pytest.approx(once.value)
    assert copied.stderr == pytest.approx(once.stderr)
    assert copied.protocol["errors_over"] == "12 documents"
    assert figure(np.repeat(alone, 4)).stderr < 0.6 * once.stderr


@pytest.mark.parametrize("kind", ["assessed", "likelihood"])
def test_two_models_are_compared_over_documents_where_rows_share_them(kind):
    draw = np.random.default_rng(1)
    first, second = draw.normal(50.0, 5.0, (2, 12))

    def sample(nats, *, documents):
        measurement = figure(nats, documents=documents)
        if kind == "likelihood":
            tokens = np.full(len(nats), 10.0)
            sums = RowSums(nats=nats, tokens=tokens, bytes=tokens, terms={}, rows={}, documents=documents)
            found = likelihood_measurements(sums, trivial_nats={}, protocol={}, identity="rows")
            measurement = next(each for each in found if each.name == "nats_per_token")
        return sample_of(measurement.value, measurement.examples.to_json())

    copied = [sample(np.repeat(nats, 4), documents=DOCUMENTS) for nats in (first, second)]
    once = [sample(nats, documents=None) for nats in (first, second)]
    assert paired_over_examples(*copied).stderr == pytest.approx(paired_over_examples(*once).stderr)
    assert paired_over_examples(*copied).difference == pytest.approx((first.mean() - second.mean()) / 10)
    assert copied[0].identity != once[0].identity  # other examples: documents are not rows
