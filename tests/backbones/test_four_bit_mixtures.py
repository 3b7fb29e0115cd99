"""Mixtures of experts opened in 4 bits: what is held how, what they compute, what of them is trained."""

import pytest
import torch
import transformers

from pretrained_models import MIXTURES, VOCABULARY, tiny_mixture, write_mixture, write_tokenizer
from remask.backbones.files import fingerprint, folder_of, opened_weights
from remask.backbones.layouts import LAYOUTS, holdings, layers_in_four_bits, layout_of, routed_layers, skeleton
from remask.backbones.placement import check_placement, device_lines, device_map
from remask.backbones.quantised import check_experts, compute_dtype, held_bytes, open_in_four_bits
from remask.config.adaptation import check_quantised, plain_tensors
from remask.config.pretrained import build_pretrained
from remask.config.schema import PretrainedSpec
from remask.errors import UserError
from remask.networks.pretrained_experts import Expert, InFloat32, UnfusedExperts
from remask.networks.pretrained_tables import HeldHead, StayingEmbedding, WideEmbedding
from remask.networks.running import Recomputed, run_in_training
from remask.optimisation import adamw
from remask.tokenizers import huggingface_tokenizer

pytest.importorskip("bitsandbytes")

CPU = torch.device("cpu")
IDS = torch.tensor([[72, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100]])


