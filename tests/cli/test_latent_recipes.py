"""An autoencoder of texts and the prior over its concepts, through the commands: train, judge, draw, resume, refuse."""

import shutil

import pytest
import torch
from command import TINY, newest, refused, succeeds

from remask.config.build import valid_samplers
from remask.finished import open_model
from remask.runs import Registry

SMALL = [*TINY, "tokenizer.kind=byte"]
CODEC = [*SMALL, "network.concepts=3", "network.latent_width=4"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory, cache, text):
    """A home with a finished autoencoder and a finished prior around it, and their ids."""
    home = tmp_path_factory.mktemp("latent") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMASK_HOME", str(home))
        patch.setenv("REMASK_CACHE", str(cache))
        succeeds("train", "concept-autoencoder", *CODEC, f"data.source={text}")
        codec, _ = newest(home)
        rows = "training.batch_size=16"  # of fewer rows nothing is said of skill
        succeeds("train", "concept-prior", *SMALL, rows, f"data.source={text}", f"network.codec={codec.id}")
        prior, _ = newest(home)
    return home, codec.id, prior.id


@pytest.fixture
def place(pair, cache, tmp_path, monkeypatch):
    """The same, with the commands of a test in it."""
    home, codec, prior = pair
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REMASK_HOME", str(home))
    monkeypatch.setenv("REMASK_CACHE", str(cache))
    return home, codec, prior


def figures(done) -> dict:
    return {line["name"]: line for line in done.objects}


def test_an_autoencoder_is_judged_by_its_reconstruction_and_never_by_a_likelihood(place):
    _, codec, _ = place
    found = figures(succeeds("evaluate", codec, "--json"))
    assert set(found) == {"reconstruction_nats_per_token"}
    assert found["reconstruction_nats_per_token"]["trivial"]
    assert "likelihood" in refused("evaluate", codec, "--task", "likelihood")
    assert "concept_autoencoder" in refused("sample", codec)
    assert "draws none of its own" in refused("ablate", "steps", codec, "--steps", "1")


def test_sentence_tasks_of_a_prior_are_referred_to_the_run_of_its_codec(place, tmp_path):
    _, codec, prior = place
    (tmp_path / "mrpc").mkdir()
    rows = [f"one {k} text\tanother {k} text\t{k % 2}" for k in range(40)]
    for split, part in (("train", rows[:20]), ("test", rows[20:])):
        (tmp_path / "mrpc" / f"{split}.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *part]))
    assert codec in refused("evaluate", prior, "--task", "mrpc", "--sentences", tmp_path)


def test_a_prior_is_judged_by_a_bound_whose_parts_add_up(place):
    _, _, prior = place
    found = figures(succeeds("evaluate", prior, "--task", "likelihood", "--json"))
    whole, rate, distortion = (
        found[name]["value"] for name in ("nats_per_token", "rate_nats_per_token", "distortion_nats_per_token")
    )
    told = found["nats_per_token"]["protocol"]["likelihood"]
    terms = ("concepts_prior", "concepts_diffusion", "diffusion", "reconstruction", "prior", "ends")
    assert told == "upper bound: " + " + ".join(terms)
    assert rate > 0
    assert distortion > 0
    assert 0 <= whole - rate - distortion < 0.5  # what is left are the ends of documents
    assert found["rate_nats_per_token"]["trivial"].keys() == {"linear filter", "means and variances"}


def test_a_prior_draws_with_samplers_of_vectors_and_of_tokens_and_the_same_again(place):
    _, _, prior = place
    model, recipe = open_model(prior, device=torch.device("cpu"))
    assert recipe.sampling.latent_sampler == "ddpm"
    drawn = {}
    for latent in ("ddpm", "ddim", "heun"):
        (line,) = succeeds("sample", prior, "--latent-sampler", latent, "--latent-steps", "3", "--json").objects
        assert line["latent_steps"] == 3
        drawn[latent] = line["ids"]
    assert {"confidence", "bijective", "entropy_bounded"} <= set(valid_samplers(model))
    for sampler in ("confidence", "bijective", "entropy_bounded"):
        (line,) = succeeds("sample", prior, "--sampler", sampler, "--json").objects
        assert len(line["ids"]) == 16
        assert model.mask_id not in line["ids"]
    (again,) = succeeds("sample", prior, "--latent-sampler", "ddpm", "--latent-steps", "3", "--json").objects
    assert again["ids"] == drawn["ddpm"]


def test_a_prompt_and_guidance_are_refused_in_one_line(place):
    _, _, prior = place
    assert "takes no prompt" in refused("sample", prior, "--prompt", "the")
    assert "takes no prompt" in refused("sample", prior, "--guidance", "1")


def test_levels_of_noise_on_tokens_are_refused_in_one_line(place):
    assert "rate and distortion" in refused("evaluate", place[2], "--task", "levels")


def test_a_saved_prior_needs_nothing_of_its_codecs_run(place, tmp_path, monkeypatch):
    home, _, prior = place
    before, _ = open_model(prior, device=torch.device("cpu"))
    alone = tmp_path / "model"
    shutil.copytree(home / prior / "model", alone)
    monkeypatch.setenv("REMASK_HOME", str(tmp_path / "nothing"))
    after, _ = open_model(str(alone), device=torch.device("cpu"))
    theirs = dict(before.network.named_parameters())
    for name, weight in after.network.named_parameters():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=0)


