"""Prompts from a file, texts that stop, runs that answer prompts, and samples judged by another run."""

import json

import pytest
from command import BYTES, newest, refused, succeeds

from remask.cli import meter

PAIRS = [*BYTES, "data.prompt_key=q", "data.response_key=a", "data.separator='>'", "sampling.stop=true"]


@pytest.fixture
def pairs(tmp_path):
    """A file of questions of several lengths, all answered alike."""
    rows = [{"q": "ab"[k % 2] * (1 + k % 6) + str(k), "a": "yes"} for k in range(80)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "pairs.jsonl"


@pytest.fixture
def answering(home, pairs):
    """A run that was trained on pairs."""
    succeeds("train", "mdlm-file", *PAIRS, f"data.source={pairs}", "data.pad=end", "training.prompt_dropout=0.2")
    return newest(home)


def test_each_line_of_a_file_is_a_prompt_of_its_own_length(trained, tmp_path):
    (tmp_path / "prompts.txt").write_text("a\n\nabcdefgh\nab[MASK*3]yz\n")
    lines = succeeds("sample", "last", "--prompts", tmp_path / "prompts.txt", "--json").objects
    assert [line["prompt"] for line in lines] == ["a", "abcdefgh", "ab[MASK*3]yz"]
    starts = [bytes(i for i in line["ids"] if i < 256) for line in lines]
    assert [start[: len(p)] for start, p in zip(starts, (b"a", b"abcdefgh", b"ab"), strict=True)] == [
        b"a",
        b"abcdefgh",
        b"ab",
    ]
    assert bytes(lines[2]["ids"][5:7]) == b"yz"
    twice = succeeds("sample", "last", "--prompts", tmp_path / "prompts.txt", "--count", 2, "--json").objects
    assert [line["prompt"] for line in twice] == [p for line in lines for p in [line["prompt"]] * 2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\n \n", ["holds no prompt"]),
        (b"\xff\n", ["is not UTF-8"]),
        (b"a\nlonger than sixteen bytes\n", ["prompt 2", "25 tokens", "has 16"]),
        (None, ["cannot read"]),
    ],
)
def test_a_mistake_in_a_file_of_prompts_is_one_line(trained, tmp_path, content, said):
    if content is not None:
        (tmp_path / "prompts.txt").write_bytes(content)
    message = refused("sample", "last", "--prompts", tmp_path / "prompts.txt")
    assert all(words in message for words in said)


def test_long_draws_say_how_far_they_are(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(meter, "EVERY", 0.0)
    (tmp_path / "prompts.txt").write_text("a\n" * 70)
    done = succeeds("sample", "last", "--prompts", tmp_path / "prompts.txt", "--json")
    assert [line.split(",")[0] for line in done.err.splitlines()] == ["drawn: 32 of 70 texts", "drawn: 64 of 70 texts"]
    assert len(done.objects) == 70


def test_a_prompt_and_a_file_of_prompts_are_not_taken_together(trained, tmp_path):
    assert "both given" in refused("sample", "last", "--prompt", "a", "--prompts", tmp_path / "prompts.txt")


def test_stopping_cuts_the_text_behind_its_prompt_and_keeps_every_token(trained):
    prompt = ["--prompt", "ab", "--seed", 3, "--count", 40, "--json"]
    whole = succeeds("sample", "last", *prompt, "--no-stop").objects
    stopped = succeeds("sample", "last", *prompt, "--stop").objects
    assert [line["ids"] for line in whole] == [line["ids"] for line in stopped]
    assert any(256 in line["ids"] for line in stopped), "untrained: an end of text comes up"
    for line, long in zip(stopped, whole, strict=True):
        end = line["ids"].index(256) if 256 in line["ids"] else None
        assert line["text"] == bytes(i for i in line["ids"][:end] if i < 256).decode(errors="replace")
        assert long["text"].startswith("ab")
    assert (stopped[0]["stop"], "stop" in whole[0]) == (True, False)


def test_a_run_on_pairs_shows_samples_of_held_out_prompts(answering):
    record, folder = answering
    (line,) = folder.samples()
    assert line["prompt"].endswith(">")
    assert bytes(line["ids"][: len(line["prompt"])]).decode() == line["prompt"]
    course = json.loads(folder.trajectory_path.read_text())
    assert course["revealed"][: len(line["prompt"])] == [0] * len(line["prompt"])
    assert record.status == "finished"


def test_a_run_on_pairs_is_judged_by_likelihood_and_answers(answering):
    figures = {figure["name"]: figure for figure in succeeds("evaluate", "last", "--count", 4, "--json").objects}
    assert {"bits_per_byte", "answers_right", "answers_equal", "answers_ended"} <= set(figures)
    right = figures["answers_right"]
    assert right["trivial"] == {"most common response": 1.0}
    assert right["protocol"]["checker"] == "exact"
    assert right["protocol"]["sampler"] == "ancestral"
    assert right["protocol"]["steps"] == 4
    assert figures["bits_per_byte"]["protocol"]["targets"] == "responses"


def test_a_run_on_pairs_wants_a_prompt_and_ends_it_as_in_training(answering):
    assert "--prompts" in refused("sample", "last")
    (line,) = succeeds("sample", "last", "--prompt", "aaa7", "--guidance", 1, "--json").objects
    assert line["prompt"] == "aaa7>"
    assert "--task answers" in refused("evaluate", "last", "--task", "quality")


def test_plain_text_has_no_answers_to_judge(trained):
    assert "data.prompt_key and data.response_key" in refused("evaluate", "last", "--task", "answers")


def test_samples_are_judged_by_an_autoregressive_run_beside_held_out_text(trained, text):
    succeeds("train", "ar-file", *BYTES, f"data.source={text}", "data.length=12")
    judge = newest(trained)[0].id
    figures = succeeds("evaluate", "mdlm", "--task", "judged", "--judge", judge, "--count", 3, "--json").objects
    names = ["judged_nats_per_token", "judged_perplexity", "judged_bits_per_byte", "entropy"]
    assert [figure["name"] for figure in figures] == names
    for figure in figures:
        assert set(figure["trivial"]) == {"held-out text", "byte 1-gram samples", "byte 3-gram samples"}
        assert (figure["n"], figure["protocol"]["judge"], figure["protocol"]["judge_row"]) == (3, judge, 12)
    assert "is a bound" in refused("evaluate", judge, "--task", "judged", "--judge", "mdlm")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "judged"], "--judge RUN"),
        (["--judge", "last"], "add --task judged"),
        (["--task", "judgd"], "did you mean 'judged'"),
        (["--block-length", 0], "--block-length: 0 given"),
        (["--guidance", -1], "--guidance: -1.0 given"),
    ],
)
def test_a_mistake_in_an_option_of_evaluate_is_one_line(trained, options, said):
    assert said in refused("evaluate", "last", *options)
