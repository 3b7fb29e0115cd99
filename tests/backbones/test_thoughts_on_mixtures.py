"""Thoughts on a tiny mixture of experts in 4 bits, its embeddings on the CPU: learned, saved, loaded, merged."""

from dataclasses import replace

import pytest
import torch
import transformers

from doubles import full_batch
from pretrained_models import write_mixture
from remask.backbones.placement import check_placement
from remask.checkpoints import network_tensors
from remask.config.build import build_model
from remask.config.saved import load_model, save_model
from remask.config.schema import Recipe
from remask.hub.merged import export_merged
from remask.optimisation import adamw
from remask.randomness import keyed_generator
from remask.tokenizers import huggingface_tokenizer

pytest.importorskip("bitsandbytes")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = write_mixture(tmp_path_factory.mktemp("base") / "qwen")
    network = {"kind": "thought_pretrained", "name": str(folder), "adaptation": "lora", "lora_rank": 4}
    return Recipe.model_validate(
        {
            "name": "thought",
            "data": {"source": "arithmetic", "length": 16, "pad": "end"},
            "tokenizer": {"kind": "huggingface", "name": str(folder)},
            "process": {"kind": "gaussian"},
            "objective": {"kind": "thought"},
            "network": {**network, "quantisation": "nf4", "embeddings": "cpu", "latent_width": 8},
            "training": {"gradient_checkpointing": True},
            "sampling": {"sampler": "ddim", "steps": 4},
        }
    )


@pytest.fixture(scope="module")
def model(recipe):
    return build_model(recipe, huggingface_tokenizer(recipe.network.name), device=CPU)


@pytest.fixture(scope="module")
def batch():
    rows = [b"1+2=? <<1+2=3>> ", b"4+5=? <<4+5=9>> "]
    ids = torch.tensor([list(row) for row in rows])
    return replace(full_batch(ids), targets=torch.arange(16).expand(2, -1) > 4)


def loss_of(model, batch, *, step):
    found = model.objective(model.network, batch, generator=keyed_generator(step, "noise"))
    return (found.nats * found.weight).sum() / found.weight.sum()


def test_a_thought_is_learned_by_adapters_and_what_is_new_alone(model, batch):
    check_placement(model.network, device=CPU)
    network = model.network.train()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    (optimizer,) = adamw(network, learning_rate=1e-2, weight_decay=0.0, betas=(0.9, 0.95))
    with torch.no_grad():
        first = torch.stack([loss_of(model, batch, step=step) for step in range(4)]).mean()
    for step in range(8):
        loss_of(model, batch, step=step % 4).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        last = torch.stack([loss_of(model, batch, step=step) for step in range(4)]).mean()
    assert last < 0.9 * first
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    inside = {name for name in moved if ".backbone." in name}
    assert inside
    assert all(".lora_" in name for name in inside)
    assert moved - inside, "the table of vectors and what reads them"


def test_it_is_saved_as_what_was_trained_and_comes_back(recipe, model, batch, tmp_path):
    save_model(model, recipe, tmp_path / "model")
    kept = network_tensors(model.network)
    assert not any(".experts." in name or "embed_tokens" in name or "lm_head" in name for name in kept)
    again, _ = load_model(tmp_path / "model", device=CPU)
    with torch.no_grad():
        model.network.eval()
        assert torch.equal(loss_of(again, batch, step=0), loss_of(model, batch, step=0))


def test_its_language_model_is_written_merged(recipe, model, tmp_path):
    save_model(model, recipe, tmp_path / "model")
    export_merged(str(tmp_path / "model"), tmp_path / "merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    backbone = next(m.backbone for m in model.network.modules() if hasattr(m, "backbone"))
    ids = torch.arange(12)[None]
    with torch.no_grad():
        found, due = merged(ids).logits, backbone.eval()(ids).logits
    torch.testing.assert_close(found, due, rtol=1e-4, atol=1e-4)
