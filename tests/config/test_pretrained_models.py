"""Pretrained models opened, adapted and saved."""

import pytest
import torch

from pretrained_models import CONFIGS, EOS, VOCABULARY, tiny_model, write_model, write_tokenizer
from remask.checkpoints import Checkpoints, network_tensors, put_weights
from remask.config.adaptation import plain_tensors
from remask.config.pretrained import architecture_of, build_pretrained, rebuild_pretrained
from remask.config.schema import PretrainedSpec
from remask.errors import UserError
from remask.objectives import LikelihoodBound, masking_integrand
from remask.optimisation import MovingAverage, adamw, trained_parameters
from remask.processes import Masking
from remask.schedules import Linear
from remask.tokenizers import ByteTokenizer, huggingface_tokenizer
from remask.training import TrainingState
from tiny import differing, everything, run_steps

CPU = torch.device("cpu")
IDS = torch.tensor([[72, 101, 108, 108, 111, 32]])


def opened(folder, *, seed=1, block_length=None, length=16, **keys):
    spec = PretrainedSpec(name=str(folder), **keys)
    tokenizer = huggingface_tokenizer(folder)
    return build_pretrained(spec, tokenizer, block_length=block_length, length=length, steps=10, seed=seed, device=CPU)


def rebuilt(folder, network, **keys):
    spec = PretrainedSpec(name="gone", **keys)
    return rebuild_pretrained(
        spec,
        huggingface_tokenizer(folder),
        architecture=architecture_of(network),
        block_length=None,
        steps=10,
        device=CPU,
    ).eval()


def logits(network, ids=IDS):
    every = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        return network.eval()(ids, torch.zeros(len(ids)), segments=every.long(), positions=every)


def loss(network, ids):
    every = torch.ones_like(ids, dtype=torch.bool)
    hidden = torch.where(torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.5, network.mask_id, ids)
    found = network.train()(hidden, torch.zeros(len(ids)), segments=every.long(), positions=every)
    return torch.nn.functional.cross_entropy(found, ids.flatten())


@pytest.fixture(params=CONFIGS, scope="module")
def folder(request, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / request.param, request.param)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "gpt2", "gpt2")


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "qwen2", "qwen2")


@pytest.mark.usefixtures("global_generator_untouched")
@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_opening_and_rebuilding_draw_from_no_global_generator(gpt2, adaptation):
    rebuilt(gpt2, opened(gpt2, adaptation=adaptation))


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_a_saved_network_comes_back_without_its_source(folder, adaptation):
    network = opened(folder, adaptation=adaptation, lora_rank=2)
    optimizers = adamw(network, learning_rate=1e-2, weight_decay=0.0, betas=(0.9, 0.9))
    for _ in range(2):
        loss(network, IDS).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    again = rebuilt(folder, network, adaptation=adaptation, lora_rank=2)
    put_weights(again, plain_tensors(network), source=folder)
    torch.testing.assert_close(logits(again), logits(network), rtol=1e-4, atol=1e-4)


def test_it_knows_the_tokenizers_ids_and_keeps_the_models_weights(folder):
    network, source = opened(folder), tiny_model(folder.name)
    table = network.backbone.get_output_embeddings().weight
    assert logits(network).shape == (6, VOCABULARY)
    assert (network.mask_id, network.start_id) == (VOCABULARY - 1, EOS)
    torch.testing.assert_close(table, source.get_output_embeddings().weight, rtol=0, atol=0)