@pytest.fixture(params=MIXTURES, scope="module")
def written(request, tmp_path_factory):
    return request.param, write_mixture(tmp_path_factory.mktemp("mixture") / request.param, request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_mixture(tmp_path_factory.mktemp("mixture") / "qwen", shard="200KB")


def opened(folder, *, embeddings="device"):
    config = transformers.AutoConfig.from_pretrained(folder)
    return open_in_four_bits(config, folder, device=CPU, embeddings=embeddings).eval()


def network_of(folder, **keys):
    spec = PretrainedSpec(name=str(folder), adaptation="lora", quantisation="nf4", **keys)
    tokenizer = huggingface_tokenizer(folder)
    return build_pretrained(spec, tokenizer, block_length=None, length=16, steps=10, seed=1, device=CPU)


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(ids).logits


def loss(network, ids=IDS):
    every = torch.ones_like(ids, dtype=torch.bool)
    hidden = torch.where(torch.arange(ids.shape[1]) % 2 == 0, network.mask_id, ids)
    found = network(hidden, torch.zeros(len(ids)), segments=every.long(), positions=every)
    return torch.nn.functional.cross_entropy(found, ids.flatten())


def denoised(network, ids=IDS):
    every = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        return network.eval()(ids, torch.zeros(len(ids)), segments=every.long(), positions=every)


def fused_copy(model, kind):
    """The library's model with the weights that 4 bits stand for, its experts fused."""
    copy = tiny_mixture(kind)
    copy.load_state_dict(plain_tensors(model))
    return copy


# ── what is held how ───────────────────────────────────────────────────────────────────────────────────────────────


def test_all_experts_and_linear_layers_are_in_four_bits_and_head_routers_and_gates_are_not(folder):
    model = opened(folder)
    packed = {name for name, p in model.named_parameters() if hasattr(p, "quant_state")}
    experts = {
        f"model.layers.{i}.mlp.experts.{e}.{part}.weight"
        for i in range(2)
        for e in range(4)
        for part in ("gate_proj", "up_proj", "down_proj")
    }
    attention = {f"model.layers.{i}.self_attn.{part}_proj.weight" for i in range(2) for part in "qkvo"}
    shared = {f"model.layers.{i}.mlp.shared_expert.{p}_proj.weight" for i in range(2) for p in ("gate", "up", "down")}
    assert packed == experts | attention | shared
    assert all(
        p.quant_state.quant_type == "nf4" and p.quant_state.nested for p in model.parameters() if p.dtype == torch.uint8
    )
    for name in ("gate.inner.weight", "shared_expert_gate.inner.weight"):
        assert model.get_parameter(f"model.layers.0.mlp.{name}").dtype == torch.float32
    assert model.lm_head.weight.dtype == torch.float32
    assert not any(p.requires_grad for p in model.parameters())


def test_each_weight_of_an_expert_takes_about_half_a_byte(folder):
    model = opened(folder)
    experts = model.model.layers[0].mlp.experts
    held = sum(held_bytes(p) for p in experts.parameters())
    numbers = sum(p.quant_state.shape.numel() for p in experts.parameters())
    assert numbers == 4 * 3 * 64 * 64
    assert held / numbers == pytest.approx(0.5 + 1 / 64 + 8 / 4096)


def test_what_is_planned_from_the_configuration_alone_is_what_is_held_to_the_byte(written):
    kind, folder = written
    for embeddings in ("device", "cpu"):
        plan = holdings(skeleton(MIXTURES[kind]()), compute=torch.float32, tables=torch.float32, embeddings=embeddings)
        planned: dict[str, int] = {}
        for holding in plan:
            planned[holding.component] = planned.get(holding.component, 0) + holding.bytes
        measured: dict[str, int] = {}
        for placed in device_map(opened(folder, embeddings=embeddings)):
            measured[placed.component] = measured.get(placed.component, 0) + placed.bytes
        assert planned == measured


def test_files_in_half_precision_give_embeddings_as_they_are_and_a_stream_of_float32(tmp_path):
    folder = write_mixture(tmp_path / "half", dtype=torch.bfloat16)
    model = opened(folder, embeddings="cpu")
    words = model.get_input_embeddings()
    assert (words.weight.dtype, words(IDS).dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(words.weight, tiny_mixture(dtype=torch.bfloat16).get_input_embeddings().weight)
    assert logits(model).dtype == torch.float32


def test_a_tied_head_gets_a_copy_of_its_own(tmp_path):
    config = MIXTURES["qwen2-moe"]()
    config.tie_word_embeddings = True
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = opened(tmp_path, embeddings="cpu")
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_products_are_made_in_what_the_device_has(monkeypatch):
    assert compute_dtype(CPU) == torch.float32
    for native, due in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert compute_dtype(torch.device("cuda")) == due


# ── what they compute ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_in_four_bits_computes_what_its_weights_stand_for(written):
    kind, folder = written
    model = opened(folder)
    torch.testing.assert_close(logits(model), logits(fused_copy(model, kind)), rtol=1e-5, atol=1e-5)


def test_a_model_in_four_bits_is_within_the_error_of_four_bits_of_the_model_it_came_from(folder):
    """NF4 moves a weight drawn from a normal distribution by 9 % of its mean size, more where layers follow layers."""
    from safetensors.torch import load_file

    model, source = opened(folder), tiny_mixture()
    for name, weight in plain_tensors(model).items():
        own = source.get_parameter(name)
        assert (weight - own).abs().mean() <= 0.1 * own.abs().mean(), name
    # the error of one layer's answer, where it has not been through a router's choices
    expert, own = model.model.layers[0].mlp.shared_expert, source.model.layers[0].mlp.shared_expert
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (expert(x) - own(x)).norm() <= 0.3 * own(x).norm()
    assert len(list(folder.glob("*.safetensors"))) > 1, "the files are sharded"
    assert load_file(min(folder.glob("*.safetensors")))


def test_packing_for_inference_on_a_cpu_is_off_so_that_evaluation_changes_no_weight(folder):
    model = opened(folder)
    layers = [m for m in model.modules() if hasattr(m, "support_avx512bf16_for_cpu")]
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_unfused_experts_sum_as_the_definition_says():
    generator = torch.Generator().manual_seed(0)
    experts = UnfusedExperts(Expert(6, 5, activation=torch.tanh, device=CPU) for _ in range(4)).double()
    x = torch.randn(7, 6, generator=generator, dtype=torch.float64)
    chosen = torch.stack([torch.randperm(3, generator=generator)[:2] for _ in range(7)])  # expert 3 gets no token
    weights = torch.rand(7, 2, generator=generator, dtype=torch.float64)
    due = [sum(w * experts[e](x[i : i + 1]) for w, e in zip(weights[i], chosen[i], strict=True)) for i in range(7)]
    torch.testing.assert_close(experts(x, chosen, weights), torch.cat(due), rtol=0, atol=1e-12)


def test_a_router_stays_in_float32_under_autocast():
    router = InFloat32(torch.nn.Linear(8, 4, bias=False))
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert router.inner(x).dtype == torch.bfloat16
        found = router(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, router.inner(x))


# ── embeddings and head ────────────────────────────────────────────────────────────────────────────────────────────


def test_embeddings_on_the_cpu_change_no_logit(folder):
    near, far = network_of(folder), network_of(folder, embeddings="cpu")
    assert isinstance(far.backbone.get_input_embeddings(), StayingEmbedding)
    assert not isinstance(near.backbone.get_input_embeddings(), StayingEmbedding)
    assert torch.equal(denoised(near), denoised(far))


def test_a_staying_table_stays_as_and_where_it_is_when_the_network_around_it_moves():
    around = torch.nn.Sequential(StayingEmbedding(torch.ones(5, 4)), torch.nn.Linear(4, 4))
    around.to(device="meta", dtype=torch.float64)
    assert (around[0].weight.device, around[0].weight.dtype) == (CPU, torch.float32)
    assert (around[1].weight.device.type, around[1].weight.dtype) == ("meta", torch.float64)


def test_tables_grow_by_their_mean_and_are_cut():
    table = torch.arange(12.0).reshape(4, 3)
    for module in (WideEmbedding(table), HeldHead(table, torch.arange(4.0))):
        module.resize(6)
        assert torch.equal(module.weight[4:], table.mean(0).expand(2, -1))
        module.resize(2)
        assert torch.equal(module.weight, table[:2])


def test_a_head_in_half_precision_gives_logits_in_float32():
    head = HeldHead(torch.randn(7, 4, generator=torch.Generator().manual_seed(0)).bfloat16())
    assert head(torch.ones(2, 4)).dtype == torch.float32


# ── where they lie ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_device_map_names_every_part_once(folder):
    network = network_of(folder, embeddings="cpu")
    rows = {row.component: row for row in device_map(network)}
    assert rows.keys() == {
        "experts",
        "other linear layers",
        "embeddings",
        "head",
        "norms, gates and biases",
        "adapters",
        "trained in full",
    }
    assert rows["experts"].dtype == "nf4"
    assert rows["trained in full"].numbers == 64, "the vector of the mask"
    assert rows["adapters"].trained == rows["adapters"].numbers
    lines = list(device_lines(network))
    assert len(lines) == len(rows)
    assert any(line.startswith("on cpu: experts, nf4, ") for line in lines)


def test_a_tensor_that_lies_elsewhere_is_an_error(folder):
    network = network_of(folder, embeddings="cpu")
    check_placement(network, device=CPU)
    network.backbone.model.norm.to("meta")
    with pytest.raises(AssertionError, match=r"backbone\.model\.norm\.weight lies on meta, .* says cpu"):
        check_placement(network, device=CPU)
    with pytest.raises(AssertionError, match="lies on cpu, and the device map says cuda"):
        check_placement(network, device=torch.device("cuda"))


# ── what is trained ────────────────────────────────────────────────────────────────────────────────────────────────


def adapted(network):
    return {
        name.removeprefix("backbone.").partition(".lora_")[0]
        for name, p in network.named_parameters()
        if "lora_" in name and p.requires_grad
    }


def test_attention_and_the_shared_expert_are_adapted_and_experts_only_where_they_are_named(folder):
    shared = {f"model.layers.{i}.mlp.shared_expert.{p}_proj" for i in range(2) for p in ("gate", "up", "down")}
    attention = {f"model.layers.{i}.self_attn.{part}_proj" for i in range(2) for part in "qkvo"}
    experts = {
        f"model.layers.{i}.mlp.experts.{e}.{p}_proj" for i in range(2) for e in range(4) for p in ("gate", "up", "down")
    }
    assert adapted(network_of(folder)) == shared | attention
    assert adapted(network_of(folder, lora_targets=("experts",))) == experts
    downs = adapted(network_of(folder, lora_targets=("experts.down_proj", "q_proj")))
    assert downs == {n for n in experts | attention if n.endswith(("down_proj", "q_proj"))}
    assert adapted(network_of(folder, lora_targets=("up_proj",))) == {n for n in shared if n.endswith("up_proj")}
    with pytest.raises(UserError, match=r"network\.lora_targets: no linear layer is named q_prj; .*q_proj"):
        network_of(folder, lora_targets=("q_prj",))


@pytest.mark.parametrize("targets", [None, ("self_attn", "shared_expert", "experts")])
def test_steps_lower_the_loss_and_move_adapters_alone(folder, targets):
    network = network_of(folder, lora_targets=targets, embeddings="cpu")
    run_in_training(network.repeated_layers(), Recomputed())  # activations are computed again through 4 bits
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    (optimizer,) = adamw(network, learning_rate=1e-2, weight_decay=0.0, betas=(0.9, 0.95))
    first = loss(network)
    for _ in range(6):
        found = loss(network)
        found.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert found.item() < 0.7 * first.item()
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert all("lora_" in name or name == "mask_embedding" for name in moved)
    assert "mask_embedding" in moved
    assert any(".self_attn." in name for name in moved)


def test_recomputed_layers_give_the_gradients_of_stored_ones(folder):
    gradients = []
    for recompute in (False, True):
        network = network_of(folder)
        for name, p in network.named_parameters():
            if "lora_B" in name:
                p.data.normal_(generator=torch.Generator().manual_seed(0), std=0.1)
        if recompute:
            run_in_training(network.repeated_layers(), Recomputed())
        loss(network).backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.requires_grad})
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


