"""Models in transformers' clothes: saved, found by the auto classes, and drawn from with the options users know."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import typer
from transformers import AutoConfig, AutoModel, AutoTokenizer, GenerationConfig, TextDiffusionStreamer
from typer.testing import CliRunner

from remask.cli.export import export as export_command
from remask.config.build import build_model, build_sampler
from remask.config.saved import load_model, save_model
from remask.config.schema import Recipe
from remask.errors import UserError
from remask.finished import sampling_with
from remask.generation import generate
from remask.hub import RemaskConfig, RemaskForDiffusion, export, transformers_tokenizer
from remask.randomness import derive_seed
from remask.samplers.base import blank_prompt
from remask.tokenizers import ByteTokenizer, character_tokenizer, train_bpe
from remask.tokenizers.huggingface import huggingface_tokenizer

CPU = torch.device("cpu")
BYTES = ByteTokenizer()
LENGTH = 16
TEXT = "Zoë said:\n\t'naïve'  — 3.5 × 東京 🙂 "


def tiny_recipe(**sections) -> Recipe:
    network = {"kind": "transformer", "width": 16, "layers": 1, "heads": 2}
    whole = {"name": "tiny", "data": {"source": "python-docs", "length": LENGTH}, "network": network}
    return Recipe.model_validate({**whole, **sections})


def tiny_model(recipe: Recipe) -> RemaskForDiffusion:
    parts = build_model(recipe, BYTES, device=CPU)
    with torch.no_grad():
        for parameter in parts.network.parameters():  # far from uniform, so that draws differ from one another
            parameter.mul_(3.0)
    return RemaskForDiffusion(RemaskConfig(), model=parts, recipe=recipe)


@pytest.fixture(scope="module")
def model() -> RemaskForDiffusion:
    return tiny_model(tiny_recipe(sampling={"steps": 4}))


def ids(text: str) -> torch.Tensor:
    return torch.tensor([list(text.encode())])


# ── folders ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("head", ["tied", "untied"])
def test_a_saved_model_comes_back_whole_through_the_auto_classes(tmp_path, head):
    network = {"kind": "transformer", "width": 16, "layers": 1, "heads": 2, "head": head}
    saved = tiny_model(tiny_recipe(network=network))
    saved.generation_config.steps = 3
    saved.save_pretrained(tmp_path)
    found = AutoModel.from_pretrained(tmp_path)
    assert isinstance(found, RemaskForDiffusion)
    assert not found.training
    assert found.recipe == saved.recipe
    assert torch.equal(found(ids("abc")).logits, saved(ids("abc")).logits)
    assert torch.equal(found.generate(ids("abc")), saved.generate(ids("abc")))
    assert found.generation_config.steps == 3
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.vocab_size, config.mask_token_id, config.eos_token_id) == (258, 257, 256)


def test_the_folder_is_one_that_remask_reads_and_the_other_way_round(tmp_path, model):
    model.save_pretrained(tmp_path / "hub")
    parts, recipe = load_model(tmp_path / "hub", device=CPU)
    save_model(parts, recipe, tmp_path / "own")
    found = RemaskForDiffusion.from_pretrained(tmp_path / "own")
    assert torch.equal(found(ids("abc")).logits, model(ids("abc")).logits)


def test_saving_leaves_other_files_of_the_folder_alone_and_writes_no_code(tmp_path, model):
    (tmp_path / "notes.txt").write_text("mine")
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds == {".txt", ".json", ".safetensors"}
    assert not list(tmp_path.glob(".partial*"))
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())


def test_a_push_uploads_what_saving_writes(tmp_path, model, monkeypatch):
    sent = {}

    class Hub:
        def create_repo(self, repo_id, **options):
            return type("Created", (), {"repo_id": repo_id})

    class Card:
        def save(self, path):
            Path(path).write_text("card")

    def upload(self, folder, repo_id, **options):
        sent[repo_id] = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*.*"))

    monkeypatch.setattr("transformers.utils.hub.hf_api", Hub)
    monkeypatch.setattr("transformers.utils.hub.create_and_tag_model_card", lambda *a, **k: Card())
    monkeypatch.setattr(RemaskForDiffusion, "_upload_modified_files", upload)
    model.save_pretrained(tmp_path, push_to_hub=True, repo_id="me/tiny")
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(sent["me/tiny"])
    assert "tokenizer/tokenizer_config.json" in sent["me/tiny"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"revison": "main"}, "did you mean 'revision'"),
        ({"dtype": "int8"}, "valid are float32"),
        ({"device_map": "cuda:77"}, "not on this machine"),
    ],
)
def test_a_wrong_option_of_loading_is_said_in_a_line(tmp_path, model, options, message):
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        RemaskForDiffusion.from_pretrained(tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_weights_take_the_dtype_that_is_asked_for(tmp_path, model):
    model.save_pretrained(tmp_path)
    half = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    z = ids("?" * LENGTH)
    whole, rounded = (each(input_ids=z).logits.float() for each in (model, half))
    assert not torch.equal(whole, rounded)
    assert torch.allclose(whole, rounded, atol=0.05 * float(whole.abs().max()))
    assert half.generate(ids("abc")).shape == (1, LENGTH)


def test_a_model_that_is_nowhere_and_one_without_weights_are_refused_in_a_line(monkeypatch):
    with pytest.raises(UserError, match="cannot be had from the Hub"):
        RemaskForDiffusion.from_pretrained("nobody/nothing", local_files_only=True)
    with pytest.raises(UserError, match="remask train"):
        AutoModel.from_config(RemaskConfig())


def test_export_writes_a_run_s_model_for_transformers(tmp_path, model):
    save_model(model.parts, model.recipe, tmp_path / "model")
    assert export(str(tmp_path / "model"), tmp_path / "out") == tmp_path / "out"
    assert torch.equal(AutoModel.from_pretrained(tmp_path / "out")(ids("a")).logits, model(ids("a")).logits)
    app = typer.Typer()
    app.command()(export_command)
    done = CliRunner().invoke(app, [str(tmp_path / "model"), str(tmp_path / "again")])
    assert done.output.strip() == str(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").is_file()


# ── tokenizers ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["byte", "character", "bpe", "huggingface"])
def tokenizer(request, tmp_path):
    if request.param == "byte":
        return BYTES
    if request.param == "character":
        return character_tokenizer([TEXT])
    bpe = train_bpe([TEXT * 3, "the cat and the hat"], vocab_size=300)
    if request.param == "bpe":
        return bpe
    transformers_tokenizer(bpe, length=LENGTH).save_pretrained(tmp_path / "source")
    return huggingface_tokenizer(tmp_path / "source")


def test_transformers_reads_and_writes_the_same_ids(tmp_path, tokenizer):
    transformers_tokenizer(tokenizer, length=LENGTH).save_pretrained(tmp_path / "saved")
    found = AutoTokenizer.from_pretrained(tmp_path / "saved")
    own = tokenizer.encode(TEXT).ids.tolist()
    assert found(TEXT)["input_ids"] == own
    assert found.decode(own) == TEXT
    assert (found.eos_token_id, found.mask_token_id) == (tokenizer.eos_id, tokenizer.mask_id)
    assert found("<|mask|>")["input_ids"] == [tokenizer.mask_id]
    padded = found(["3", "3.5"], padding=True)
    assert padded["attention_mask"] == [
        [0] * (len(padded["attention_mask"][0]) - 1) + [1],
        [1] * len(padded["input_ids"][1]),
    ]


def test_a_tokenizer_in_lower_case_stays_one_and_gives_the_same_ids(tmp_path):
    lower = train_bpe([TEXT * 3, "the cat and the hat"], vocab_size=300, lowercase=True)
    transformers_tokenizer(lower, length=LENGTH).save_pretrained(tmp_path / "saved")
    found = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in (TEXT, "The CAT And The Hat", "ÄÖ ΟΔΟΣ"):
        assert found(text)["input_ids"] == lower.encode(text).ids.tolist()
    assert found.decode(found("The CAT")["input_ids"]) == "the cat"
    assert found("<|mask|>")["input_ids"] == [lower.mask_id]


def test_a_model_without_a_decoder_is_not_asked_to_write():
    network = {"kind": "concept", "width": 16, "heads": 2, "layers": 1, "concepts": 2, "decoder": "none"}
    objective = {"kind": "concept_contrastive", "views": "dropped", "reconstruction_weight": 0}
    with pytest.raises(UserError, match="has no decoder"):
        tiny_model(tiny_recipe(network=network, objective=objective)).generate(ids("a cat"))


def test_a_character_outside_the_alphabet_is_an_error_and_not_dropped():
    with pytest.raises(Exception, match="UNK"):
        transformers_tokenizer(character_tokenizer(["ab"]), length=LENGTH)("abc")


# ── drawing ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_text_is_the_one_that_remask_s_own_sampler_draws(model):
    drawn = model.generate(steps=5, temperature=0.7, seed=9, gen_length=LENGTH, num_return_sequences=3)
    spec = sampling_with(model.recipe, {"steps": 5, "temperature": 0.7})
    sampler = build_sampler(spec, model.parts, seed=9)
    own = generate(model.parts, sampler, blank_prompt(3, LENGTH), seed=derive_seed(9, "generate", 0))
    assert torch.equal(drawn, own)
    assert not torch.equal(drawn, model.generate(steps=5, temperature=0.7, seed=10, num_return_sequences=3))


SAME = [
    [{"steps": 2}, {"num_inference_steps": 2}, {"max_denoising_steps": 2}, {"steps": 2, "num_inference_steps": 2}],
    [{"gen_length": 5}, {"max_new_tokens": 5}, {"max_length": 8}, {"max_length": 8, "max_new_tokens": 5}],
    [{"remasking": "low_confidence"}, {"sampler": "confidence"}, {"remasking": "low_confidence", "steps": None}],
    [{"remasking": "random"}, {"sampler": "ancestral"}, {"do_sample": True}, {}, {"eos_token_id": 256}],
    [{"temperature": 0}, {"do_sample": False}, {"do_sample": False, "temperature": 0.0}],
    [{"cfg_scale": 0.5}, {"guidance_scale": 1.5}, {"guidance": 0.5}],
]


@pytest.mark.parametrize(("one", "other"), [pair for group in SAME for pair in pairwise(group)])
def test_two_names_of_one_option_draw_the_same(model, one, other):
    prompt = ids("abc")
    wanted = {"max_new_tokens": 9} if not {"gen_length", "max_new_tokens", "max_length"} & one.keys() else {}
    drawn = model.generate(prompt, **one, **wanted)
    assert torch.equal(drawn, model.generate(prompt, **other, **wanted))
    assert torch.equal(drawn, model.generate(prompt, GenerationConfig(**one), **wanted))
    assert torch.equal(drawn[:, :3], prompt)


def test_the_options_of_the_call_come_before_the_config_and_the_config_before_the_model_s_own():
    own = tiny_model(tiny_recipe())
    own.generation_config = GenerationConfig(max_new_tokens=2)
    assert own.generate(ids("abc")).shape == (1, 5)
    assert own.generate(ids("abc"), GenerationConfig(max_new_tokens=4)).shape == (1, 7)
    assert own.generate(ids("abc"), GenerationConfig(max_new_tokens=4), gen_length=6).shape == (1, 9)


WRONG = [
    ({"steps": 3, "num_inference_steps": 4}, "say different things"),
    ({"cfg_scale": 1.0, "guidance_scale": 1.0}, "say different things"),
    ({"max_length": 9, "max_new_tokens": 5}, "Give one of them"),
    ({"num_beams": 4}, "no option num_beams"),
    ({"step": 4}, "did you mean 'steps'"),
    ({"steps": 0}, "sampling.steps"),
    ({"temperature": -1.0}, "sampling.temperature"),
    ({"max_new_tokens": 99}, "valid is 0 to 13"),
    ({"max_new_tokens": 0}, "nothing is left to draw"),
    ({"max_new_tokens": 2.5}, "whole number"),
    ({"seed": -1}, "whole number"),
    ({"sampler": "left_to_right"}, "left_to_right"),
    ({"remasking": "high_confidence"}, "remasking"),
    ({"eos_token_id": 7}, "ends a text with 256"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[" ".join(options) for options, _ in WRONG])
def test_what_makes_no_sense_is_said_in_a_line(model, options, message):
    with pytest.raises(UserError, match=message) as caught:
        model.generate(ids("abc"), **options)
    assert "\n" not in str(caught.value)


def test_prompts_of_different_lengths_are_drawn_from_as_if_each_were_alone(model):
    tokenizer = transformers_tokenizer(BYTES, length=LENGTH)
    prompts = tokenizer(["a", "def", "b", "xyz"], padding=True, return_tensors="pt")
    together = model.generate(**prompts, max_new_tokens=6, remasking="low_confidence", do_sample=False)
    for row, text in zip(together, ["a", "def", "b", "xyz"], strict=True):
        alone = model.generate(ids(text), max_new_tokens=6, remasking="low_confidence", do_sample=False)
        assert torch.equal(row[3 - len(text) :], alone[0])


def test_greedy_tokens_are_still_revealed_in_order_of_confidence(model):
    ranked = Recorder()
    model.generate(ids("abc"), streamer=ranked, steps=13, remasking="low_confidence", do_sample=False)
    first = [draft.index(token) for draft in ranked.drafts[:1] for token in draft if token != 257]
    logits = model(torch.cat([ids("abc"), torch.full((1, 13), 257)], 1)).logits[0, 3:, :257]
    assert first == [int(logits.softmax(-1).amax(-1).argmax())]


def test_padding_on_the_right_is_refused(model):
    with pytest.raises(UserError, match="padding_side='left'"):
        model.generate(ids("abc"), attention_mask=torch.tensor([[1, 1, 0]]))


def test_padding_changes_no_logits_of_the_text(model):
    padded = torch.tensor([[256, 97, 98, 257]])
    seen = model(padded, attention_mask=torch.tensor([[0, 1, 1, 1]])).logits[:, 1:]
    assert torch.allclose(seen, model(padded[:, 1:]).logits, atol=1e-5)


def test_masks_in_a_prompt_are_filled_and_the_rest_of_it_stays(model):
    gaps = ids("ab__ef")
    gaps[gaps == ord("_")] = BYTES.mask_id
    drawn = model.generate(gaps, max_new_tokens=0)
    assert drawn.shape == gaps.shape
    kept = gaps != BYTES.mask_id
    assert torch.equal(drawn[kept], gaps[kept])
    assert not bool((drawn == BYTES.mask_id).any())


def test_steps_are_those_of_the_whole_text_and_blocks_share_them(model):
    calls = []
    hook = model.network.register_forward_hook(lambda *_: calls.append(1))
    model.generate(steps=8, block_length=4)
    assert len(calls) == 8
    calls.clear()
    model.generate(ids("abcdef"), steps=6, block_length=4)  # one and a half blocks are given
    hook.remove()
    assert len(calls) == 6


def test_a_text_that_is_to_stop_holds_nothing_after_its_first_end(model):
    ending = tiny_model(tiny_recipe(sampling={"steps": 4}))
    with torch.no_grad():
        ending.network.head.weight[256] = 0.0  # ends of text are as likely as most tokens
    free = ending.generate(num_return_sequences=60, stop=False)
    stopped = ending.generate(num_return_sequences=60, stop=True)
    ended = (free == 256).cumsum(-1) > 0
    assert bool((free[ended] != 256).any())
    assert torch.equal(stopped, free.masked_fill(ended, 256))


class Recorder:  # a streamer
    def __init__(self) -> None:
        self.final, self.drafts, self.ended = [], [], 0

    def put(self, value):
        self.final.append(value.tolist())

    def put_draft(self, value):
        self.drafts.append(value.tolist())

    def end(self):
        self.ended += 1


def test_a_streamer_sees_the_prompt_every_step_and_the_text(model):
    streamer = Recorder()
    drawn = model.generate(ids("abc"), streamer=streamer, steps=5, max_new_tokens=8)[0].tolist()
    assert streamer.final == [drawn[:3], drawn[3:]]
    assert len(streamer.drafts) == 5
    assert streamer.drafts[-1] == drawn[3:]
    assert streamer.drafts[0].count(257) >= streamer.drafts[1].count(257) > 0
    assert streamer.ended == 1


def test_transformers_own_diffusion_streamer_prints_the_text(model, capsys):
    tokenizer = transformers_tokenizer(BYTES, length=LENGTH)
    drawn = model.generate(ids("abc"), streamer=TextDiffusionStreamer(tokenizer), steps=3, max_new_tokens=8)
    shown = capsys.readouterr().out
    assert shown.endswith(tokenizer.decode(drawn[0]) + "\n")
    assert "<|mask|>" in shown
    with pytest.raises(UserError, match="one text"):
        model.generate(ids("abc").repeat(2, 1), streamer=TextDiffusionStreamer(tokenizer))


def test_an_autoregressive_model_is_saved_and_drawn_from_too(tmp_path):
    network = {"kind": "transformer", "width": 16, "layers": 1, "heads": 2, "attention": "causal"}
    sections = {"objective": {"kind": "next_token"}, "process": None, "sampling": {"sampler": "left_to_right"}}
    tiny_model(tiny_recipe(network=network, **sections)).save_pretrained(tmp_path)
    found = AutoModel.from_pretrained(tmp_path)
    assert found.generate(ids("abc"), max_new_tokens=4).shape == (1, 7)
    with pytest.raises(UserError, match="left_to_right"):
        found.generate(ids("abc"), remasking="low_confidence")
