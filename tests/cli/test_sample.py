import json

import pytest
from command import BYTES, newest, refused, succeeds

from remask.cli.options import changed_recipe
from remask.recipes import read_recipe
from remask.runs import RunFolder


def test_json_is_one_object_a_text_and_nothing_else(trained):
    done = succeeds("sample", "last", "--count", 3, "--json")
    assert len(done.objects) == 3
    assert done.err == ""
    record, folder = newest(trained)
    for line in done.objects:
        assert line["run"] == record.id
        assert {"step", "sampler", "steps", "seed", "temperature", "top_p", "length", "prompt", "text", "ids"} <= set(
            line
        )
    assert folder.samples()[-3:] == done.objects


def test_the_same_seed_draws_the_same_and_another_seed_does_not(trained):
    one, two, other = (succeeds("sample", "last", "--seed", seed, "--json").objects for seed in (5, 5, 6))
    assert one == two
    assert one[0]["ids"] != other[0]["ids"]


@pytest.mark.parametrize("sampler", ["ancestral", "confidence"])
def test_infilling_keeps_the_fixed_text_in_its_place(trained, sampler):
    prompt = "ab[MASK*4]cd[MASK]!"
    (line,) = succeeds("sample", "last", "--prompt", prompt, "--sampler", sampler, "--json").objects
    ids = line["ids"]
    assert bytes(ids[:2]) == b"ab"
    assert bytes(ids[6:8]) == b"cd"
    assert bytes([ids[9]]) == b"!"
    assert line["text"].startswith("ab")
    assert "cd" in line["text"]
    assert line["prompt"] == prompt
    assert 257 not in ids, "no mask is left"


def test_a_prompt_without_a_gap_is_a_prefix_for_an_autoregressive_model_too(trained_ar):
    (line,) = succeeds("sample", "last", "--prompt", "the list", "--json").objects
    assert line["text"].startswith("the list")
    assert line["sampler"] == "left_to_right"


def test_live_shows_each_state_on_stderr_and_leaves_stdout_to_the_texts(trained):
    done = succeeds("sample", "last", "--steps", 4, "--live", "--json")
    assert len(done.objects) == 1
    assert "step 4/4" in done.err
    assert "░" in done.err


def test_a_sample_may_be_shorter_than_a_row_and_needs_no_more_steps_than_one(trained):
    (line,) = succeeds("sample", "last", "--length", 5, "--steps", 1, "--json").objects
    assert len(line["ids"]) == 5
    assert line["steps"] == 1


def test_the_course_of_the_first_text_is_kept_as_it_was_drawn(trained):
    (line,) = succeeds("sample", "last", "--prompt", "ab[MASK*4]cd", "--json").objects
    course = json.loads(newest(trained)[1].trajectory_path.read_text())
    assert len(course["tokens"]) == len(line["ids"])
    assert course["revealed"][:2] == [0, 0]
    assert all(step > 0 for step in course["revealed"][2:6])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--length", 17], ["length 17", "1 to 16"]),
        (["--length", 0], ["--length: 0 given", "at least 1"]),
        (["--count", 0], ["--count: 0 given", "at least 1"]),
        (["--steps", 0], ["--steps: 0 given", "at least 1"]),
        (["--steps", 10**13], ["--steps: 10000000000000 given", "1000000"]),
        (["--steps", "many"], ["--steps", "remask sample --help"]),
        (["--top-p", 0], ["--top-p: 0.0 given", "above 0 and at most 1"]),
        (["--top-p", 1.5], ["--top-p: 1.5 given", "above 0 and at most 1"]),
        (["--temperature", 0], ["--temperature: 0.0 given", "above 0"]),
        (["--temperature", "nan"], ["--temperature", "above 0"]),
        (["--seed", -1], ["--seed: -1 given", "at least 0"]),
        (["--sampler", "ancestrl"], ["--sampler", "did you mean 'ancestral'", "left_to_right"]),
        (["--sampler", "left_to_right"], ["--sampler: left_to_right given", "--sampler ancestral"]),
        (["--device", "tpu"], ["device=tpu", "auto, cpu"]),
        (["--prompt", "longer than sixteen bytes"], ["25 tokens", "has 16", "Shorten"]),
        (["--prompt", "exactly16letters"], ["fills all 16", "[MASK*20]"]),
        (["--prompt", "a[MASK*99999999999]b"], ["and a sample has 16", "Shorten"]),
        (["--prompt", "a[MASK*0]b"], ["[MASK*0]", "[MASK*20]"]),
        (["--prompt", "a[MASK*-1]b"], ["[MASK*-1]", "[MASK*20]"]),
        (["--prompt", "a[MASK*two]b"], ["[MASK*two]", "[MASK*20]"]),
        (["--bogus", 1], ["no option --bogus", "--top-p"]),
        (["too", "many"], ["extra argument", "too"]),
    ],
)
def test_a_mistake_in_an_option_is_one_line_and_draws_nothing(trained, options, said):
    _, folder = newest(trained)
    before = folder.samples_path.read_bytes()
    message = refused("sample", "last", *options)
    for words in said:
        assert words in message
    assert folder.samples_path.read_bytes() == before


def test_steps_for_an_autoregressive_model_are_refused(trained_ar):
    assert "Leave --steps out" in refused("sample", "last", "--steps", 4)
    assert "Leave --steps out" in refused("evaluate", "last", "--steps", 4)


def test_a_diffusion_sampler_for_an_autoregressive_model_is_refused_with_the_one_that_fits(trained_ar):
    assert "--sampler left_to_right" in refused("sample", "last", "--sampler", "ancestral")


def test_a_confidence_sampler_for_uniform_noise_is_refused_with_the_one_that_fits(home, text):
    succeeds("train", "mdlm-file", *BYTES, "process.kind=uniform", f"data.source={text}")
    assert "--sampler ancestral" in refused("sample", "last", "--sampler", "confidence")


def test_a_prompt_with_a_character_that_the_tokenizer_lacks_is_one_line_that_names_it(home, text):
    succeeds("train", "mdlm-file", *BYTES, "tokenizer.kind=character", f"data.source={text}")
    message = refused("sample", "last", "--prompt", "of 東")
    assert "東" in message
    assert "U+6771" in message


def test_naming_the_recipes_own_sampler_keeps_its_keys_and_another_gives_them_up(tmp_path):
    (tmp_path / "recipe.yaml").write_text(read_recipe("bijective"), encoding="utf-8")
    kept, given_up = (
        changed_recipe(RunFolder(tmp_path), {"sampling.sampler": name}) for name in ("bijective", "ancestral")
    )
    assert (kept.sampling.reveal, given_up.sampling.reveal) == ("spread", None)