def test_more_rows_than_ids_are_cut_and_missing_ones_are_means(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    for rows in (256, 300):
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = LlamaConfig(vocab_size=rows, bos_token_id=None, eos_token_id=None, initializer_range=0.3, **sizes)
        LlamaForCausalLM(config).save_pretrained(tmp_path / str(rows))
        write_tokenizer(tmp_path / str(rows))
        network = opened(tmp_path / str(rows))
        table = network.backbone.get_input_embeddings().weight
        assert len(table) == 258
        if rows == 256:
            torch.testing.assert_close(table[256:], table[:256].mean(0).expand(2, -1))


def test_low_rank_updates_leave_the_model_as_it_is_at_first_and_are_all_that_is_trained(folder):
    full, lora = opened(folder), opened(folder, adaptation="lora", lora_rank=2)
    torch.testing.assert_close(logits(lora), logits(full), rtol=0, atol=1e-5)
    trained = {name for name, p in lora.named_parameters() if p.requires_grad}
    assert all("lora_" in name or name == "mask_embedding" for name in trained)
    assert set(network_tensors(lora)) == trained == set(MovingAverage(lora, decay=0.9).average)
    assert {id(p) for p in lora.hidden_matrices()} == {id(p) for p in trained_parameters(lora) if p.ndim == 2}
    before = {name: p.detach().clone() for name, p in lora.named_parameters()}
    optimizers = adamw(lora, learning_rate=1e-2, weight_decay=0.1, betas=(0.9, 0.9))
    for _ in range(2):
        loss(lora, IDS).backward()
        optimizers[0].step()
        optimizers[0].zero_grad()
    moved = {name for name, p in lora.named_parameters() if not torch.equal(p, before[name])}
    assert moved <= trained
    assert "mask_embedding" in moved
    assert len(moved) > len(trained) / 2


def test_updates_are_a_function_of_the_seed(qwen2):
    one, same, other = (opened(qwen2, adaptation="lora", seed=seed) for seed in (1, 1, 2))
    drawn = [network_tensors(network) for network in (one, same, other)]
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert not all(torch.equal(drawn[0][name], drawn[2][name]) for name in drawn[0])


def test_chosen_targets_alone_get_updates(gpt2):
    network = opened(gpt2, adaptation="lora", lora_targets=("c_attn",))
    updated = {name.partition(".lora_")[0] for name, _ in network.named_parameters() if "lora_" in name}
    assert updated == {f"backbone.transformer.h.{i}.attn.c_attn" for i in (0, 1)}


@pytest.mark.parametrize(("attention", "trained"), [("causal", False), ("bidirectional", True)])
def test_the_mask_is_trained_only_where_it_is_ever_read(gpt2, attention, trained):
    network = opened(gpt2, attention=attention)
    assert network.mask_embedding.requires_grad is trained
    assert "mask_embedding" in network_tensors(network), "it is kept all the same"


def test_a_few_steps_teach_a_tiny_model_the_text(gpt2):
    network = opened(gpt2, anneal_ratio=0.5)
    optimizers = adamw(network, learning_rate=1e-2, weight_decay=0.0, betas=(0.9, 0.95))
    first = loss(network, IDS).item()
    for step in range(1, 21):
        network.begin_step(step)
        loss(network, IDS).backward()
        optimizers[0].step()
        optimizers[0].zero_grad()
    assert loss(network, IDS).item() < first / 2


# ── four bits ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_four_bits_are_frozen_trained_through_and_saved_as_the_weights_they_stand_for(tmp_path):
    pytest.importorskip("bitsandbytes")
    folder = write_model(tmp_path / "llama", "llama")
    network = opened(folder, adaptation="lora", quantisation="nf4", lora_rank=2)
    packed = [p for p in network.parameters() if p.dtype == torch.uint8]
    assert len(packed) == 14
    loss(network, IDS).backward()
    assert all(p.grad is not None for name, p in network.named_parameters() if "lora_" in name)
    for name, p in network.named_parameters():
        if "lora_B" in name:
            p.data.normal_(generator=torch.Generator().manual_seed(0), std=0.1)
    assert set(network_tensors(network)) == {name for name, p in network.named_parameters() if p.requires_grad}
    again = rebuilt(folder, network, adaptation="lora", quantisation="nf4")
    put_weights(again, plain_tensors(network), source=folder)
    torch.testing.assert_close(logits(again), logits(network), rtol=1e-3, atol=1e-3)


# ── mistakes ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("package", "extra"), [("peft", "adapters"), ("bitsandbytes", "quantisation")])
def test_a_missing_package_is_named_with_its_extra(gpt2, monkeypatch, package, extra):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    quantisation = "nf4" if package == "bitsandbytes" else "none"
    with pytest.raises(UserError, match=rf"pip install 'remask\[{extra}\]'"):
        opened(gpt2, adaptation="lora", quantisation=quantisation)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=90, n_embd=8, n_layer=1, n_head=1)).save_pretrained(tmp_path)
    spec = PretrainedSpec(name=str(tmp_path))
    with pytest.raises(UserError, match=r"knows 90 ids and the tokenizer has 258; set tokenizer\.name="):
        build_pretrained(spec, ByteTokenizer(), block_length=None, length=16, steps=1, seed=1, device=CPU)


@pytest.mark.parametrize(("attention", "longest"), [("bidirectional", 63), ("causal", 64)])
def test_rows_longer_than_learned_positions_are_refused(gpt2, attention, longest):
    opened(gpt2, attention=attention, length=longest)
    with pytest.raises(UserError, match=rf"64 learned positions, .* give data\.length={longest} or less"):
        opened(gpt2, attention=attention, length=longest + 1)


def test_damaged_weights_are_one_line(tmp_path):
    folder = write_model(tmp_path / "llama", "llama")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="its weights cannot be loaded") as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


# ── resuming ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_a_resumed_run_goes_on_bit_for_bit_while_attention_opens(gpt2, tmp_path, adaptation):
    def state():
        network = opened(gpt2, anneal_ratio=0.4, adaptation=adaptation)
        optimizers = adamw(network, learning_rate=1e-2, weight_decay=0.1, betas=(0.9, 0.95))
        return TrainingState(network, optimizers, MovingAverage(network, decay=0.9))

    process = Masking(schedule=Linear(), vocab_size=VOCABULARY, mask_id=VOCABULARY - 1)
    bound = LikelihoodBound(process=process, integrand=masking_integrand, t_min=1e-3)
    straight, stopped, resumed = state(), state(), state()
    run_steps(straight, 4, objective=bound)
    assert straight.network.opened == 0.75
    run_steps(stopped, 2, objective=bound)
    Checkpoints(tmp_path, keep=1).save(stopped, extra={})
    Checkpoints(tmp_path, keep=1).load_newest(resumed)
    run_steps(resumed, 4, objective=bound)
    assert differing(everything(straight), everything(resumed)) == []
