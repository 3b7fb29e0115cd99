import json

import pytest
from command import BYTES, newest, refused, succeeds, write_text

from pretrained_models import write_model
from remask.config.schema import EvaluationSpec
from remask.errors import RunError
from remask.evaluation.likelihood import ROWS_AT_ONCE
from remask.generation import TEXTS_AT_ONCE
from remask.runs import Registry

KEYS = ["name", "value", "unit", "n", "stderr", "trivial", "protocol"]
FEW = ["--count", "2"]


def test_json_lines_are_measurements_and_nothing_else(trained):
    done = succeeds("evaluate", "last", *FEW, "--json")
    assert done.err == ""
    names = [figure["name"] for figure in done.objects]
    assert {"nats_per_token", "bits_per_byte", "perplexity", "entropy", "longest_copy", "word_share"} <= set(names)
    for figure in done.objects:
        assert list(figure) == KEYS
        assert figure["n"] >= 1 or figure["value"] is None  # no word in any sample: no share of words
        assert figure["trivial"]
        assert figure["protocol"]
    bits = next(figure for figure in done.objects if figure["name"] == "bits_per_byte")
    assert {f"byte {order}-gram" for order in (1, 2, 3, 4, 5)} <= set(bits["trivial"])
    assert bits["protocol"]["rows"] == 4


def test_judging_twice_gives_the_same_numbers_and_a_cold_cache_does_not_change_them(trained, tmp_path, monkeypatch):
    first = succeeds("evaluate", "last", *FEW, "--json").objects
    assert succeeds("evaluate", "last", *FEW, "--json").objects == first
    monkeypatch.setenv("REMASK_CACHE", str(tmp_path / "cold"))
    assert succeeds("evaluate", "last", *FEW, "--json").objects == first


def test_figures_go_into_the_record_and_the_table_shows_them_beside_trivial_values(trained):
    done = succeeds("evaluate", "last", "--task", "likelihood")
    assert "byte 2-gram" in done.out
    (figure,) = (f for f in newest(trained)[1].evaluations() if f["name"] == "bits_per_byte")
    assert newest(trained)[0].headline["bits_per_byte"] == figure["value"]
    assert newest(trained)[0].trivial == figure["trivial"]


def test_rows_judged_a_few_at_a_time_give_the_same_figure_and_texts_say_how_many_were_drawn_at_once(trained):
    whole, few = (
        succeeds("evaluate", "last", *FEW, "--rows", 4, *more, "--json").objects for more in ([], ["--batch-size", 2])
    )
    for one, other in zip(whole, few, strict=True):
        drawn = "sampler" in other["protocol"]
        assert other["protocol"].get("texts_at_once") == (2 if drawn else None)
        assert drawn or other["value"] == pytest.approx(one["value"], rel=1e-5)
    assert refused("evaluate", "last", "--batch-size", 1).startswith("remask: --batch-size: 1 given")


def test_what_no_recipe_says_is_drawn_and_judged_as_many_at_once_as_recipes_say():
    assert EvaluationSpec().batch_size == ROWS_AT_ONCE == TEXTS_AT_ONCE  # else a protocol would tell them apart


def test_one_task_is_judged_alone_and_the_test_split_too(trained):
    names = [f["name"] for f in succeeds("evaluate", "last", "--task", "quality", *FEW, "--json").objects]
    assert "entropy" in names
    assert "bits_per_byte" not in names
    figures = succeeds("evaluate", "last", "--task", "likelihood", "--split", "test", "--json").objects
    assert figures[0]["protocol"]["split"] == "test"


def test_a_verdict_is_about_the_headline_whatever_else_was_judged(trained):
    succeeds("evaluate", "last", "--task", "likelihood")
    before = newest(trained)[0]
    succeeds("evaluate", "last", "--task", "likelihood", "--rows", 1, "--draws", 1)
    figures = [f["value"] for f in newest(trained)[1].evaluations() if f["name"] == "bits_per_byte"]
    assert before.headline["bits_per_byte"] == figures[0] != figures[1]
    assert f"{figures[0]:.2f} bits/byte" in before.verdict
    assert (newest(trained)[0].headline, newest(trained)[0].verdict) == (before.headline, before.verdict)
    succeeds("health", "last")
    assert newest(trained)[0].verdict == before.verdict


def test_an_autoregressive_likelihood_is_called_exact(trained_ar):
    figures = succeeds("evaluate", "last", "--task", "likelihood", "--json").objects
    assert figures[0]["protocol"]["likelihood"] == "exact"


