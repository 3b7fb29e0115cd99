"""Models that are saved as what was trained, beside the name of the rest; and merged into ordinary folders."""

import json
import shutil

import pytest
import torch
import transformers

from pretrained_models import tiny_mixture, write_mixture, write_model
from remask.checkpoints import Checkpoints, network_tensors
from remask.config.adaptation import plain_tensors
from remask.config.build import build_model
from remask.config.saved import load_model, save_model
from remask.config.schema import Recipe
from remask.errors import UserError
from remask.hub import RemaskForDiffusion
from remask.hub.merged import export_merged
from remask.optimisation import MovingAverage, adamw
from remask.tokenizers import huggingface_tokenizer
from remask.training import TrainingState
from tiny import differing, everything, run_steps

pytest.importorskip("bitsandbytes")

CPU = torch.device("cpu")
IDS = torch.tensor([[72, 101, 108, 108, 111, 32]])


def recipe_of(folder, **keys):
    network = {"kind": "pretrained", "name": str(folder), "adaptation": "lora", "lora_rank": 4, **keys}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"source": "python-docs", "length": 16},
            "tokenizer": {"kind": "huggingface", "name": str(folder)},
            "network": network,
        }
    )


def model_of(recipe):
    """A model whose adapters say something."""
    model = build_model(recipe, huggingface_tokenizer(recipe.network.name), device=CPU)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.network.named_parameters():
        if "lora_B" in name or name == "mask_embedding":
            parameter.data.normal_(generator=generator, std=0.1)
    return model


def logits(model, ids=IDS):
    every = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        return model.network.eval()(ids, torch.zeros(len(ids)), segments=every.long(), positions=every)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_mixture(tmp_path_factory.mktemp("base") / "qwen")


@pytest.fixture(scope="module")
def trained(base):
    """A recipe and its model in 4 bits, embeddings on the CPU, experts adapted too."""
    targets = ("self_attn", "shared_expert", "experts.down_proj")
    recipe = recipe_of(base, quantisation="nf4", embeddings="cpu", lora_targets=targets)
    return recipe, model_of(recipe)


def test_a_model_in_four_bits_is_saved_as_its_adapters_and_comes_back_beside_its_base(trained, base, tmp_path):
    recipe, model = trained
    save_model(model, recipe, tmp_path / "model")
    weights = (tmp_path / "model" / "model.safetensors").stat().st_size
    kept = network_tensors(model.network)
    assert all("lora_" in name or name == "mask_embedding" for name in kept)
    assert sum(4 * value.numel() for value in kept.values()) < weights < 1.5 * sum(4 * v.numel() for v in kept.values())
    record = json.loads((tmp_path / "model" / "config.json").read_text())
    assert record["base"]["name"] == str(base)
    again, _ = load_model(tmp_path / "model", device=CPU)
    assert torch.equal(logits(again), logits(model))
    through_transformers = RemaskForDiffusion.from_pretrained(tmp_path / "model")
    assert torch.equal(logits(through_transformers.parts), logits(model))


def test_adapters_beside_another_base_or_none_are_refused(tmp_path):
    base = write_mixture(tmp_path / "base")
    recipe = recipe_of(base, quantisation="nf4")
    save_model(model_of(recipe), recipe, tmp_path / "model")
    shutil.rmtree(base)
    with pytest.raises(UserError, match=r"its weights cannot be had from the Hub"):
        load_model(tmp_path / "model", device=CPU)
    write_mixture(tmp_path / "base", seed=1)
    with pytest.raises(UserError, match=r"that model is not the one it was trained beside any more"):
        load_model(tmp_path / "model", device=CPU)


@pytest.mark.parametrize(("keys", "alone"), [({}, False), ({"saved": "adapters"}, True)])
def test_a_whole_model_with_adapters_is_saved_merged_unless_adapters_are_asked_for(tmp_path, keys, alone):
    base = write_model(tmp_path / "gpt2", "gpt2")
    recipe = recipe_of(base, **keys)
    model = model_of(recipe)
    save_model(model, recipe, tmp_path / "model")
    if not alone:
        shutil.rmtree(base)
    again, _ = load_model(tmp_path / "model", device=CPU)
    assert any("lora_" in name for name, _ in again.network.named_parameters()) is alone
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-4, atol=1e-4)


