"""What a pretrained model takes and costs, said from its configuration: against what is measured of a tiny one."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pretrained_models import MIXTURES, tiny_mixture, tiny_model, write_mixture
from remask.backbones.costs import attention_flops, forward_flops, training_flops
from remask.backbones.layouts import skeleton
from remask.backbones.memory import Wish, demands, layer_numbers, savings, total
from remask.backbones.placement import device_map
from remask.backbones.published import CONFIGURATIONS, published_config
from remask.config.pretrained import build_pretrained
from remask.config.schema import PretrainedSpec
from remask.tokenizers import huggingface_tokenizer

CPU = torch.device("cpu")
TINY = Wish(compute=torch.float32, rank=4, batch=2, length=16)


@pytest.fixture(scope="module")
def tiny():
    return skeleton(MIXTURES["qwen2-moe"]())


@pytest.fixture(scope="module")
def published():
    return skeleton(published_config("Qwen/Qwen1.5-MoE-A2.7B"))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    pytest.importorskip("bitsandbytes")
    folder = write_mixture(tmp_path_factory.mktemp("model") / "qwen")
    spec = PretrainedSpec(name=str(folder), adaptation="lora", quantisation="nf4", embeddings="cpu", lora_rank=4)
    tokenizer = huggingface_tokenizer(folder)
    return build_pretrained(spec, tokenizer, block_length=None, length=16, steps=10, seed=1, device=CPU)


# ── weights ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_predicted_bytes_of_weights_are_those_of_the_opened_model(tiny, network):
    predicted = {part.name: part.bytes for part in demands(tiny, TINY) if part.exact and part.of == "weights"}
    measured = {placed.component: placed.bytes for placed in device_map(network)}
    assert measured.pop("trained in full") == 4 * 64, "the mask's vector, which is no part of the model"
    assert predicted == measured


def test_trained_numbers_take_five_times_their_weights(tiny):
    parts = {part.name: part for part in demands(tiny, TINY)}
    assert parts["gradients, AdamW, average"].bytes == 4 * parts["adapters"].bytes


def test_the_published_mixture_has_its_published_size_and_fits_16_gb(published):
    numbers = sum(p.numel() for p in published.parameters())
    assert numbers == 14_315_784_192, "14.3 billion"
    wish = Wish(compute=torch.float16)
    parts = {part.name: part for part in demands(published, wish)}
    assert parts["experts"].bytes / 12_457_082_880 == pytest.approx(0.516, abs=1e-3)
    weights = sum(p.bytes for p in parts.values() if p.exact and p.of == "weights" and p.place == "device")
    assert weights / 2**30 == pytest.approx(7.22, abs=0.01)
    assert total(list(parts.values()), place="device", of="training") < 11 * 2**30
    assert total(list(parts.values()), place="device", of="sampling") < 11 * 2**30
    assert total(list(parts.values()), place="cpu", of="training") == parts["embeddings"].bytes == 2 * 151936 * 2048


def test_left_whole_the_published_mixture_needs_what_no_card_of_16_gb_has(published):
    whole = demands(published, Wish(compute=torch.float16, quantisation="none", embeddings="device"))
    assert sum(part.bytes for part in whole if part.exact and part.of == "weights") > 4 * 14_315_784_192


def test_a_table_that_reads_and_writes_is_counted_once_unless_one_of_the_two_stays_behind():
    tied = tiny_model("qwen2")
    numbers = sum(p.numel() for p in tied.parameters())
    table = tied.get_input_embeddings().weight.numel()
    wish = replace(TINY, quantisation="none", embeddings="device", rank=0)

    def weights(wish):
        return sum(p.bytes for p in demands(skeleton(tied.config), wish) if p.exact and p.of == "weights")

    buffers = sum(b.numel() for b in tied.buffers())
    assert weights(wish) == 4 * (numbers + buffers)
    adapters = next(p.bytes for p in demands(skeleton(tied.config), TINY) if p.name == "adapters")
    assert weights(replace(wish, rank=4, embeddings="cpu")) == 4 * (numbers + buffers + table) + adapters


def test_a_published_configuration_is_one_of_the_library():
    for name in CONFIGURATIONS:
        assert published_config(name).model_type == CONFIGURATIONS[name]["model_type"]
    assert published_config("someone/else") is None


def test_what_would_help_is_told_by_what_it_saves(tiny):
    wish = Wish(compute=torch.float16, embeddings="device", checkpointing=False, batch=4)
    found = savings(tiny, wish)
    assert [count for _, count in found] == sorted((count for _, count in found), reverse=True)
    names = [name for name, _ in found]
    assert "training.gradient_checkpointing=true" in names
    assert "network.embeddings=cpu, with lora" in names
    assert not any("nf4" in name for name in names), "that is what was asked for"


# ── activations ────────────────────────────────────────────────────────────────────────────────────────────────────


def kept_bytes(network, layers, *, tokens):
    """Bytes that autograd keeps of some layers, each memory once, weights and tables of positions left out."""
    rotary = network.backbone.model.rotary_emb
    x = torch.randn(1, tokens, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    places = rotary(x, torch.arange(tokens)[None])
    own = {p.untyped_storage().data_ptr() for p in (*network.parameters(), *places)}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.is_floating_point():
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        mask = torch.ones(1, 1, tokens, tokens, dtype=torch.bool)
        for layer in layers:
            x = layer(x, attention_mask=mask, position_embeddings=places)
    return sum(kept.values()), x


def test_what_a_layer_keeps_is_estimated_from_above_and_not_by_far(tiny, network):
    tokens = 256
    network.train()
    measured, held = kept_bytes(network, network.backbone.model.layers[:1], tokens=tokens)
    predicted = 4 * tokens * layer_numbers(tiny, rank=4)
    assert measured <= predicted <= 1.15 * measured
    del held


def test_checkpointing_takes_less_and_what_is_kept_grows_with_the_batch(tiny):
    def activations(wish):
        return next(part.bytes for part in demands(tiny, wish) if part.name == "activations")

    assert activations(replace(TINY, checkpointing=False)) == 2 * 4 * 2 * 16 * layer_numbers(tiny, rank=4)
    assert activations(TINY) == 4 * 2 * 16 * (layer_numbers(tiny, rank=4) + 2 * 64)
    assert activations(replace(TINY, batch=4)) == 2 * activations(TINY)


# ── operations ─────────────────────────────────────────────────────────────────────────────────────────────────────


def counted(model, ids, *, experts="eager"):
    model.set_experts_implementation(experts)
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(ids)
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", MIXTURES)
def test_operations_by_the_formula_are_those_counted(kind):
    ids = torch.arange(48).reshape(2, 24)
    with torch.no_grad():
        measured = counted(tiny_mixture(kind), ids)
        assert counted(tiny_mixture(kind), ids, experts="batched_mm") == measured, "as benchmarks/large_flops.py says"
    analytic = ids.numel() * forward_flops(skeleton(MIXTURES[kind]()), places=24)
    assert analytic == pytest.approx(measured, rel=0.01)


def test_a_frozen_model_costs_twice_its_forward_pass_and_its_attention_and_a_trained_one_three_times(tiny):
    model, ids = tiny_mixture(), torch.arange(48).reshape(2, 24)
    with torch.no_grad():
        forward = counted(model, ids)
    words = model.get_input_embeddings()(ids).detach()
    attention = ids.numel() * attention_flops(tiny.config, places=24)
    for frozen, due in ((True, 2 * forward + attention), (False, 3 * forward)):
        model.requires_grad_(not frozen)
        with FlopCounterMode(display=False) as counter:
            model(inputs_embeds=words.clone().requires_grad_()).logits.sum().backward()
        assert counter.get_total_flops() == due


def test_operations_of_the_published_mixture_are_those_of_the_published_formula(published):
    layers, width, hidden, chosen, shared, experts, vocabulary, places = 24, 2048, 1408, 4, 5632, 60, 151936, 256
    block = 4 * width**2 + 3 * width * hidden * chosen + 3 * width * shared + width * experts + width
    due = 2 * (layers * block + width * vocabulary) + 4 * layers * places * width
    assert forward_flops(published, places=places) == due
    attention = 4 * layers * places * width
    updates = 6 * 16 * layers * (4 * 2 * width + 3 * (width + shared))
    assert training_flops(published, places=places, rank=16) == 2 * due + attention + updates