@pytest.mark.parametrize("command", [["runs"], ["show", "last"], ["health", "last"], ["recipes"], ["recipes", "mdlm"]])
def test_every_listing_has_json_that_is_nothing_but_objects(trained, command):
    assert succeeds(*command, "--json").objects


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "likelyhood"], ["--task likelyhood", "did you mean 'likelihood'", "quality"]),
        (["--split", "train"], ["--split: 'train' given", "test, validation"]),
        (["--rows", 0], ["--rows: 0 given", "at least 1"]),
        (["--draws", 0], ["--draws: 0 given", "at least 1"]),
        (["--count", 1], ["--count", "2"]),
        (["--steps", 0], ["--steps: 0 given", "at least 1"]),
        (["--device", "cuda:77"], ["device=cuda:77", "auto, cpu"]),
    ],
)
def test_a_mistake_in_an_option_is_one_line_and_judges_nothing(trained, options, said):
    message = refused("evaluate", "last", *options)
    for words in said:
        assert words in message
    assert newest(trained)[1].evaluations() == []


def test_a_text_that_changed_or_went_since_training_is_one_line(trained, tmp_path):
    _, folder = newest(trained)
    own = write_text(tmp_path / "own.txt", seed=3)
    recipe = folder.recipe_path.read_text()
    source = next(line for line in recipe.splitlines() if line.strip().startswith("source:"))
    folder.recipe_path.write_text(recipe.replace(source, f"  source: {own}"))
    assert "has changed" in refused("evaluate", "last")
    own.unlink()
    assert "own.txt" in refused("evaluate", "last")
    assert folder.evaluations() == []


def test_a_split_that_the_text_lacks_is_one_line_with_those_it_has(home, text, tmp_path):
    held_out = write_text(tmp_path / "held_out.txt", seed=5)
    succeeds("train", "mdlm-file", *BYTES, f"data.source={text}", f"data.validation={held_out}")
    message = refused("evaluate", "last", "--split", "test")
    assert "no test split" in message
    assert "Valid: --split validation" in message


BESIDE = {"held-out text", "byte 1-gram samples", "byte 3-gram samples"}


def test_every_evaluation_is_recorded_with_what_was_measured_where(trained):
    succeeds("evaluate", "last", "--task", "likelihood", "--task", "quality", *FEW)
    registry = Registry(trained)
    run = registry.find("last")
    records = registry.evaluation_records(run.id)
    assert sorted(record.task for record in records) == ["likelihood", "quality"]
    for record in records:
        assert (record.status, record.checkpoint, record.step) == ("finished", f"{run.id}/model", run.step)
        assert (record.data_hash, record.tokenizer_hash) == (run.data_hash, run.tokenizer_hash)
        assert record.model_hash
        assert (record.device, record.machine is not None) == ("cpu", True)
        assert record.seconds > 0
        assert record.peak_memory_bytes > 0
    likelihood = next(record for record in records if record.task == "likelihood")
    kept = registry.examples(run.id, likelihood.id)
    assert set(kept) == {"nats_per_token", "bits_per_byte"}
    (figure,) = (row for row in registry.measurements(run.id) if row["name"] == "bits_per_byte")
    assert figure["evaluation"] == likelihood.id
    assert sum(kept["bits_per_byte"]["values"]) / sum(kept["bits_per_byte"]["weights"]) == pytest.approx(
        figure["value"]
    )


def test_models_of_one_text_are_measured_on_the_same_examples(trained, text):
    succeeds("train", "ar-file", *BYTES, f"data.source={text}")
    registry = Registry(trained)
    identities = []
    for run in ("mdlm", "ar", "ar"):
        succeeds("evaluate", run, "--task", "likelihood", *(["--rows", "3"] if len(identities) == 2 else []))
        (record, *_) = registry.evaluation_records(registry.find(run).id)
        identities.append(registry.examples(record.run_id, record.id)["bits_per_byte"]["identity"])
    assert identities[0] == identities[1] != identities[2]


def test_an_evaluation_that_fails_is_recorded_as_failed_and_a_refused_one_not_at_all(trained, monkeypatch):
    def fail(*arguments):
        raise RunError("the disk is full")

    assert "autoregressive run" in refused("evaluate", "last", "--task", "judged")
    refused("evaluate", "last", "--task", "answers")
    assert Registry(trained).evaluation_records() == []
    monkeypatch.setattr("remask.judgement.tasks.judge_likelihood", fail)
    refused("evaluate", "last", "--task", "likelihood", code=1)
    (record,) = Registry(trained).evaluation_records()
    assert (record.status, record.error) == ("failed", "the disk is full")


def test_quality_says_how_alike_samples_are_and_how_much_of_them_is_training_text(trained):
    figures = {f["name"]: f for f in succeeds("evaluate", "last", "--task", "quality", *FEW, "--json").objects}
    assert {"self_bleu", "overlap_4", "overlap_8", "overlap_16", "distinct_2", "repetition"} <= set(figures)
    assert all(set(figure["trivial"]) == BESIDE for figure in figures.values())
    overlap = figures["overlap_4"]["trivial"]
    assert overlap["held-out text"] > overlap["byte 1-gram samples"]


