"""`remask encode` and `remask decode`: text → noise → text."""

import math

import pytest
import torch
from command import BYTES, newest, refused, run_folders, succeeds
from safetensors import safe_open

from remask.config.saved import load_model


@pytest.fixture
def noise(trained, tmp_path):
    """A file of noise of this test's run."""
    path = tmp_path / "noise.safetensors"
    succeeds("encode", "last", "the list of", "a value is", "--steps", 5, "--noise", path)
    return path


@pytest.mark.parametrize("reveal", ["spread", "margin"])
def test_every_held_out_row_returns_whatever_the_order(trained, reveal):
    *texts, summary = succeeds("encode", "last", "--rows", 1000, "--reveal", reveal, "--steps", 5, "--json").objects
    assert summary["exceptions"] == summary["exceptions_float32"] == summary["tokens_differing"] == 0
    assert summary["texts"] == len(texts) > 32, "more than one batch"
    assert all(text["returns"] for text in texts)
    assert sum(text["log_p"] for text in texts) == pytest.approx(summary["log_p"])
    assert (summary["reveal"], summary["steps"]) == (reveal, 5)


def test_one_step_has_the_probability_of_tokens_that_are_independent_given_nothing(trained):
    """Against softmax of the saved network on a row of masks."""
    text = "the list of"
    line, _ = succeeds("encode", "last", text, "--steps", 1, "--json").objects
    model, _ = load_model(newest(trained)[1].model_path, device=torch.device("cpu"))
    z = torch.full((1, len(text)), model.mask_id)
    logits = model.logits(z, torch.ones(1), positions=torch.ones_like(z, dtype=torch.bool)).detach().double()
    logits[:, model.mask_id] = -torch.inf
    nats = -logits.log_softmax(-1)[torch.arange(len(text)), torch.tensor(list(text.encode()))].sum()
    assert line["log_p"] == pytest.approx(-float(nats), abs=1e-4)
    assert line["bits_per_byte"] == pytest.approx(float(nats) / math.log(2) / len(text), abs=1e-5)
    assert line["bits_per_byte_uniform"] == pytest.approx(math.log2(257))
    several, _ = succeeds("encode", "last", text, "--steps", 11, "--json").objects
    assert several["log_p"] != pytest.approx(line["log_p"], abs=1e-4), "another sampler has another probability"


def test_held_out_rows_stand_beside_what_predictors_without_a_network_pay(trained):
    *_, summary = succeeds("encode", "last", "--rows", 3, "--json").objects
    assert {"uniform", "unigram", "byte 5-gram"} <= set(summary["trivial_bits_per_byte"])
    assert 0 <= summary["ks_p"] <= 1
    assert 0 < summary["ks_statistic"] < 1
    assert 0 < summary["ks_statistic_uniform"] < 1
    words = succeeds("encode", "last", "--rows", 3).out
    assert "texts that decoding does not return: 0 of 3" in words
    assert "byte 5-gram" in words


def test_texts_come_from_a_file_one_a_line(trained, tmp_path):
    (tmp_path / "texts.txt").write_text("the list\n\na value\n")
    *texts, _ = succeeds("encode", "last", "--texts", tmp_path / "texts.txt", "--json").objects
    assert [text["text"] for text in texts] == ["the list", "a value"]
    assert [text["tokens"] for text in texts] == [8, 7]


def test_a_file_of_noise_decodes_to_its_texts_and_says_what_it_is_of(noise, trained):
    *texts, summary = succeeds("decode", "last", noise, "--json").objects
    assert [text["text"] for text in texts] == ["the list of", "a value is"]
    assert (summary["exceptions"], summary["tokens_differing"]) == (0, 0)
    assert summary["steps"] == 5, "as it was encoded, not the recipe's 4"
    assert "2 of 2 texts return; 0 of 21 tokens differ" in succeeds("decode", "last", noise).out
    assert newest(trained)[0].id in safe_open(noise, framework="pt").metadata()["remask_noise"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--reveal", "spread"], "encoded with reveal random"),
        (["--steps", 4], "encoded with steps 5"),
        (["--seed", 9], "encoded with seed 1"),
    ],
)
def test_noise_is_not_decoded_in_another_way_than_it_was_encoded(noise, options, said):
    assert said in refused("decode", "last", noise, *options)