# ── files ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fingerprint_knows_a_model_again_and_tells_others_apart(folder, tmp_path):
    same = write_mixture(tmp_path / "same", shard="200KB")
    other = write_mixture(tmp_path / "other", seed=1, shard="200KB")
    assert fingerprint(folder) == fingerprint(same) != fingerprint(other)


def test_files_with_parts_that_have_no_place_or_are_missing_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write_mixture(tmp_path / "model")
    path = folder / "model.safetensors"
    whole = load_file(path)
    fused = torch.zeros(4, 128, 64)
    save_file({**whole, "model.layers.0.mlp.experts.gate_up_proj": fused}, path)
    with pytest.raises(UserError, match=r"1 tensors that a qwen2_moe has no place for, such as .*gate_up_proj"):
        opened(folder)
    save_file(
        {name: value for name, value in whole.items() if name != "model.layers.1.mlp.experts.2.up_proj.weight"}, path
    )
    with pytest.raises(UserError, match=r"holds no tensor model\.layers\.1\.mlp\.experts\.2\.up_proj\.weight"):
        opened(folder)
    save_file({**whole, "model.norm.weight": torch.ones(32)}, path)
    with pytest.raises(UserError, match=r"model\.norm\.weight has shape \[32\], and its config\.json asks for \[64\]"):
        opened(folder)


