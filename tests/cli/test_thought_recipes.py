"""Recipes of thoughts through the commands: train, stop and resume, save, draw, judge, refuse."""

import json
import os
import signal

import pytest
import torch
from command import QUESTIONS, newest, refused, remask, succeeds
from safetensors.torch import load_file

from pretrained_models import write_mixture, write_model
from remask.cli.progress import PlainWatcher
from remask.config.build import build_thinker, valid_samplers
from remask.config.load import load_recipe
from remask.finished import open_model
from remask.generation import encode_prompts
from remask.networks.thought import PretrainedTrunk
from remask.randomness import keyed_generator
from remask.reasoning import write_answers
from remask.recipes import recipe_names
from remask.samplers.base import silent

OF_FILES = ("thought-gsm8k-eq",)
LARGE = ("thought-gsm8k-a100", "thought-t4")
CODECS = ("thought-codec", "thought-vae")  # the second stands on the first: test_codec_recipes.py
APART = (*OF_FILES, *LARGE, *CODECS)
NAMES = [name for name in recipe_names() if name.startswith("thought-") and name not in APART]
GSM8K_TRAIN = 6756  # of the 7,473 problems of its file; the others validate and test


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_saves_loads_thinks_and_is_judged_by_its_own_figure(thought, name):
    record, folder = newest(thought(name))
    assert (record.status, record.step) == ("finished", 3)
    found = {line["name"]: line for line in succeeds("evaluate", "last", "--count", "4", "--json").objects}
    assert {"thought_nats_per_token", "answers_right"} <= set(found)
    assert set(found["thought_nats_per_token"]["trivial"]) == {"uniform", "unigram"}
    lines = [line for line in folder.metrics() if line["kind"] in ("train", "validation", "trivial")]
    assert not any("bits_per_byte" in line or "nats_per_token" in line for line in lines)
    assert any("worst_skill" in line for line in lines)
    model, _ = open_model("last", device=torch.device("cpu"))
    for sampler in valid_samplers(model) if name == "thought-cpu" else valid_samplers(model)[:1]:
        (line,) = succeeds("sample", "last", "--prompt", "1+2+3?", "--sampler", sampler, "--json").objects
        assert line["sampler"] == sampler
        assert line["text"].startswith("1+2+3?")
        assert model.mask_id not in line["ids"]


@pytest.mark.parametrize("name", OF_FILES)
def test_a_recipe_of_a_file_of_pairs_trains_and_thinks(home, tmp_path, name):
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("\n".join(f"{a} and {b} are||<<{a}+{b}={a + b}>> #### {a + b}" for a in range(9) for b in (2, 5)))
    small = [*QUESTIONS, "data.separator='||'", "data.length=48", "tokenizer.kind=byte"]
    succeeds("train", name, *small, f"data.source={pairs}")
    (line,) = succeeds("sample", "last", "--prompt", "3 and 4 are||", "--json").objects
    assert line["text"].startswith("3 and 4 are||")


def test_answers_are_written_behind_the_thoughts_of_a_finished_model(thought):
    _, folder = newest(thought("thought-arithmetic"))
    assert any("answer_nats_per_token" in line for line in folder.metrics())
    model, recipe = open_model("last", device=torch.device("cpu"))
    prompt = encode_prompts(["1+2+3?", "10-2*4?"], model.tokenizer, length=model.length)
    drawn = build_thinker(recipe.sampling, model)(prompt, keyed_generator(1), silent)
    answers = write_answers(model, prompt, drawn, length=4)
    assert answers.shape[0] == 2
    assert model.mask_id not in answers


def test_a_thought_is_shown_as_it_forms(thought):
    home = thought("thought-cpu")
    done = succeeds("sample", "last", "--prompt", "1+2+3?", "--live", "--steps", "3")
    assert "step 0/3  t = 1.000" in done.err
    assert "step 3/3  t = 0.000" in done.err
    course = json.loads(newest(home)[1].trajectory_path.read_text())
    assert course["steps"] == 3
    assert None not in course["tokens"]


