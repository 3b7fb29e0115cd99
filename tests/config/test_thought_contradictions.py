"""Keys of a recipe of a thought that do not go together get one line that says what to give instead."""

import pytest

from remask.config.load import load_recipe
from remask.config.words import describe_architecture, describe_family, describe_noise, draws_text, extra_losses
from remask.errors import UserError

CLASHES = [
    (
        ["mdlm", "process.kind=gaussian"],
        "process.kind: gaussian given, but objective likelihood_bound is of tokens, and Gaussian noise lies on "
        "vectors; give process.kind=masking, or objective.kind=thought",
    ),
    (
        ["thought-arithmetic", "process.kind=masking"],
        "process.kind: masking given, but objective thought is defined for gaussian noise; give process.kind=gaussian, "
        "or objective.kind=likelihood_bound",
    ),
    (
        ["thought-arithmetic", "process=null"],
        "process: null given, but objective thought needs noise; give process.kind=gaussian, or "
        "objective.kind=next_token",
    ),
    (
        ["thought-arithmetic", "sampling.sampler=ancestral"],
        "sampling.sampler: ancestral given, but a thought is drawn as vectors; give sampling.sampler=ddim (or ddpm or "
        "heun)",
    ),
    (
        ["mdlm", "sampling.sampler=ddim"],
        "sampling.sampler: ddim given, but it draws vectors, and objective likelihood_bound is of tokens; give another "
        "sampler, e.g. sampling.sampler=ancestral",
    ),
    (
        ["thought-arithmetic", "objective.loss=noise"],
        "network.latent: learned given, but a squared error (objective.loss=noise) is least where all tokens have one "
        "vector; give network.latent=random (or own)",
    ),
    (
        ["thought-arithmetic", "network.readout=vectors"],
        "network.readout: vectors given, but objective.loss=cross_entropy is of tokens; give network.readout=tokens, "
        "or objective.loss=clean (or velocity, noise)",
    ),
    (
        ["thought-arithmetic", "objective.weighting=min_snr"],
        "objective.weighting: min_snr given, but only squared errors are weighted by time; give "
        "objective.weighting=own",
    ),
    (
        ["thought-arithmetic", "network.latent=own"],
        "network.latent_width: 16 given, but network.latent=own has the width of the embedding; give "
        "network.latent_width=null",
    ),
    (
        ["thought-arithmetic", "objective.answer_noise=0.01"],
        "objective.answer_noise: 0.01 given, but it must lie above objective.t_min=0.02; give "
        "objective.answer_noise=0.3",
    ),
    (
        ["thought-arithmetic", "data.pad=none"],
        "data.pad: none given, but a thought fills its row, and padding would tell it in training alone where the "
        "response ends; give data.pad=end",
    ),
    (
        ["ar", "sampling.sampler=ddim"],
        "sampling.sampler: ddim given, but it draws vectors, and objective next_token is of tokens; give another "
        "sampler, e.g. sampling.sampler=left_to_right",
    ),
    (
        ["thought-codec", "process=null"],
        "process: null given, but objective text_autoencoder needs noise; give process.kind=masking, or "
        "objective.kind=next_token",
    ),
    (
        ["thought-codec", "process.kind=uniform"],
        "process.kind: uniform given, but objective text_autoencoder is defined for masking noise; give "
        "process.kind=masking, or objective.kind=likelihood_bound",
    ),
    (
        ["thought-codec", "training.prompt_dropout=0.5"],
        "training.prompt_dropout: 0.5 given, but objective text_autoencoder reads no prompts; give "
        "training.prompt_dropout=0",
    ),
    (
        ["thought-codec", "network.name=some/model", "network.encoder=frozen"],
        "tokenizer.kind: character given, but a frozen reader reads the ids of its own tokenizer; give "
        "tokenizer.kind=huggingface and tokenizer.name=some/model",
    ),
    (
        [
            "thought-arithmetic",
            "network.embeddings=cpu",
            "network.kind=thought_pretrained",
            "network.name=some/model",
            "network.adaptation=lora",
            "network.latent=own",
            "network.latent_width=null",
            "tokenizer.kind=huggingface",
            "tokenizer.name=some/model",
        ],
        "network.embeddings: cpu given, but network.latent=own reads the whole table on the device at every step; give "
        "network.embeddings=device, or network.latent=learned",
    ),
    (
        ["thought-arithmetic", "training.parallel=fsdp"],
        "training.parallel: fsdp given, but the table of token vectors is read outside of the network, whole; give "
        "training.parallel=ddp",
    ),
    (
        ["thought-arithmetic", "objective.time_warping=learned"],
        "objective.time_exponent: 0.3 given, but learned times are not bent as well; give objective.time_exponent=1, "
        "or objective.time_warping=none",
    ),
    (
        ["thought-arithmetic", "network.width=130"],
        "network.width: 130 given, but it is no multiple of network.heads=4; give network.width=128, or another "
        "network.heads",
    ),
]


@pytest.mark.parametrize(("given", "line"), CLASHES, ids=[given[1] for given, _ in CLASHES])
def test_a_contradiction_is_one_line(given, line):
    with pytest.raises(UserError) as caught:
        load_recipe(given[0], given[1:])
    assert str(caught.value).splitlines() == [line]


def test_a_text_without_questions_is_refused():
    given = ["data.source=python-docs", "data.pad=none"]
    with pytest.raises(UserError, match="a thought stands behind a question"):
        load_recipe("thought-arithmetic", given)
    assert load_recipe("thought-arithmetic", [*given, "data.prefix=8"]).data.prefix == 8


def test_answers_are_ablated_by_their_weight_alone():
    """What else the recipe says of them is not read then, and a run of it must still open."""
    recipe = load_recipe("thought-arithmetic", ["objective.answer_weight=0"])
    assert recipe.objective.answer_share == 0.125


def test_a_codec_or_plain_text_says_itself_where_a_response_ends():
    load_recipe("thought-vae", ["network.codec=run", "data.pad=none"])
    load_recipe("thought-arithmetic", ["data.source=python-docs", "data.prefix=8", "data.pad=none"])


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_a_thought_may_look_both_ways_or_back(attention):
    assert load_recipe("thought-arithmetic", [f"network.attention={attention}"]).network.attention == attention


def test_a_thought_is_described_in_words():
    recipe = load_recipe("thought-arithmetic", ["network.experts=4", "network.latent=random"])
    assert describe_family(recipe) == "thought"
    assert describe_noise(recipe) == "gaussian, noise cosine"
    assert describe_architecture(recipe) == (
        "thought D128 L4 H4, 4 experts, 2 a token, bidirectional, 16 latent features, random table"
    )
    assert extra_losses(recipe) == ["times u^0.3", "self-conditioning 0.5", "written answers × 0.01"]
    assert draws_text(recipe)
    assert not draws_text(load_recipe("concept-tsdae"))
