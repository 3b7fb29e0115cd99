"""Embeddings that stay on the CPU, of a model that lies on a pretended device which refuses to mix devices."""

import pytest
import torch

from devices import CPU, MPS, pretended
from pretrained_models import write_model
from remask.backbones.placement import check_placement, device_map
from remask.config.pretrained import build_pretrained
from remask.config.schema import PretrainedSpec
from remask.tokenizers import huggingface_tokenizer

IDS = torch.tensor([[72, 101, 108, 108, 111, 32]])


def opened(folder, *, device, **keys):
    spec = PretrainedSpec(name=str(folder), adaptation="lora", lora_rank=2, **keys)
    tokenizer = huggingface_tokenizer(folder)
    return build_pretrained(spec, tokenizer, block_length=None, length=16, steps=10, seed=1, device=device)


def logits(network, ids):
    every = torch.ones_like(ids, dtype=torch.bool)
    times = torch.zeros(len(ids), device=ids.device)
    return network(ids, times, segments=every.long(), positions=every)


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "llama"])
def test_a_table_on_the_cpu_serves_a_model_on_another_device(tmp_path, kind):
    """`qwen2` shares its table with the head, which then has a copy on the device."""
    folder = write_model(tmp_path / kind, kind)
    due = logits(opened(folder, device=CPU).eval(), IDS)
    with pretended(MPS):
        network = opened(folder, device=MPS, embeddings="cpu")
        places = {(row.component, row.device) for row in device_map(network)}
        assert ("embeddings", CPU) in places
        assert ("head", MPS) in places
        check_placement(network, device=MPS)
        found = logits(network, IDS.to(MPS))
        torch.nn.functional.cross_entropy(found, IDS.to(MPS).flatten()).backward()
        assert all(p.grad is not None for name, p in network.named_parameters() if "lora_B" in name)
        torch.testing.assert_close(logits(network.eval(), IDS.to(MPS)).cpu(), due)
        network.backbone.get_output_embeddings().to(CPU)
        with pytest.raises(AssertionError, match=r"lies on cpu, and the device map says mps"):
            check_placement(network, device=MPS)
