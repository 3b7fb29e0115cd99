"""`remask evaluate --task mrpc …` through the command that a user types."""

import random
from itertools import combinations

import pytest
import torch
from command import BYTES, newest, refused, succeeds
from torch.nn import functional

from remask.data.co_occurrences import co_occurrences, company
from remask.finished import open_model
from remask.sentences.measuring import bench_of

NAMES = ["cosine", "whitened", "probe", "pair"]


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """STS-B and MRPC of few made-up sentences."""
    draw, home = random.Random(0), tmp_path_factory.mktemp("sentences")

    def sentence():
        return " ".join(draw.choices(["a man", "plays", "the flute", "a dog", "runs", "sleeps"], k=4))

    for task, column, labels in (("stsb", "score", ["0.5", "3.0", "5.0"]), ("mrpc", "label", ["0", "1"])):
        (home / task).mkdir()
        for split, count in (("train", 30), ("dev", 12), ("test", 14)):
            rows = [f"{sentence()}\t{sentence()}\t{draw.choice(labels)}" for _ in range(count)]
            rows += [f"{sentence()} {split}\tx\t{label}" for label in labels]  # each label in each split
            (home / task / f"{split}.tsv").write_text("\n".join([f"sentence1\tsentence2\t{column}", *rows]))
    return home


def test_sentence_tasks_are_measured_recorded_and_told_beside_trivial_values(trained, sentences):
    heads, before = [word for name in NAMES for word in ("--head", name)], newest(trained)[0].headline
    tune = ["--epochs", "1", "--seeds", "2", "--learning-rates", "1e-3", "--network-shares", "0.5"]
    done = succeeds("evaluate", "last", "--task", "stsb", "--sentences", sentences, *heads, *tune, "--json")
    figures = {figure["name"]: figure for figure in done.objects}
    scores = {f"stsb_{head}_{score}" for head in NAMES for score in ("spearman", "pearson")}
    assert set(figures) == scores | {f"{name}_difference" for name in scores}
    assert [line.split(":")[0] for line in done.err.splitlines()[:4]] == [f"stsb {head}" for head in NAMES]
    for figure in map(figures.__getitem__, scores):
        difference = figures[f"{figure['name']}_difference"]
        assert difference["value"] == figure["value"] - figure["trivial"][difference["protocol"]["against"]]
        assert {"majority", "bag of embeddings", "random encoder"} < set(figure["trivial"])
        assert any(name.startswith("TF-IDF") for name in figure["trivial"])
        assert (figure["protocol"]["split"], figure["protocol"]["trained_on"]) == ("test", "train")
    protocol = figures["stsb_pair_spearman"]["protocol"]
    assert (protocol["learning_rates"], protocol["network_shares"]) == ([1e-3], [0.5])
    assert (protocol["learning_rate"], protocol["network_share"]) == (1e-3, 0.5)
    assert protocol["seeds"] == protocol["random_encoders"] == 2
    (record,) = {f["task"] for f in newest(trained)[1].evaluations()}
    assert record == "stsb"
    assert newest(trained)[0].headline == before


def test_what_was_taught_first_is_said_and_what_stands_beside_learned_its_task_alone(trained, sentences):
    tune = ["--epochs", "1", "--seeds", "1", "--learning-rates", "1e-3", "--taught", "mrpc", "--taught", "stsb"]
    done = succeeds(
        "evaluate", "last", "--task", "mrpc", "--sentences", sentences, "--head", "overlap", *tune, "--json"
    )
    accuracy = next(figure for figure in done.objects if figure["name"] == "mrpc_overlap_accuracy")
    protocol = accuracy["protocol"]
    assert set(protocol["taught_first"]) == {"mrpc", "stsb"}
    assert 0 < protocol["taught_first"]["mrpc"] < protocol["training_examples"]
    assert protocol["taught_beside"] == "nothing"