def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(home, monkeypatch):
    often = ["training.steps=4", "training.checkpoint_every=1", "training.log_every=1"]
    arguments = ["thought-arithmetic", *QUESTIONS, *often]
    succeeds("train", *arguments)
    whole = newest(home)[1]
    logged = PlainWatcher.logged

    def stop(self, record):
        logged(self, record)
        if record["kind"] == "train" and record["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(PlainWatcher, "logged", stop)
        assert remask("train", *arguments).code == 130
    succeeds("train", "--resume", "last")
    ends = [json.loads((f.model_path / "config.json").read_text())["weights"] for f in (whole, newest(home)[1])]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_a_thought_on_a_language_model_trains_saves_and_thinks_without_it(home, tmp_path, adaptation):
    backbone = write_model(tmp_path / "backbone", "qwen3")
    pairs = [{"prompt": f"{a}+{b}=", "response": f"<<{a}+{b}>> #### {a + b}"} for a in range(8) for b in range(8)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    network = ["network.kind=thought_pretrained", f"network.name={backbone}", f"network.adaptation={adaptation}"]
    small = [part for part in QUESTIONS if not part.startswith(("network.", "data."))]
    source = ["data.source=pairs.jsonl", "data.prompt_key=prompt", "data.response_key=response", "data.length=24"]
    tokens = ["tokenizer.kind=huggingface", f"tokenizer.name={backbone}"]
    more = ["training.prompt_dropout=0.3", "objective.answer_share=1", "evaluation.split=validation"]
    kept = ["network.saved=merged"] if adaptation == "lora" else []
    succeeds("train", "thought-arithmetic", *small, *source, *network, *tokens, *more, *kept)
    _, folder = newest(home)
    names = set(load_file(folder.model_path / "model.safetensors"))
    assert not any("lora" in name for name in names)
    backbone.rename(tmp_path / "elsewhere")  # the saved model needs nothing but its own folder
    (line,) = succeeds("sample", "last", "--prompt", "3+4=", "--guidance", "1", "--json").objects
    assert line["text"].startswith("3+4=")
    model, _ = open_model("last", device=torch.device("cpu"))
    assert isinstance(model.network.trunk, PretrainedTrunk)


@pytest.mark.parametrize("name", LARGE)
def test_a_long_run_of_a_large_mixture_is_ten_epochs_with_a_cosine(name):
    recipe = load_recipe(name, ["data.source=gsm8k/train.jsonl"])
    spec = recipe.training
    assert spec.steps * spec.batch_size >= 10 * GSM8K_TRAIN
    assert (spec.decay, spec.gradient_checkpointing, recipe.network.quantisation) == ("cosine", True, "nf4")


def test_the_long_run_on_a_larger_gpu_is_that_on_a_smaller_one_with_more_at_once():
    small, large = (
        load_recipe(name, ["data.source=train.jsonl"]).model_dump() for name in ("thought-t4", "thought-gsm8k-a100")
    )
    apart = {
        None: {"name", "description"},
        "data": {"length"},
        "training": {"steps", "micro_batch_size", "precision"},
        "network": {"embeddings"},
        "evaluation": {"batch_size"},
    }
    differing = {None: {key for key in small if not isinstance(small[key], dict) and small[key] != large[key]}}
    for section in (key for key in small if isinstance(small[key], dict) and small[key] != large[key]):
        differing[section] = {key for key in small[section] if small[section][key] != large[section][key]}
    assert differing == apart


def test_a_large_recipe_trains_a_tiny_mixture_stops_says_what_is_left_goes_on_and_answers(home, tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes")
    base = write_mixture(tmp_path / "qwen")
    rows = [{"question": f"{a}+{b}?", "answer": f"<<{a}+{b}>> #### {a + b}"} for a in range(8) for b in range(8)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names = [f"network.name={base}", f"tokenizer.name={base}", "data.source=train.jsonl", "data.length=24"]
    small = ["training.steps=4", "training.batch_size=4", "training.micro_batch_size=2", "training.log_every=1"]
    small += ["training.evaluate_rows=4", "evaluation.rows=4", "evaluation.draws=1", "sampling.steps=2"]
    small += ["network.lora_rank=4", "sampling.count=1", "training.precision=float32"]
    logged = PlainWatcher.logged

    def stop(self, record):
        logged(self, record)
        if record["kind"] == "train" and record["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(PlainWatcher, "logged", stop)
        done = remask("train", "thought-t4", *names, *small)
    assert done.code == 130
    assert [line.endswith(" left") for line in done.err.splitlines() if line.startswith("step      ")] == [True, True]
    again = succeeds("train", "--resume", "last")
    record, folder = newest(home)
    assert (record.status, record.step) == ("finished", 4)
    steps = [line for line in again.err.splitlines() if line.startswith("step      ") and " loss " in line]
    assert [line.endswith(" left") for line in steps] == [True, False], "none is left behind the last step"
    assert folder.model_path.joinpath("model.safetensors").stat().st_size < 1e6, "what was trained, and not its base"
    (line,) = succeeds("sample", "last", "--prompt", "3+4?", "--json").objects
    assert line["text"].startswith("3+4?")


def test_what_a_thought_has_not_is_refused_in_one_line(thought):
    thought("thought-cpu")
    assert "no likelihood" in refused("evaluate", "last", "--task", "likelihood")
    assert "no likelihood" in refused("evaluate", "last", "--task", "levels")
    assert "a thought is drawn as vectors" in refused("sample", "last", "--prompt", "1+2+3?", "--sampler", "ancestral")


def test_what_learned_times_know_of_the_loss_is_kept_with_the_model(home):
    succeeds("train", "thought-cpu", *QUESTIONS, "objective.time_warping=learned", "objective.time_exponent=1")
    warp = open_model("last", device=torch.device("cpu"))[0].network.warp
    assert float(warp.nats.sum()) > 0
