"""`remask convert`: from a pretrained model's folder to a run that samples, without a hub."""

import shutil
from pathlib import Path

import pytest
import torch
from command import newest, refused, succeeds

from pretrained_models import tiny_model, write_model, write_tokenizer
from remask.cli.convert import conversion
from remask.config.load import load_recipe
from remask.config.saved import load_model
from remask.networks.pretrained import PretrainedDenoiser

TINY = [
    *("data.length=16", "training.steps=3", "training.batch_size=4", "training.micro_batch_size=4"),
    *("training.evaluate_rows=4", "evaluation.rows=4", "evaluation.draws=1", "sampling.count=1", "sampling.steps=2"),
    *("training.checkpoint_every=1", "device=cpu"),
]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def llama(home: Path) -> Path:
    return write_model(home.parent / "llama", "llama")


def saved(home: Path):
    record, folder = newest(home)
    assert record.status == "finished"
    model, recipe = load_model(folder.model_path, device=torch.device("cpu"))
    assert isinstance(model.network, PretrainedDenoiser)
    return model, recipe


def test_a_converted_model_samples_and_is_judged_after_its_source_is_gone(home, llama, text):
    succeeds("convert", llama, f"data.source={text}", *TINY)
    shutil.rmtree(llama)
    assert newest(home)[0].lineage == [{"how": "converted", "from": str(llama)}]
    model, recipe = saved(home)
    assert recipe.network.name == str(llama)
    assert not any(module.training for module in model.network.modules())
    line = succeeds("sample", "last", "--count", "1", "--steps", "2", "--json").objects[-1]
    assert len(line["ids"]) == 16
    assert model.tokenizer.mask_id not in line["ids"]
    assert succeeds("evaluate", "last", "--json").objects


def test_a_model_converted_to_blocks_is_drawn_in_blocks(home, llama, text):
    succeeds("convert", llama, "--block", "4", f"data.source={text}", *TINY)
    _, recipe = saved(home)
    assert (recipe.objective.kind, recipe.objective.block_length, recipe.sampling.block_length) == (
        "block_diffusion",
        4,
        4,
    )


def test_low_rank_updates_are_trained_alone_kept_alone_and_saved_merged(home, llama, text):
    succeeds("convert", llama, f"data.source={text}", *TINY, "network.adaptation=lora", "network.lora_rank=2")
    _, folder = newest(home)
    from safetensors.torch import load_file

    checkpoint = load_file(folder.checkpoints_path / "step-3" / "network.safetensors")
    assert checkpoint
    assert all("lora" in name or name == "mask_embedding" for name in checkpoint)
    model, _ = saved(home)
    weights = dict(model.network.named_parameters())
    assert not any("lora" in name for name in weights)
    own = dict(tiny_model("llama").named_parameters())
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(weights[f"backbone.{name}"], own[name])
    torch.testing.assert_close(weights["backbone.model.norm.weight"], own["model.norm.weight"], rtol=0, atol=0)


# ── mistakes ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_that_is_not_there_is_one_line(home, text):
    assert "no tokenizer folder './nowhere'" in refused("convert", "./nowhere", f"data.source={text}", *TINY)


def test_a_folder_without_a_tokenizer_is_one_line(home, text):
    tiny_model("llama").save_pretrained(home.parent / "bare")
    assert "tokenizer" in refused("convert", home.parent / "bare", f"data.source={text}", *TINY)


def test_a_folder_without_a_model_is_one_line(home, text):
    folder = home.parent / "words"
    folder.mkdir()
    write_tokenizer(folder)
    assert "holds no model" in refused("convert", folder, f"data.source={text}", *TINY)


def test_a_hub_that_cannot_be_reached_is_one_line(home, text):
    line = refused("convert", "nobody/nothing", f"data.source={text}", *TINY)
    assert "nobody/nothing" in line
    assert "network" in line


def test_a_model_that_is_no_causal_language_model_is_one_line(home, text):
    from transformers import T5Config

    folder = home.parent / "t5"
    T5Config().save_pretrained(folder)
    write_tokenizer(folder)
    assert "no causal language model" in refused("convert", folder, f"data.source={text}", *TINY)


def test_an_encoder_that_passes_for_a_decoder_is_found_by_what_it_sees(home, text):
    from transformers import BertConfig, BertLMHeadModel

    folder = home.parent / "bert"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertLMHeadModel(BertConfig(vocab_size=260, initializer_range=0.5, **sizes)).save_pretrained(folder)
    write_tokenizer(folder)
    assert "cannot be used" in refused("convert", folder, f"data.source={text}", *TINY)


def test_an_unknown_adapter_target_is_one_line_with_the_valid_ones(home, llama, text):
    line = refused(
        *("convert", llama, f"data.source={text}", *TINY),
        *("network.adaptation=lora", "network.lora_targets=[q_projection]"),
    )
    assert "no linear layer is named q_projection; did you mean 'q_proj'?" in line


def test_words_that_are_no_keys_are_one_line():
    assert "is no model" in refused("convert", "training.steps=3")
    assert "is not KEY=VALUE" in refused("convert", "gpt2", "quickly")


def test_the_command_changes_the_recipes_model_and_leaves_the_last_word_to_its_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama").mkdir()
    name, changes = conversion("llama", ["training.steps=7"], block=None)
    recipe = load_recipe(name, changes)
    assert recipe.network.name == recipe.tokenizer.name == str(tmp_path / "llama")
    assert (recipe.name, recipe.training.steps) == ("convert-mdlm", 7)
    recipe = load_recipe(*conversion("owner/model", ["data.length=64"], block=8))
    assert (recipe.network.name, recipe.objective.block_length, recipe.sampling.block_length) == ("owner/model", 8, 8)