def test_another_split_and_fewer_examples_are_said_and_tasks_on_text_come_first(trained, sentences):
    few = ["--sentences-limit", "20", "--split", "validation", "--head", "probe"]
    done = succeeds(
        "evaluate", "last", "--task", "mrpc", "--task", "likelihood", "--sentences", sentences, *few, "--json"
    )
    names = [figure["name"] for figure in done.objects]
    assert names[0] != names[-4] == "mrpc_probe_accuracy"
    figure = done.objects[-4]
    assert figure["protocol"]["split"] == "dev"
    assert figure["protocol"]["training_examples"] == 20
    assert figure["n"] == 14


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "stsb"], "--task stsb needs --sentences FOLDER"),
        (["--task", "sick", "--sentences", "{}"], "has no sick/ for --task sick"),
        (["--task", "mrpc", "--sentences", "{}", "--head", "cosine"], "none fits --task mrpc. Valid: probe"),
        (["--task", "mrpc", "--sentences", "{}", "--head", "prob"], "did you mean 'probe'"),
        (["--task", "mrpc", "--sentences", "{}", "--learning-rates", "fast"], "--learning-rates fast: give numbers"),
        (
            ["--task", "mrpc", "--sentences", "{}", "--network-shares", "0,1"],
            "--network-shares 0,1: give numbers above 0",
        ),
        (
            ["--task", "stsb", "--sentences", "{}", "--head", "cosine", "--head", "probe", "--epochs", "9"],
            "--epochs 9: no head that is fine-tuned is asked for. Give --head: cls, via_decoder",
        ),
        (
            ["--task", "stsb", "--sentences", "{}", "--head", "probe", "--network-shares", "0.2"],
            "--network-shares 0.2: no head that is fine-tuned",
        ),
        (
            ["--task", "stsb", "--sentences", "{}", "--head", "cosine", "--sentences-limit", "20"],
            "--sentences-limit 20: no head that is asked for reads training examples",
        ),
        (["--task", "mrpc", "--sentences", "{}", "--head", "all", "--head", "bogus"], "--head bogus is unknown"),
        (
            ["--task", "mrpc", "--sentences", "{}", "--head", "probe", "--head", "slots"],
            "--head slots fits no task that is asked for. Valid: of --task mrpc probe, slot_probe, overlap_probe, cls",
        ),
        (["--task", "mrpc", "--sentences", "{}", "--head", "pair", "--taught", "mrcp"], "--taught mrcp is unknown"),
        (["--task", "mrpc", "--sentences", "{}", "--taught", "mrpc"], "no head that is fine-tuned on pairs"),
        (
            ["--task", "mrpc", "--sentences", "{}", "--head", "pair", "--taught", "mrpc", "--sentences-limit", "20"],
            "--taught together with --sentences-limit",
        ),
        (["--task", "likelihood", "--sentences", "{}"], "--sentences is given, and of the tasks likelihood none reads"),
        (["--task", "stsb", "--sentences", "{}", "--count", "4"], "--count is given, and of the tasks stsb none"),
        (["--task", "stbs"], "did you mean 'stsb'"),
    ],
)
def test_a_mistake_with_sentences_is_one_line_and_judges_nothing(trained, sentences, options, said):
    message = refused("evaluate", "last", *(str(sentences) if word == "{}" else word for word in options))
    assert said in message
    assert newest(trained)[1].evaluations() == []


def test_a_head_that_a_model_cannot_have_is_refused_before_anything_is_measured(trained, sentences):
    tasks = ["--task", "likelihood", "--task", "mrpc", "--sentences", sentences]
    assert "has no decoder that reads concepts" in refused("evaluate", "last", *tasks, "--head", "via_decoder")
    assert newest(trained)[1].evaluations() == []