def test_a_folder_without_safetensors_and_a_damaged_file_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"holds no \.safetensors file"):
        folder_of(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"), opened_weights(tmp_path):
        pass


def test_a_model_of_the_hub_is_taken_from_its_cache_unless_a_download_broke_off(folder, tmp_path, monkeypatch):
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    asked, cache = [], []

    def snapshot_download(name, *, allow_patterns, local_files_only=False):
        asked.append(local_files_only)
        assert name == "someone/mixture"
        return str(cache[-1] if local_files_only else folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    for cached, due in ((folder, [True]), (tmp_path, [True, False])):
        asked.clear()
        cache.append(cached)
        assert folder_of("someone/mixture") == folder
        assert asked == due


def test_names_on_disk_are_the_published_ones(written):
    kind, folder = written
    model = skeleton(MIXTURES[kind]())
    layout = layout_of(model.config)
    with opened_weights(folder) as files:
        assert {layout.stored(name) for name, _ in model.named_parameters()} == set(files.places)


# ── what is refused ────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_expert_left_whole_is_refused(folder):
    model = opened(folder)
    expert = model.model.layers[1].mlp.experts[2]
    expert.up_proj = torch.nn.Linear(64, 64, bias=False)
    with pytest.raises(UserError, match=r"experts\.2\.up_proj of a model takes 4\.00 bytes a weight, .* take 0\.52"):
        check_experts(model, name="a model")


def test_fused_experts_are_refused(folder):
    with pytest.raises(
        UserError, match=r"holds experts fused into one tensor \(.*gate_up_proj\), which would stay whole"
    ):
        check_experts(tiny_mixture(), name="a model")
    with pytest.raises(UserError, match=r"% of the weights of a model would stay whole"):
        check_quantised(tiny_mixture(), name="a model")


def test_a_mixture_of_a_kind_that_is_not_known_is_refused(tmp_path):
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "bos_token_id": 256, "eos_token_id": 256}
    config = transformers.GraniteMoeConfig(**sizes, **heads, num_local_experts=4, num_experts_per_tok=2)
    assert config.model_type not in LAYOUTS
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(UserError, match=r"would stay whole .* of a known kind: qwen2_moe, qwen3_moe, olmoe, mixtral"):
        network_of(tmp_path)


def test_routed_layers_are_those_that_a_router_chooses_from():
    model = skeleton(MIXTURES["qwen2-moe"]())
    routed = routed_layers(model)
    assert {name for name in layers_in_four_bits(model) if name in routed} == {
        name for name in layers_in_four_bits(model) if ".experts." in name
    }
    assert not any("shared_expert" in name for name in routed)


# ── on a GPU ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_all_but_the_embeddings_lie_there_and_it_computes_about_the_same(folder):
    device = torch.device("cuda", 0)
    spec = PretrainedSpec(name=str(folder), adaptation="lora", quantisation="nf4", embeddings="cpu")
    tokenizer = huggingface_tokenizer(folder)
    there = build_pretrained(spec, tokenizer, block_length=None, length=16, steps=10, seed=1, device=device)
    check_placement(there, device=device)
    every = torch.ones_like(IDS, dtype=torch.bool).to(device)
    with torch.no_grad():
        found = there.eval()(IDS.to(device), torch.zeros(1, device=device), segments=every.long(), positions=every)
    own = denoised(network_of(folder))
    assert (found.cpu() - own).norm() <= 0.1 * own.norm()