def test_noise_of_another_model_is_refused_with_both_named(noise, trained, text):
    first = newest(trained)[0].id
    succeeds("train", "mdlm-file", *BYTES, "seed=2", f"data.source={text}")
    message = refused("decode", "last", noise)
    assert "another model" in message
    assert first in message
    assert newest(trained)[0].id in message


def test_a_changed_or_missing_file_of_noise_is_refused(noise, tmp_path):
    content = bytearray(noise.read_bytes())
    content[-3] ^= 1
    noise.write_bytes(content)
    assert "digest" in refused("decode", "last", noise)
    noise.write_bytes(b"words")
    assert "no file of noise" in refused("decode", "last", noise)
    assert "there is no file" in refused("decode", "last", tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], ["no text is given", "--texts FILE"]),
        (["a", "--rows", 2], ["TEXT and --rows are given"]),
        (["--rows", 0], ["--rows 0"]),
        ([""], ["the text is empty"]),
        (["ab", ""], ["text 2 is empty"]),
        (["longer than sixteen bytes"], ["25 tokens", "rows of 16"]),
        (["--texts", "missing.txt"], ["cannot read", "missing.txt"]),
        (["a", "--steps", 0], ["--steps: 0 given"]),
        (["a", "--reveal", "sprad"], ["--reveal", "did you mean 'spread'"]),
        (["a", "--seed", -1], ["--seed: -1 given"]),
        (["a", "--device", "tpu"], ["device=tpu"]),
        (["a", "--noise", "no/such/folder.safetensors"], ["--noise", "no folder"]),
        (["a", "--noise", "."], ["--noise", "is a folder"]),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(trained, tmp_path, options, said):
    target = tmp_path / "noise.safetensors"
    message = refused("encode", "last", *options, *([] if "--noise" in options else ["--noise", target]))
    assert all(words in message for words in said), message
    assert not target.exists()
    assert not (tmp_path / "no").exists()


def test_a_character_that_the_tokenizer_lacks_is_named(home, text):
    succeeds("train", "mdlm-file", *BYTES, "tokenizer.kind=character", f"data.source={text}")
    assert "U+6771" in refused("encode", "last", "of 東")


def test_an_autoregressive_run_is_refused_with_what_would_do(trained_ar):
    before = run_folders(trained_ar)
    message = refused("encode", "last", "a")
    assert "autoregressive" in message
    assert "mdlm" in message
    assert run_folders(trained_ar) == before


def test_a_run_whose_noise_draws_a_token_twice_is_refused(home, text):
    succeeds("train", "mdlm-file", *BYTES, "process.kind=uniform", f"data.source={text}")
    assert "uniform noise" in refused("encode", "last", "a")


BLOCKS = ["objective.kind=block_diffusion", "objective.block_length=4", "sampling.block_length=4"]


@pytest.mark.parametrize(
    "keys",
    [
        ["network.kind=reversible"],
        BLOCKS,
    ],
    ids=["reversible", "blocks"],
)
def test_a_reversible_network_and_one_of_blocks_return_their_texts_too(home, text, keys):
    recipe = "bd3lm" if keys is BLOCKS else "mdlm-file"
    succeeds("train", recipe, *BYTES, *keys, f"data.source={text}")
    *_, summary = succeeds("encode", "last", "the list of", "a value is not", "--json").objects
    assert summary["exceptions"] == 0


def test_the_prompts_of_pairs_are_given_and_their_responses_encoded(home, tmp_path):
    rows = [f'{{"q": "{"ab"[k % 2] * (1 + k % 6)}{k}", "a": "yes"}}\n' for k in range(80)]
    (tmp_path / "pairs.jsonl").write_text("".join(rows))
    keys = ["data.prompt_key=q", "data.response_key=a", f"data.source={tmp_path / 'pairs.jsonl'}", "data.pad=end"]
    succeeds("train", "mdlm-file", *BYTES, *keys, "data.separator='>'")
    *texts, summary = succeeds("encode", "last", "--rows", 3, "--json").objects
    assert summary["exceptions"] == 0
    assert all(text["bytes"] == 3 for text in texts), "the response alone"
    assert all(text["tokens"] < 16 for text in texts)