def test_too_few_training_examples_are_refused_before_anything_is_measured(trained, tmp_path):
    (tmp_path / "mrpc").mkdir()
    for split, count in (("train", 8), ("test", 8)):
        rows = [f"{split} {k}\tother {split} {k}\t{k % 2}" for k in range(count)]
        (tmp_path / "mrpc" / f"{split}.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *rows]))
    tasks = ["--task", "likelihood", "--task", "mrpc", "--sentences", tmp_path, "--head", "probe"]
    assert "8 training examples are too few" in refused("evaluate", "last", *tasks)
    assert newest(trained)[1].evaluations() == []


def test_how_rare_tokens_are_is_counted_in_the_text_and_told_to_the_random_encoder_too(home, text):
    rare = ["network.rarity=0.01", "network.letters={buckets: 64}"]
    succeeds("train", "concept-contrastive", *BYTES, *rare, f"data.source={text}")
    model, recipe = open_model("last", device=torch.device("cpu"))
    shares = model.network.rarity.shares
    blank, absent = (int(model.tokenizer.encode(letter).ids[0]) for letter in (" ", "~"))
    assert float(shares[blank]) > 0.1 > 0.0 == float(shares[absent])
    draws = [each.network for each in bench_of(model, recipe, draws=2).random]
    assert all(torch.equal(draw.rarity.shares, shares) for draw in draws)
    tables = [network.embedding.weight for network in (model.network, *draws)]
    assert not any(torch.equal(one, other) for one, other in combinations(tables, 2))


COMPANY = ["network.width=24", "network.heads=2", "network.co_occurrence={window: 3}", "training.precision=float32"]


def company_of(text, *more):
    """Trains a step or three; the table of what tokens stand near, the model, and its recipe."""
    succeeds("train", "concept-context", *BYTES, *COMPANY, *more, f"data.source={text}")
    model, recipe = open_model("last", device=torch.device("cpu"))
    return model.network.co_occurrence.table, model, recipe


def test_what_tokens_stand_near_is_counted_in_all_sources_and_not_told_to_the_random_encoder(home, text, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("a~b a~c a~d\n\n" * 40)
    before, model, recipe = company_of(text)
    drawn = [each.network.co_occurrence.table for each in bench_of(model, recipe, draws=2).random]
    assert not any(torch.equal(one, another) for one, another in combinations([before, *drawn], 2))
    from remask.config.build.text import build_text

    parts = [build_text(recipe, cache=tmp_path / "cache").stores["train"]]
    expected = company(co_occurrences(parts[0], window=3), width=8)
    met = torch.from_numpy(expected).any(-1)
    torch.testing.assert_close(before[met], torch.from_numpy(expected)[met], atol=1e-4, rtol=1e-4)
    mixed, model, recipe = company_of(text, f"data.mixture=[{{source: {other}, weight: 0.5}}]")
    found = build_text(recipe, cache=tmp_path / "cache")
    counts = [co_occurrences(store, window=3) for store in (found.stores["train"], *found.others)]
    heavy = counts[0] / counts[0].sum() + 0.5 * counts[1] / counts[1].sum()
    expected = torch.from_numpy(company(heavy, width=8))
    near = [functional.normalize(each[expected.any(-1)], dim=-1) for each in (mixed, expected)]
    torch.testing.assert_close(near[0] @ near[0].T, near[1] @ near[1].T, atol=1e-3, rtol=1e-3)
    assert expected[int(model.tokenizer.encode("~").ids[0])].any()


def test_a_run_that_starts_from_an_encoder_keeps_the_company_that_it_learned_by(home, text, tmp_path):
    first, *_ = company_of(text)
    again, *_ = company_of(text, "training.start_from=last", "data.max_documents=1")
    assert torch.equal(again, first)
    plain = [part for part in COMPANY if "co_occurrence" not in part]
    succeeds("train", "concept-context", *BYTES, *plain, f"data.source={text}")
    fresh, *_ = company_of(text, "training.start_from=last")
    torch.testing.assert_close(fresh, first)


def test_a_text_in_which_no_tokens_keep_company_is_refused(home, tmp_path):
    (tmp_path / "a.txt").write_text("a" * 3000 + "\n\n" + "a" * 3000)
    said = refused("train", "concept-context", *BYTES, *COMPANY, f"data.source={tmp_path / 'a.txt'}")
    assert "network.co_occurrence: no two tokens of the training text stand near each other oftener" in said
