"""`remask resample`: part of a text drawn anew, with the noise of the rest held."""

import pytest
from command import newest, refused, succeeds

TEXT = "the list of if"


def by_way(lines):
    return {line["way"]: line for line in lines if line["kind"] == "text"}


def test_a_span_is_drawn_anew_in_three_ways_and_the_held_text_stays(trained):
    *texts, summary = succeeds("resample", "last", TEXT, "--span", "list", "--json").objects
    ways = by_way(texts)
    assert list(ways) == ["noise held", "text held", "all fresh"]
    assert all(line["from"] == TEXT for line in texts)
    assert all((line["tokens_held"], line["tokens_fresh"]) == (10, 4) for line in texts)
    assert ways["text held"]["text"].startswith("the ")
    assert ways["text held"]["text"].endswith(" of if")
    assert summary["ways"]["text held"]["kept_of_held"] == 1
    assert summary["ways"]["all fresh"]["kept_of_held"] < summary["ways"]["noise held"]["kept_of_held"]


def test_tokens_before_a_span_stay_when_tokens_are_revealed_from_the_left(trained):
    options = ["--span", "of", "--reveal", "left_to_right", "--steps", 7, "--count", 5, "--json"]
    *texts, _ = succeeds("resample", "last", TEXT, *options).objects
    held = [line["text"] for line in texts if line["way"] == "noise held"]
    assert len(held) == 5
    assert all(words.startswith("the list") for words in held), "seven rounds of two tokens"
    assert len(set(held)) > 1, "each has noise of its own"


def test_a_share_of_held_out_rows_gives_shares_with_errors_over_texts(trained):
    *texts, summary = succeeds("resample", "last", "--rows", 6, "--share", 0.25, "--count", 2, "--json").objects
    assert len(texts) == 3 * 6 * 2
    assert {line["source"] for line in texts} == set(range(6))
    assert summary["tokens_fresh"] == 6 * 2 * 4
    assert summary["tokens_held"] == 6 * 2 * 12
    for name, way in summary["ways"].items():
        kept = sum(line["kept_of_held"] for line in texts if line["way"] == name)
        assert way["kept_of_held"] == pytest.approx(kept / summary["tokens_held"])
        assert way["kept_of_held_stderr"] is not None


def test_the_same_seed_draws_the_same_and_another_seed_does_not(trained):
    one, two, other = (
        succeeds("resample", "last", TEXT, "--share", 0.5, "--steps", 2, "--seed", seed, "--json").out
        for seed in (1, 1, 2)
    )
    assert one == two
    assert one != other


def test_words_show_the_texts_and_a_table_of_the_ways(trained):
    words = succeeds("resample", "last", TEXT, "--span", "if").out
    assert words.startswith("noise held: ")
    assert "text held: the list of " in words
    assert "kept of 12 held" in words
    assert "nats/token" in words


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([TEXT], ["--span and --share", "neither"]),
        ([TEXT, "--span", "of", "--share", 0.3], ["both are given"]),
        ([TEXT, "--span", "off"], ["'off' is not in the text"]),
        ([TEXT, "--span", "i"], ["stands in the text 2 times"]),
        ([TEXT, "--span", ""], ["--span is empty"]),
        ([TEXT, "--share", 0], ["--share: 0.0 given", "above 0"]),
        ([TEXT, "--share", 1.01], ["--share: 1.01 given"]),
        ([TEXT, "--share", "nan"], ["--share: nan given"]),
        ([TEXT, "--share", 0.3, "--count", 0], ["--count", "remask resample --help"]),
        (["--rows", 2, "--span", "of"], ["Give --share with --rows"]),
        (["", "--share", 0.3], ["the text is empty"]),
        (["longer than sixteen bytes", "--share", 0.3], ["25 tokens"]),
        (["--share", 0.3], ["no text is given"]),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(trained, options, said):
    folder = newest(trained)[1]
    before = sorted(path.name for path in folder.path.iterdir())
    message = refused("resample", "last", *options)
    assert all(words in message for words in said), message
    assert sorted(path.name for path in folder.path.iterdir()) == before