def test_the_loss_by_level_of_noise_stands_beside_trivial_predictors(trained):
    done = succeeds("evaluate", "last", "--task", "levels", "--levels", "3", "--json")
    figures = done.objects
    assert [f["name"] for f in figures] == ["nats_at_level"] * 3
    assert [f["protocol"]["t_low"] for f in figures][1:] == [f["protocol"]["t_high"] for f in figures][:-1]
    assert figures[-1]["protocol"]["t_high"] == 1.0
    assert all(set(f["trivial"]) == {"uniform", "unigram"} for f in figures)
    worse = sum(not f["value"] < f["trivial"]["unigram"] for f in figures)
    assert done.err.count("NO BETTER THAN THE UNIGRAM") == worse > 0, "three steps of training beat nothing"
    table = succeeds("evaluate", "last", "--task", "levels", "--levels", "3").out
    assert table.count("← no better than the unigram") == worse
    assert "skill" in table
    assert figures[0]["protocol"]["draws_a_level"] == 1
    assert {f["protocol"]["noise"] for f in figures} == {"masking, schedule linear"}
    assert len(Registry(trained).measurements()) == 6


def test_an_autoregressive_model_has_no_levels_of_noise(trained_ar):
    assert "--task likelihood" in refused("evaluate", "last", "--task", "levels")
    assert Registry(trained_ar).evaluation_records() == []


def test_samples_are_judged_by_a_causal_model_in_a_folder(trained, tmp_path):
    judge = write_model(tmp_path / "tiny-gpt2", "gpt2")
    done = succeeds("evaluate", "last", "--task", "judged", "--judge", judge, "--count", 3, "--json")
    figures = {figure["name"]: figure for figure in done.objects}
    assert set(figures) == {"judged_nats_per_token", "judged_perplexity", "judged_bits_per_byte", "entropy"}
    for figure in figures.values():
        assert set(figure["trivial"]) == BESIDE
        assert (figure["n"], figure["protocol"]["judge"]) == (3, "tiny-gpt2")
        assert figure["protocol"]["judge_start"] == "<|endoftext|>"
    assert done.err == ""


@pytest.mark.parametrize("of", ["folder", "run"])
def test_mauve_stands_beside_other_held_out_text_and_warns_of_few_texts(trained, tmp_path, of):
    features = write_model(tmp_path / "tiny", "llama") if of == "folder" else newest(trained)[0].id
    done = succeeds("evaluate", "last", "--task", "mauve", "--features", features, "--count", 4, "--json")
    (figure,) = done.objects
    assert figure["name"] == "mauve"
    assert set(figure["trivial"]) == {"other held-out text", "byte 1-gram samples", "byte 3-gram samples"}
    assert figure["protocol"]["features"] == ("tiny" if of == "folder" else features)
    assert figure["protocol"]["features_state"] == ("last token" if of == "folder" else "mean over places")
    assert (figure["protocol"]["samples"], figure["protocol"]["buckets"]) == (4, 2)
    assert "MAUVE of 4 texts in 2 buckets" in done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "judged", "--judge", "gpt2-large"], "hf download gpt2-large --local-dir FOLDER"),
        (["--task", "mauve"], "--features RUN"),
        (["--features", "last"], "add --task mauve"),
        (["--task", "levels", "--levels", 0], "--levels"),
        (["--task", "level"], "did you mean 'levels'"),
    ],
)
def test_a_model_that_is_missing_or_not_needed_is_one_line(trained, options, said):
    assert said in refused("evaluate", "last", *options)


def test_words_of_the_training_text_are_collected_once(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("REMASK_CACHE", str(tmp_path / "cold"))
    first = succeeds("evaluate", "last", "--task", "quality", *FEW, "--json").objects

    def walk(*arguments):
        raise AssertionError("the text is walked again")

    monkeypatch.setattr("remask.judgement.text.corpus_words", walk)
    assert succeeds("evaluate", "last", "--task", "quality", *FEW, "--json").objects == first


@pytest.mark.parametrize(
    ("option", "task", "reader"),
    [
        (["--levels", 5], "likelihood", "levels, thought"),
        (["--rows", 4], "quality", "likelihood, exact-likelihood, levels, concepts, thought, reconstruction"),
        (["--draws", 4], "quality", "likelihood, levels, concepts, thought, reconstruction"),
        (["--count", 4], "likelihood", "thought, quality, answers, judged, mauve"),
        (["--steps", 4], "likelihood", "exact-likelihood, thought, quality, answers, judged, mauve, reasoning tasks"),
    ],
)
def test_an_option_that_no_task_reads_is_refused(trained, option, task, reader):
    said = refused("evaluate", "last", "--task", task, *option)
    assert said.startswith(f"remask: {option[0]} is given, and of the tasks {task} none reads it")
    assert said.endswith(f"Tasks that do: {reader}")


def test_a_model_whose_recipe_is_refused_today_is_not_called_damaged(trained):
    path = newest(trained)[1].model_path / "config.json"
    record = json.loads(path.read_text())
    record["recipe"]["network"]["width"] = 0
    path.write_text(json.dumps({key: value for key, value in record.items() if key != "seal"}))
    message = refused("evaluate", "last")
    assert "has a recipe that this version refuses (network." in message
    assert "greater than or equal to" in message
