"""Rows with a prefix and a network of concepts, through the commands: trained, drawn from, and judged."""

import shutil

import pytest
import torch
from command import BYTES, newest, refused, succeeds

from remask.finished import open_model
from remask.networks.concepts import ConceptNetwork
from remask.report.costs import lineage_of
from remask.runs import Registry
from remask.runs.lineage import in_words

PREFIX = [*BYTES, "data.prefix=8", "data.stride=4", "evaluation.rows=8", "training.evaluate_rows=8"]
SMALL = [*PREFIX, "network.concepts=3", "network.decoder_layers=1", "network.scratch=2", "network.mlp_width=32"]
SMALL += ["objective.nested_share=0.5"]


@pytest.fixture(scope="session")
def homes(tmp_path_factory, cache, text):
    """A home with a run of concepts and one that sees the given tokens themselves."""
    home = tmp_path_factory.mktemp("concepts") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMASK_HOME", str(home))
        patch.setenv("REMASK_CACHE", str(cache))
        trained = succeeds("train", "concept-diffusion", *SMALL, f"data.source={text}", "name=concepts")
        assert "remask sample last --prompt TEXT --live" in trained.err  # without a prompt it is refused
        succeeds("train", "mdlm-file", *PREFIX, f"data.source={text}", "name=seeing")
    return home


@pytest.fixture(scope="session")
def judged(homes, cache):
    """The figures of the run of concepts, which its home then holds too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMASK_HOME", str(homes))
        patch.setenv("REMASK_CACHE", str(cache))
        tasks = ["--task", "concepts", "--task", "likelihood", "--none", "seeing", "--full", "concepts"]
        return succeeds("evaluate", "concepts", *tasks, "--json").objects


@pytest.fixture
def run(home, homes):
    """A home of this test's own."""
    shutil.copytree(homes, home)
    return home


def test_concepts_are_judged_by_geometry_and_in_nats(judged):
    figures = {(f["name"], f["protocol"].get("kept", f["protocol"].get("slot"))): f for f in judged}
    assert {k for name, k in figures if name == "nats_at_kept"} == {1, 2, 3}
    assert {k for name, k in figures if name == "slot_gap"} == {0, 1, 2}
    assert figures["nats_at_kept", 3]["value"] == pytest.approx(figures["nats_per_token", None]["value"], rel=1e-6)
    rank = figures["effective_rank", None]
    assert 0 < rank["value"] <= 7
    assert rank["trivial"]["constant slots"] == 0
    assert rank["protocol"]["read"] == "given tokens"
    assert (rank["protocol"]["given"], rank["protocol"]["stride"]) == (8, 4)
    gap = figures["shuffle_gap", None]
    assert gap["stderr"] > 0
    assert gap["n"] == 8


def test_the_share_recovered_lies_between_two_runs_of_the_same_rows(judged, run, finished):
    share = next(figure for figure in judged if figure["name"] == "recovered_share")
    assert share["value"] == pytest.approx(1)
    assert share["protocol"]["none"].startswith("seeing_")
    other = next(finished("mdlm-file").glob("mdlm-*"))
    words = refused("evaluate", "concepts", "--task", "concepts", "--none", "seeing", "--full", other)
    assert "--full mdlm-file_" in words
    assert "has other held-out rows" in words
    written = next(finished("concept-tsdae").glob("concept-tsdae_*"))
    words = refused("evaluate", "concepts", "--task", "concepts", "--none", written, "--full", "seeing")
    assert "gives text no likelihood" in words
    words = refused("evaluate", "concepts", "--task", "concepts", "--none", "seeing", "--full", "seeing")
    assert "R(C) is a share of what lies between two runs" in words
    assert "--none is given without --full" in refused("evaluate", "concepts", "--task", "concepts", "--none", "seeing")
    unread = refused("evaluate", "concepts", "--task", "likelihood", "--none", "seeing")
    assert "--none is given, and of the tasks" in unread


def test_a_training_tells_of_its_concepts_and_the_log_has_their_rank(run):
    record, folder = newest(run)
    for line in folder.metrics():
        assert ("effective_rank" in line) == (line["kind"] == "validation" and record.recipe == "concepts")
    assert "effective_rank" not in record.headline
    headline = Registry(run).find("concepts").headline
    assert 0 < headline["effective_rank"] <= 7


