import pytest
from command import BYTES, newest, refused, succeeds, write_text

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


def test_one_task_is_judged_alone_and_the_test_split_too(trained):
    names = [f["name"] for f in succeeds("evaluate", "last", "--task", "quality", *FEW, "--json").objects]
    assert "entropy" in names
    assert "bits_per_byte" not in names
    figures = succeeds("evaluate", "last", "--task", "likelihood", "--split", "test", "--json").objects
    assert figures[0]["protocol"]["split"] == "test"


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
