"""Configurations of published mixtures, as their authors gave them, for a machine that cannot ask the Hub."""

from collections.abc import Mapping
from typing import Any

CONFIGURATIONS: Mapping[str, Mapping[str, Any]] = {
    "Qwen/Qwen1.5-MoE-A2.7B": {
        "model_type": "qwen2_moe",
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "dtype": "bfloat16",
    },
}
"""Name on the Hub → what of its config.json decides sizes."""


def published_config(name: str) -> Any | None:
    """The library's configuration of a published mixture; None where its values are not kept here."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    values = dict(CONFIGURATIONS.get(name, {}))
    return CONFIG_MAPPING[values.pop("model_type")].from_dict(values) if values else None