def test_a_model_in_four_bits_can_be_saved_whole_as_what_its_bits_stand_for(base, tmp_path):
    recipe = recipe_of(base, quantisation="nf4", saved="merged")
    model = model_of(recipe)
    save_model(model, recipe, tmp_path / "model")
    again, _ = load_model(tmp_path / "model", device=CPU)
    assert not any(p.dtype == torch.uint8 for p in again.network.parameters())
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-4, atol=1e-4)


def test_training_in_four_bits_resumes_bit_for_bit_from_adapters_alone(base, tmp_path):
    def state():
        network = build_model(recipe, huggingface_tokenizer(base), device=CPU)
        optimizers = adamw(network.network, learning_rate=1e-2, weight_decay=0.1, betas=(0.9, 0.95))
        return network.objective, TrainingState(network.network, optimizers, MovingAverage(network.network, decay=0.9))

    recipe = recipe_of(base, quantisation="nf4", embeddings="cpu")
    (bound, straight), (_, stopped), (_, resumed) = state(), state(), state()
    run_steps(straight, 3, objective=bound)
    run_steps(stopped, 1, objective=bound)
    place = Checkpoints(tmp_path, keep=1).save(stopped, extra={})
    assert (place / "network.safetensors").stat().st_size < 4 * (base / "model.safetensors").stat().st_size / 10
    Checkpoints(tmp_path, keep=1).load_newest(resumed)
    run_steps(resumed, 3, objective=bound)
    assert differing(everything(straight), everything(resumed)) == []


# ── merged ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def causal(model, ids=IDS):
    with torch.no_grad():
        return model.eval()(ids).logits


def test_merged_weights_give_the_logits_of_four_bits_and_adapters(trained, tmp_path):
    recipe, model = trained
    save_model(model, recipe, tmp_path / "model")
    export_merged(str(tmp_path / "model"), tmp_path / "merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    backbone = model.network.backbone
    torch.testing.assert_close(causal(merged), causal(backbone), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(causal(merged), causal(tiny_mixture()), atol=0.1), "updates and 4 bits change something"
    row = merged.get_input_embeddings().weight[model.mask_id]
    assert torch.equal(row, model.network.mask_embedding)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.decode(tokenizer("a b")["input_ids"]) == "a b"
    with pytest.raises(UserError, match="not empty"):
        export_merged(str(tmp_path / "model"), tmp_path / "merged")


def test_fused_experts_are_written_by_their_published_names(base, tmp_path):
    recipe = recipe_of(base)
    model = model_of(recipe)
    save_model(model, recipe, tmp_path / "model")
    export_merged(str(tmp_path / "model"), tmp_path / "merged")
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    assert "model.layers.0.mlp.experts.3.up_proj.weight" in index["weight_map"]
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(causal(merged), causal(model.network.backbone), rtol=1e-4, atol=1e-4)
    assert plain_tensors(merged).keys() == dict(tiny_mixture().named_parameters()).keys()


def test_a_large_model_is_written_in_several_files(monkeypatch, base, tmp_path):
    monkeypatch.setattr("remask.backbones.merging.SHARD", 100_000)
    recipe = recipe_of(base, quantisation="nf4")
    model = model_of(recipe)
    save_model(model, recipe, tmp_path / "model")
    export_merged(str(tmp_path / "model"), tmp_path / "merged")
    assert len(list((tmp_path / "merged").glob("model-*-of-*.safetensors"))) > 3
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(causal(merged), causal(model.network.backbone), rtol=1e-4, atol=1e-4)


def test_a_network_from_scratch_has_nothing_to_merge(tmp_path):
    network = {"kind": "transformer", "width": 16, "layers": 1, "heads": 2}
    recipe = Recipe.model_validate({"name": "t", "data": {"source": "python-docs", "length": 16}, "network": network})
    from remask.tokenizers import ByteTokenizer

    save_model(build_model(recipe, ByteTokenizer(), device=CPU), recipe, tmp_path / "model")
    with pytest.raises(UserError, match="--merged is for pretrained models"):
        export_merged(str(tmp_path / "model"), tmp_path / "merged")
