"""`remask interpolate`: texts between two, through their noise."""

import pytest
from command import BYTES, refused, succeeds


def test_the_ends_are_the_texts_and_the_way_lies_between(trained):
    *texts, summary = succeeds(
        "interpolate", "last", "the list of if", "a value is not", "--count", 4, "--json"
    ).objects
    assert [line["share"] for line in texts] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert (texts[0]["text"], texts[-1]["text"]) == ("the list of if", "a value is not")
    assert (texts[0]["equal_to_first"], texts[-1]["equal_to_second"]) == (1, 1)
    assert all(line["equal_to_first"] < 1 and line["equal_to_second"] < 1 for line in texts[1:-1])
    assert texts[0]["equal_to_second"] == summary["ends_equal"]
    assert 0 <= summary["fresh_equal_to_first"] < 0.5


def test_texts_of_different_lengths_are_cut_to_the_shorter_and_that_is_said(trained):
    done = succeeds("interpolate", "last", "the list", "a value is not", "--json")
    *texts, summary = done.objects
    assert (texts[0]["text"], texts[-1]["text"]) == ("the list", "a value ")
    assert summary["tokens"] == 8
    assert "8 and 14 tokens" in done.err


def test_rows_of_held_out_text_are_ends_too(trained):
    *texts, _ = succeeds("interpolate", "last", "--rows", 0, 3, "--count", 2, "--json").objects
    assert len(texts) == 2
    assert (texts[0]["equal_to_first"], texts[1]["equal_to_second"]) == (1, 1)
    assert texts[0]["text"] != texts[1]["text"]


def test_words_show_each_text_and_how_much_it_has_of_either_end(trained):
    words = succeeds("interpolate", "last", "the list of", "a value is ").out
    assert "0.00: the list of" in words
    assert "1.00: a value is" in words
    assert "fresh noise" in words


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], ["two ends are wanted"]),
        (["a"], ["two ends are wanted"]),
        (["a", "b", "--rows", 0, 1], ["two ends are wanted"]),
        (["a", "--rows", 0, 1], ["two ends are wanted"]),
        (["", "b"], ["text 1 is empty"]),
        (["a", "longer than sixteen bytes"], ["text 2 has 25 tokens"]),
        (["--rows", 0, 9999], ["--rows 9999", "Valid: 0 to"]),
        (["--rows", -1, 0], ["--rows -1"]),
        (["a", "b", "--count", 1], ["--count", "remask interpolate --help"]),
        (["a", "b", "--reveal", "x"], ["--reveal"]),
    ],
)
def test_a_mistake_is_one_line(trained, options, said):
    message = refused("interpolate", "last", *options)
    assert all(words in message for words in said), message


def test_rows_of_pairs_are_no_ends(home, tmp_path):
    (tmp_path / "pairs.jsonl").write_text("".join(f'{{"q": "{k}", "a": "yes"}}\n' for k in range(60)))
    keys = ["data.prompt_key=q", "data.response_key=a", f"data.source={tmp_path / 'pairs.jsonl'}", "data.pad=end"]
    succeeds("train", "mdlm-file", *BYTES, *keys, "data.separator='>'")
    assert "pairs" in refused("interpolate", "last", "--rows", 0, 1)
