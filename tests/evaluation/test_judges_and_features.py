"""Readers of samples: found by name, told apart by content, refused in one line; states that are the network's own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pretrained_models import tiny_model, write_model
from remask.errors import UserError
from remask.judgement import load_features, load_judge
from remask.judgement.readers import RunReader, encodable, reader_protocol
from remask.model import Model
from remask.networks.pretrained import PretrainedDenoiser
from remask.networks.reading import read_both_ways
from remask.runs import Registry
from remask.tokenizers import ByteTokenizer, CharacterTokenizer
from tiny import BOUND, tiny_network

CPU = torch.device("cpu")
BYTES = ByteTokenizer()


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "runs")


def test_another_model_under_the_same_name_is_another_judge(tmp_path, registry):
    folders = [write_model(tmp_path / str(seed) / "judge", "gpt2", seed=seed) for seed in (0, 1)]
    first, second = (reader_protocol("judge", load_judge(str(f), registry=registry, device=CPU)) for f in folders)
    again = reader_protocol("judge", load_judge(str(folders[0]), registry=registry, device=CPU))
    assert first == again
    assert first["judge"] == second["judge"] == "judge"
    assert first["judge_weights"] != second["judge_weights"]
    assert first["judge_tokenizer"] == second["judge_tokenizer"]
    assert (first["judge_row"], first["judge_start"]) == (64, "<|endoftext|>")
    config = folders[0] / "tokenizer_config.json"
    config.write_text(config.read_text() + " ")
    other = reader_protocol("judge", load_judge(str(folders[0]), registry=registry, device=CPU))
    assert other["judge_tokenizer"] != first["judge_tokenizer"]


def refused(folder: Path, registry) -> str:
    with pytest.raises(UserError) as error:
        load_judge(str(folder), registry=registry, device=CPU)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_no_causal_model_with_all_its_weights_in_safetensors_is_refused(tmp_path, registry):
    folder = write_model(tmp_path / "judge", "llama")
    weights = folder / "model.safetensors"
    kept = weights.read_bytes()
    weights.rename(folder / "pytorch_model.bin")
    assert "no *.safetensors" in refused(folder, registry)
    weights.write_bytes(kept[:-200])
    assert "can be loaded" in refused(folder, registry)
    state = {name: value for name, value in tiny_model("llama").state_dict().items() if "layers.1.mlp" not in name}
    save_file(state, weights, metadata={"format": "pt"})
    assert "its files lack model.layers.1.mlp" in refused(folder, registry)
    weights.write_bytes(kept)
    (folder / "tokenizer.json").unlink()
    assert "can be loaded" in refused(folder, registry)
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    assert "can be loaded" in refused(folder, registry)


def test_a_name_that_is_not_on_disk_is_to_be_downloaded_first(tmp_path, registry):
    message = refused(Path("Qwen/Qwen3-0.6B"), registry)
    assert "hf download Qwen/Qwen3-0.6B --local-dir FOLDER" in message
    assert message.startswith("--judge Qwen/Qwen3-0.6B: there is no such folder, and no run")
    (tmp_path / "empty").mkdir()
    assert "neither a run (run.json) nor a model (config.json)" in refused(tmp_path / "empty", registry)
    with pytest.raises(UserError, match="--features nothing"):
        load_features("nothing", registry=registry, device=CPU)


def test_a_run_s_state_of_a_text_is_the_mean_of_what_its_projection_reads():
    network = tiny_network(vocab_size=BYTES.vocab_size, dropout=0.5)
    model = Model(network=network, process=None, objective=BOUND, tokenizer=BYTES, length=6)
    reader = RunReader(name="run", model=model, weights="w")
    samples = [np.array([*b"ab"]), np.array([*b"a", BYTES.eos_id, *b"bcdefgh"])]
    found = reader.states(samples, BYTES)
    network.eval()
    seen = []
    network.norm.register_forward_hook(lambda _, __, out: seen.append(out))
    for ids, segments in (([*b"ab"], [1, 1]), ([*b"a", BYTES.eos_id, *b"bcde"], [1, 1, 2, 2, 2, 2])):
        z = torch.tensor([ids])
        network(z, torch.zeros(1), segments=torch.tensor([segments]), positions=torch.ones_like(z, dtype=torch.bool))
    np.testing.assert_allclose(found, torch.stack([s.mean(0) for s in seen]).detach(), rtol=1e-4, atol=1e-6)


def test_a_run_on_a_pretrained_backbone_has_states_too():
    backbone = tiny_model("llama")
    network = PretrainedDenoiser(backbone, reading=read_both_ways, mask_id=BYTES.mask_id, start_id=BYTES.eos_id)
    model = Model(network=network, process=None, objective=BOUND, tokenizer=BYTES, length=6)
    found = RunReader(name="run", model=model, weights="w").states(
        [np.array([*b"ab"]), np.array([*b"abcdefgh"])], BYTES
    )
    assert found.shape == (2, 16)
    assert np.isfinite(found).all()
    assert (found[0] != found[1]).any()


def test_a_folder_s_states_are_of_the_whole_text_and_ends_stand_between_documents(tmp_path, registry):
    reader = load_features(str(write_model(tmp_path / "it", "llama")), registry=registry, device=CPU)
    joined = reader.states([np.array([*b"ab", BYTES.eos_id, *b"c"])], BYTES)
    inner = reader.reader
    expected = inner.last_states([[*inner.tokens("ab"), inner.end_id, *inner.tokens("c")]])
    np.testing.assert_array_equal(joined, expected)
    assert (joined != reader.states([np.array([*b"c"])], BYTES)).any()


def test_characters_that_a_tokenizer_lacks_are_left_out():
    assert encodable("abcab", CharacterTokenizer("ab")) == "abab"
