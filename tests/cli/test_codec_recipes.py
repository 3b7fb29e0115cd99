"""Codecs of responses and thoughts in their vectors, through the commands: train, judge, draw, save, refuse."""

import shutil

import pytest
import torch
from command import QUESTIONS, newest, refused, succeeds

from pretrained_models import write_model
from remask.finished import open_model
from remask.networks.thought import FrozenCodec, PretrainedTrunk

SMALL = [*QUESTIONS, "data.length=36"]
OWN = ["network.length=28", "network.latent_width=4"]
CONCEPTS = ["data.source=arithmetic", "data.prefix=null", "data.pad=end", "tokenizer.kind=character"]
CONCEPTS += ["network.concepts=3", "network.latent_width=4", "network.decoder=position_only", "network.heads=2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, cache):
    """A home with a codec of each kind, and their ids; the language model that one of them read by is gone."""
    folder = tmp_path_factory.mktemp("codecs")
    reader = write_model(folder / "reader", "qwen2")
    frozen = ["network.encoder=frozen", f"network.name={reader}", f"tokenizer.name={reader}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMASK_HOME", str(folder / "runs"))
        patch.setenv("REMASK_CACHE", str(cache))
        found = {}
        for name, recipe, changes in (
            ("own", "thought-codec", OWN),
            ("frozen", "thought-codec", [*OWN, *frozen, "tokenizer.kind=huggingface"]),
            ("concepts", "concept-autoencoder", CONCEPTS),
        ):
            succeeds("train", recipe, *SMALL, *changes)
            found[name] = newest(folder / "runs")[0].id
        shutil.rmtree(reader)
    return folder / "runs", found


@pytest.fixture
def place(runs, cache, tmp_path, monkeypatch):
    """The same, with the commands of a test in it."""
    home, found = runs
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REMASK_HOME", str(home))
    monkeypatch.setenv("REMASK_CACHE", str(cache))
    return home, found


def test_a_codec_is_judged_by_its_reconstruction_and_draws_nothing(place):
    _, found = place
    (figure,) = succeeds("evaluate", found["frozen"], "--json").objects
    assert figure["name"] == "reconstruction_nats_per_token"
    assert figure["trivial"]
    for codec in found.values():
        assert "draws none of its own" in refused("sample", codec)


@pytest.mark.parametrize("kind", ["own", "concepts"])
def test_a_thought_in_the_vectors_of_a_codec_trains_draws_and_needs_nothing_of_the_codecs_run(
    place, kind, tmp_path, monkeypatch
):
    home, found = place
    succeeds("train", "thought-vae", *SMALL, f"network.codec={found[kind]}")
    record, folder = newest(home)
    assert (record.family, record.lineage) == ("thought", [{"how": "enclosed", "from": found[kind]}])
    assert any("worst_skill" in line for line in folder.metrics() if line["kind"] == "train")
    shutil.copytree(folder.model_path, tmp_path / "model")
    codec = dict(open_model(found[kind], device=torch.device("cpu"))[0].network.named_parameters())
    (line,) = succeeds("sample", record.id, "--prompt", "1+2+3?", "--json").objects
    assert line["text"].startswith("1+2+3?")
    monkeypatch.setenv("REMASK_HOME", str(tmp_path / "nothing"))
    model, _ = open_model(str(tmp_path / "model"), device=torch.device("cpu"))
    for name, weight in model.network.codec.filled.named_parameters():
        assert bool((weight == codec[name]).all())
    assert float(model.network.codec.scale.detach()) != 1.0
    assert model.mask_id not in line["ids"]


def test_a_language_model_thinks_in_the_vectors_of_a_codec_that_reads_by_another_one(place, tmp_path):
    home, found = place
    backbone = write_model(tmp_path / "backbone", "qwen2")
    network = ["network.kind=thought_pretrained", f"network.name={backbone}", f"network.codec={found['frozen']}"]
    adapted = ["network.adaptation=lora", "network.lora_rank=2", "network.saved=adapters"]
    small = [part for part in SMALL if not part.startswith("network.")]
    text = ["tokenizer.kind=huggingface", f"tokenizer.name={backbone}"]
    succeeds("train", "thought-vae", *small, *text, *network, *adapted)
    assert {"how": "enclosed", "from": found["frozen"]} in newest(home)[0].lineage
    (line,) = succeeds("sample", "last", "--prompt", "1+2+3?", "--json").objects
    assert line["text"].startswith("1+2+3?")
    network = open_model("last", device=torch.device("cpu"))[0].network
    assert isinstance(network.trunk, PretrainedTrunk)
    assert isinstance(network.codec, FrozenCodec)
    codec = dict(open_model(found["frozen"], device=torch.device("cpu"))[0].network.named_parameters())
    assert all(bool((weight == codec[name]).all()) for name, weight in network.codec.filled.named_parameters())
    assert float(network.codec.scale.detach()) != 1.0


def test_learned_positions_reach_behind_the_vectors_of_a_codec(place, tmp_path):
    home, found = place
    backbone = write_model(tmp_path / "learned", "gpt2")  # of 64 positions
    network = ["network.kind=thought_pretrained", f"network.name={backbone}", f"network.codec={found['frozen']}"]
    small = [part for part in SMALL if not part.startswith(("network.", "data.length"))]
    tokenizer = home / found["frozen"] / "model" / "tokenizer"
    text = ["tokenizer.kind=huggingface", f"tokenizer.name={tokenizer}", "network.adaptation=lora"]
    asked = ["train", "thought-vae", *small, *text, *network]
    said = refused(*asked, "data.length=51")
    assert "64 learned positions, and a row of data.length=51 takes 65; give data.length=50 or less" in said
    succeeds(*asked, "data.length=50")


WRONG = [
    (["network.codec={concepts}", "tokenizer.kind=byte"], "another tokenizer"),
    (["network.codec=nobody"], "nobody"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_does_not_fit_a_codec_is_refused_in_one_line(place, changes, words):
    given = [change.format(**place[1]) for change in changes]
    assert words in refused("train", "thought-vae", *SMALL, *given)
