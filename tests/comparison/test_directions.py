"""Which way figures of sentence tasks are better."""

import pytest

from remask.comparison.directions import better, is_of_sentences


@pytest.mark.parametrize("name", ["mrpc_probe_accuracy", "stsb_named_spearman", "qqp_pair_f1"])
def test_a_score_is_better_the_higher_and_its_difference_from_what_differs_has_no_direction(name):
    assert (better(name), better(f"{name}_difference")) == ("higher", None)


def test_neither_a_score_nor_its_difference_depends_on_how_text_was_cut_into_tokens():
    assert is_of_sentences("mrpc_probe_accuracy")
    assert is_of_sentences("mrpc_probe_accuracy_difference")
    assert not is_of_sentences("accuracy_strict_difference")
    assert not is_of_sentences("nats_per_token")
