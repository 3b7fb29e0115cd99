"""A recipe in the words of a table, and when one training repeats another."""

import pytest

from remask.config.build import describe_shape
from remask.config.load import load_recipe, setup_hash
from remask.config.words import (
    describe_architecture,
    describe_data,
    describe_family,
    describe_noise,
    describe_objective,
    describe_tokenizer,
    extra_losses,
)

HYBRID = "[reversible,reversible,standard,reversible]"
REPEATED = ["seed=7", "name=again", "device=cpu", "training.log_every=3", "sampling.steps=5", "evaluation.rows=4"]
OTHERWISE = ["training.steps=9", "network.layers=2", "training.learning_rate=0.1", "objective.weighting=root"]


@pytest.mark.parametrize("change", [*REPEATED, "data.source=/elsewhere/text.txt"])
def test_another_seed_name_place_or_judgement_is_the_same_setup(change):
    text = ["data.source=text.txt"]
    assert setup_hash(load_recipe("mdlm-file", text), data_hash="d") == setup_hash(
        load_recipe("mdlm-file", [*text, change]), data_hash="d"
    )


def test_the_texts_of_a_mixture_count_by_their_content_too():
    here, there, heavier = (
        load_recipe("mdlm-file", ["data.source=a.txt", f"data.mixture=[{{source: {folder}/b.txt, weight: {weight}}}]"])
        for folder, weight in (("here", 0.5), ("/there", 0.5), ("here", 0.7))
    )
    assert setup_hash(here, data_hash="d") == setup_hash(there, data_hash="d") != setup_hash(heavier, data_hash="d")


@pytest.mark.parametrize("change", OTHERWISE)
def test_whatever_changes_the_training_is_another_setup(change):
    assert setup_hash(load_recipe("mdlm"), data_hash="d") != setup_hash(load_recipe("mdlm", [change]), data_hash="d")


def test_another_text_under_the_same_name_is_another_setup():
    assert setup_hash(load_recipe("mdlm"), data_hash="d") != setup_hash(load_recipe("mdlm"), data_hash="e")


def test_a_recipe_is_told_without_the_folders_of_its_machine():
    recipe = load_recipe("mdlm-file", ["data.source=/some/folder/train.txt.gz", "tokenizer.kind=byte"])
    assert describe_data(recipe) == "train.txt.gz"
    assert describe_tokenizer(recipe, vocab_size=258) == "byte 258"
    assert describe_data(load_recipe("mdlm", ["data.source=hf:owner/name"])) == "hf:owner/name"


@pytest.mark.parametrize(
    ("recipe", "words", "extra"),
    [
        ("ar", "next token", []),
        ("mdlm", "likelihood bound, masking", []),
        ("quickstart", "likelihood bound, masking", ["root weighting", "curriculum 0.7"]),
        ("proofread", "proofreading, masking", ["unmask task × 1", "remask task × 1"]),
        ("bijective", "bijective, masking", ["sampler nats × 0.1 (spread, 32 rounds)"]),
        ("bijective-lambda0", "bijective, masking", []),
    ],
)
def test_what_is_minimised_and_what_is_added_to_it_is_said_in_words(recipe, words, extra):
    assert describe_objective(load_recipe(recipe)) == words
    assert extra_losses(load_recipe(recipe)) == extra


@pytest.mark.parametrize(
    ("recipe", "changes", "words"),
    [
        ("quickstart", ["network.width=64", "network.heads=2"], "transformer D64 L4 H2, bidirectional"),
        ("mdlm-moe", [], "transformer D192 L4 H3, 8 experts, 2 a token, bidirectional"),
        ("bd3lm", [], "transformer D192 L4 H3, block causal"),
        ("mdlm", ["network.kind=reversible"], "reversible D192 L4 H3, 4 of 4 blocks, additive, bidirectional"),
        (
            "mdlm-moe",
            ["network.kind=reversible", "network.coupling=affine", f"network.block_types={HYBRID}"],
            "reversible D192 L4 H3, 3 of 4 blocks, affine, 8 experts, 2 a token, bidirectional",
        ),
        ("mdlm", ["network.time_conditioning=adaln_zero"], "transformer D192 L4 H3, bidirectional, adaln zero"),
        ("convert-mdlm", ["network.adaptation=lora"], "Qwen3-0.6B-Base, bidirectional, lora 16"),
        ("convert-ar", ["network.name=/some/folder/tiny/"], "tiny, causal"),
    ],
)
def test_a_network_is_told_in_words(recipe, changes, words):
    assert describe_architecture(load_recipe(recipe, changes)) == words


@pytest.mark.parametrize(
    ("recipe", "changes", "family"),
    [
        ("mdlm", [], "token"),
        ("ar", [], "baseline"),
        ("ar", ["network.kind=reversible"], "baseline"),
        ("sedd-absorb", ["network.kind=reversible"], "bijective"),
        ("bijective", [], "bijective"),
        ("bijective-lambda0", ["network.kind=transformer"], "bijective"),
    ],
)
def test_a_run_is_of_the_family_of_its_network_and_objective(recipe, changes, family):
    assert describe_family(load_recipe(recipe, changes)) == family


@pytest.mark.parametrize(
    ("recipe", "changes", "shape"),
    [
        ("mdlm", [], "D192L4"),
        ("mdlm-moe", [], "D192L4E8"),
        ("mdlm", ["network.kind=reversible"], "D192L4R4"),
        ("mdlm-moe", ["network.kind=reversible", f"network.block_types={HYBRID}"], "D192L4R3E8"),
    ],
)
def test_a_run_is_named_by_the_size_of_its_network(recipe, changes, shape):
    assert describe_shape(load_recipe(recipe, changes)) == shape


def test_the_noise_is_told_with_all_of_its_settings():
    assert describe_noise(load_recipe("mdlm")) == "masking, schedule linear"
    hybrid = load_recipe("gidd", ["process.schedule.kind=polynomial", "process.schedule.power=3"])
    share = hybrid.process.uniform_share  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    assert describe_noise(hybrid) == f"hybrid, uniform share {share}, schedule polynomial, power 3.0"
    assert describe_noise(load_recipe("ar")) is None