def test_the_codec_within_a_prior_is_that_of_the_run_and_stays_as_it_was(place):
    _, codec, prior = place
    inner = open_model(prior, device=torch.device("cpu"))[0].network.codec
    own = dict(open_model(codec, device=torch.device("cpu"))[0].network.named_parameters())
    for name, weight in inner.named_parameters():
        torch.testing.assert_close(weight, own[name], rtol=0, atol=0)
    assert not any(weight.requires_grad for weight in inner.parameters())


def test_where_a_codec_comes_from_and_the_skill_of_a_prior_are_on_record(place):
    home, codec, prior = place
    registry = Registry(home)
    record = registry.find(prior)
    assert record.family == "concept"
    assert record.lineage == [{"how": "enclosed", "from": codec}]
    lines = [line for line in registry.folder_of(record).metrics() if line["kind"] == "train"]
    assert any("worst_skill" in line for line in lines)


WRONG = [
    (["network.codec={prior}"], "its decoder does not know noisy concepts"),
    (["network.codec=nobody"], "nobody"),
    (["network.codec={codec}", "data.length=8"], "data.length=16, and this recipe has 8"),
    (["network.codec={codec}", "objective.latent_time=0.5"], "objective.latent_time=0.3, and this recipe has 0.5"),
    (["network.codec={codec}", "tokenizer.kind=character"], "another tokenizer"),
    (["network.codec={codec}", "data.prefix=4"], "give data.prefix=0"),
    (["network.codec={codec}", "training.parallel=fsdp"], "give training.parallel=ddp"),
    (["network.codec={codec}", "process.kind=uniform"], "process.kind=masking"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_does_not_fit_a_prior_is_refused_in_one_line(place, text, changes, words):
    _, codec, prior = place
    given = [change.format(codec=codec, prior=prior) for change in changes]
    assert words in refused("train", "concept-prior", *SMALL, f"data.source={text}", *given)


CLASHES = [
    (["network.latent_width=null"], "give network.latent_width=16"),
    (["network.encoder=tokens"], "give network.encoder=perceiver"),
    (["data.prefix=null"], "give data.prefix=0"),
    (["objective.kind=concept_prior"], "network.kind=concept_prior"),
    (["sampling.latent_steps=5"], "give sampling.latent_steps=null"),
]


@pytest.mark.parametrize(("changes", "words"), CLASHES, ids=[words for _, words in CLASHES])
def test_what_does_not_fit_an_autoencoder_is_refused(home, text, changes, words):
    assert words in refused("train", "concept-autoencoder", f"data.source={text}", *changes)
