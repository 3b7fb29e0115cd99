"""`remask evaluate --task exact-likelihood` and the sampler whose probabilities it gives."""

import shutil

import pytest
from command import BYTES, newest, refused, succeeds

EXACT = ("evaluate", "last", "--task", "exact-likelihood")


def test_the_bound_and_the_exact_likelihood_stand_in_one_table_with_the_sampler_below_it(trained):
    done = succeeds("evaluate", "last", "--task", "likelihood", *EXACT[2:], "--reveal", "spread", "--steps", 8)
    header, *rows, sentence = done.out.splitlines()
    assert [row.split()[0] for row in rows] == [
        *("nats_per_token", "bits_per_byte", "perplexity"),
        *("exact_nats_per_token", "exact_bits_per_byte", "exact_perplexity"),
    ]
    assert "byte 5-gram" in header
    assert "the sampler bijective draws the text, reveal spread, 8 steps (8 network calls)" in sentence


def test_the_sampler_is_in_the_protocol_and_decides_the_figure(trained):
    found = {}
    for reveal, steps in (("left_to_right", 4), ("margin", 4), ("margin", 2), ("margin", 40)):
        figure = succeeds(*EXACT, "--reveal", reveal, "--steps", steps, "--json").objects[0]
        assert figure["protocol"]["likelihood"] == "exact: sampler + ends"
        names = ("sampler", "reveal", "steps", "network_calls", "rows")
        rounds = min(steps, 16)
        assert [figure["protocol"][name] for name in names] == ["bijective", reveal, rounds, rounds, 4]
        found[reveal, steps] = figure["value"]
    assert len(set(found.values())) == 4
    again = succeeds(*EXACT, "--reveal", "margin", "--steps", 4, "--json").objects[0]
    assert again["value"] == found["margin", 4]


def test_a_likelihood_bound_stays_the_headline(trained):
    before = newest(trained)[0].headline
    succeeds(*EXACT)
    assert newest(trained)[0].headline == before


def test_an_autoregressive_model_s_exact_likelihood_is_its_likelihood(trained_ar):
    plain = succeeds("evaluate", "last", "--task", "likelihood", "--json").objects
    exact = succeeds(*EXACT, "--reveal", "left_to_right", "--json").objects
    assert [figure["value"] for figure in exact] == [figure["value"] for figure in plain]
    protocol = exact[0]["protocol"]
    assert [protocol[name] for name in ("sampler", "reveal", "steps", "network_calls")] == [
        *("left_to_right", "left_to_right"),
        *(16, 1),
    ]
    assert "draws from left to right" in refused(*EXACT, "--reveal", "spread")


@pytest.mark.parametrize(
    ("reveal", "said"),
    [
        ("sprad", "--reveal sprad is unknown; did you mean 'spread'?"),
        ("any_order", "sums over all subsets of a row's tokens, at most 12, and these rows have up to 16"),
    ],
)
def test_an_order_that_does_not_fit_is_refused(trained, reveal, said):
    assert said in refused(*EXACT, "--reveal", reveal)


def test_the_mean_over_all_orders_has_no_rounds_to_choose(trained):
    said = refused(*EXACT, "--reveal", "any_order", "--steps", 4)
    assert "--steps is given, and of the tasks exact-likelihood none reads it" in said


def test_a_random_order_is_named_by_its_seed(trained):
    figures = [succeeds(*EXACT, "--reveal", "random", "--seed", seed, "--json").objects[0] for seed in (1, 2)]
    assert [figure["protocol"]["permutation"] for figure in figures] == [1, 2]


def test_only_what_reveals_masks_has_an_exact_likelihood(home, finished):
    shutil.copytree(finished("udlm"), home)
    assert "this one is of uniform noise" in refused(*EXACT)
    assert "--task likelihood" in refused(*EXACT)


def test_the_same_order_draws_texts_and_beside_the_task_other_samplers_keep_their_own(trained):
    drawn = succeeds("sample", "last", "--sampler", "bijective", "--reveal", "spread", "--json").objects[0]
    assert (drawn["sampler"], drawn["reveal"]) == ("bijective", "spread")
    assert "only sampler bijective reads it" in refused("sample", "last", "--reveal", "spread")
    both = succeeds(*EXACT, "--task", "quality", "--reveal", "spread", "--count", 2, "--json").objects
    samplers = {figure["name"]: figure["protocol"]["sampler"] for figure in both}
    assert samplers["exact_perplexity"] == "bijective"
    assert samplers["entropy"] == "ancestral"


def test_the_mean_over_all_orders_of_short_rows_is_summed_over_subsets(home, text):
    succeeds("train", "mdlm-file", *BYTES, f"data.source={text}", "data.length=6", "training.steps=1")
    figure = succeeds(*EXACT, "--reveal", "any_order", "--json").objects[0]
    names = ("reveal", "steps", "network_calls")
    assert [figure["protocol"][name] for name in names] == ["any_order", 6, 2**6 - 1]
    one = succeeds(*EXACT, "--reveal", "spread", "--steps", 6, "--json").objects[0]
    assert figure["value"] == pytest.approx(one["value"], abs=0.05), "hardly trained: all orders cost about the same"
    assert figure["value"] != one["value"]