def test_a_run_that_starts_from_one_with_another_encoder_takes_all_but_that(run, text):
    still = [*SMALL, "objective.nested_share=0", f"data.source={text}", "training.start_from=concepts"]
    still += ["training.learning_rate=1e-12", "training.muon_learning_rate=1e-12", "name=mean", "network.encoder=mean"]
    first = Registry(run).find("concepts")
    assert (
        f"{first.id}/model has another encoder than this recipe" in succeeds("train", "concept-diffusion", *still).err
    )
    record, _ = newest(run)
    assert record.lineage == [{"how": "initialised", "from": f"{first.id}/model", "but": "encoder"}]
    assert in_words(record.lineage) == f"initialised from {first.id}/model (all but its encoder)"
    assert lineage_of({"id": record.id, "lineage": record.lineage}) == [in_words(record.lineage)]
    theirs, ours = (
        dict(open_model(of.id, device=torch.device("cpu"))[0].network.named_parameters()) for of in (first, record)
    )
    assert not {name for name in ours if name.startswith(ConceptNetwork.READERS)}  # a mean has no weights
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-6, rtol=0.0)
    assert "weights of another network" in refused("train", "concept-diffusion", *still, "network.decoder_layers=2")


def test_learned_weights_of_a_loss_belong_to_its_run_alone(run, text):
    still = [*SMALL, "objective.nested_share=0", f"data.source={text}", "training.steps=1"]
    still += ["training.learning_rate=1e-12", "training.muon_learning_rate=1e-12"]
    learned = ["objective.diversity.spread=0.1", "objective.diversity.weights=learned", "name=apart"]
    succeeds("train", "concept-diffusion", *still, *learned, "training.start_from=concepts")
    apart = open_model(newest(run)[0].id, device=torch.device("cpu"))[0].network
    succeeds("train", "concept-diffusion", *still, "training.start_from=apart", "name=together")
    together = dict(open_model(newest(run)[0].id, device=torch.device("cpu"))[0].network.named_parameters())
    assert {name for name, _ in apart.named_parameters()} - together.keys() == {"term_weights.logits"}
    for name, weight in together.items():
        torch.testing.assert_close(weight, apart.get_parameter(name), atol=1e-6, rtol=0.0)


def test_a_network_without_concepts_is_told_so(run):
    assert "network.kind=concept" in refused("evaluate", "seeing", "--task", "concepts")


def test_a_prompt_is_gone_on_from_by_as_many_tokens_as_in_training(run):
    (line,) = succeeds("sample", "concepts", "--prompt", "abcde", "--json").objects
    assert bytes(line["ids"][:5]) == b"abcde"
    assert line["length"] == len(line["ids"]) == 5 + 8
    (line,) = succeeds("sample", "concepts", "--prompt", "abcde", "--length", 16, "--json").objects
    assert line["length"] == 16
    assert "answers prompts" in refused("sample", "concepts")
    assert "without [MASK]" in refused("sample", "concepts", "--prompt", "ab[MASK*3]c")
    (line,) = succeeds(
        "sample", "concepts", "--prompt", "abc", "--sampler", "confidence", "--guidance", 1, "--json"
    ).objects
    assert bytes(line["ids"][:3]) == b"abc"


def test_suffixes_are_judged_beside_those_of_other_rows(run, finished):
    shutil.copytree(next(finished("ar-file").glob("ar-*")), run / "judge")
    tasks = ["--task", "quality", "--task", "judged", "--judge", run / "judge" / "model"]
    found = succeeds("evaluate", "concepts", *tasks, "--count", 4, "--json").objects
    figures = {figure["name"]: figure for figure in found}
    judged = figures["judged_nats_per_token"]
    assert judged["protocol"]["given"] == 8
    assert judged["protocol"]["length"] == 8
    assert {"held-out text", "ends of other rows"} <= set(judged["trivial"])
    assert figures["entropy"]["n"] == 4
    words = refused("evaluate", "concepts", *tasks, "--count", 4, "--length", 12)
    assert "samples go on from held-out rows" in words


def test_noise_of_such_texts_is_refused_in_one_line(run):
    assert "reads given tokens apart" in refused("evaluate", "concepts", "--task", "exact-likelihood")
