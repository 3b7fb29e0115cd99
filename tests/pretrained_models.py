"""Tiny causal language models with random weights and their tokenizer, as `save_pretrained` writes them."""

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

VOCABULARY = 258
"""Bytes, an end of text and one id that no text uses; a mask is still missing."""
EOS = 256

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "bos_token_id": EOS,
    "eos_token_id": EOS,
    # far from the usual 0.02, so that every token has a say in the logits
    "initializer_range": 0.3,
}
_GPT2: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 64,
    "bos_token_id": EOS,
    "eos_token_id": EOS,
    "initializer_range": 0.3,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**_COMMON),
    "qwen2": lambda: transformers.Qwen2Config(**_COMMON, tie_word_embeddings=True),
    # a window of two tokens, which a denoiser must not be held to
    "qwen2-window": lambda: transformers.Qwen2Config(
        **_COMMON, use_sliding_window=True, sliding_window=2, max_window_layers=0
    ),
    "qwen3": lambda: transformers.Qwen3Config(**_COMMON, head_dim=8),
    "gpt2": lambda: transformers.GPT2Config(**_GPT2),
    "qwen2-moe": lambda: transformers.Qwen2MoeConfig(
        **_COMMON, **_EXPERTS, num_experts=4, shared_expert_intermediate_size=8
    ),
    "mixtral": lambda: transformers.MixtralConfig(**_COMMON, num_experts_per_tok=2, num_local_experts=4),
}


def tiny_model(kind: str, *, seed: int = 0) -> Any:
    """A random causal language model of that kind."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]()).eval()


def write_model(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """A folder with a model and its tokenizer."""
    tiny_model(kind, seed=seed).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """One token a byte, an end of text, and no mask."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


# ── mixtures of experts whose layers fill blocks of 64, as four bits want them ─────────────────────────────────────

WIDTH = 64
_WIDE: dict[str, Any] = {**_COMMON, "hidden_size": WIDTH, "intermediate_size": 64, "num_experts_per_tok": 2}
MIXTURES = {
    "qwen2-moe": lambda: transformers.Qwen2MoeConfig(
        **_WIDE, num_experts=4, moe_intermediate_size=64, shared_expert_intermediate_size=128
    ),
    "qwen3-moe": lambda: transformers.Qwen3MoeConfig(**_WIDE, head_dim=32, num_experts=4, moe_intermediate_size=64),
    "mixtral": lambda: transformers.MixtralConfig(**_WIDE, num_local_experts=4),
    "olmoe": lambda: transformers.OlmoeConfig(**_WIDE, num_experts=4),
}


def tiny_mixture(kind: str = "qwen2-moe", *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A random mixture of experts of that kind, as the library makes it, its weights rounded to a dtype."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.AutoModelForCausalLM.from_config(MIXTURES[kind](), dtype=dtype).eval()


def write_mixture(
    folder: Path, kind: str = "qwen2-moe", *, seed: int = 0, dtype: torch.dtype = torch.float32, shard: str = "50GB"
) -> Path:
    """A folder with a mixture and its tokenizer; `shard` is the size of a file at most."""
    tiny_mixture(kind, seed=seed, dtype=dtype).save_pretrained(folder, max_shard_size=shard)
    write_tokenizer(folder)
    return folder
