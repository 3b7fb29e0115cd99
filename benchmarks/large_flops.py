"""Operations of Qwen1.5-MoE-A2.7B and of dense models beside it, in full shape on the device `meta`.

Nothing is computed there and no weight is held, but torch's counter sees every product. Attention is the library's
eager one; experts are its batched ones, which make the products of the eager ones (`tests/backbones`) and, unlike
those, do not ask how many tokens an expert has. Dense models have one MLP in the place of shared and routed experts,
router and gate: of as many operations a token, or of as many weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from remask.backbones.costs import forward_flops, training_flops
from remask.backbones.layouts import skeleton
from remask.backbones.memory import Wish, demands, total
from remask.backbones.published import published_config
from remask.backbones.targets import adapted_layers

NAME = "Qwen/Qwen1.5-MoE-A2.7B"
RANK = 16
META = torch.device("meta")


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A model's operations a token.

    Attributes:
        name: of the model.
        parameters: all of them.
        places: S.
        forward: counted in a forward pass.
        forward_formula: by the closed form.
        training: counted in a forward and backward pass of low-rank updates beside frozen weights.
        training_formula: by the closed form.
        training_bytes: predicted for a device, in 4 bits, 2 rows of S places at once.
    """

    name: str
    parameters: int
    places: int
    forward: float
    forward_formula: float
    training: float
    training_formula: float
    training_bytes: int


def large_models(*, places: int) -> Iterator[Counted]:
    """The mixture and its dense matches."""
    mixture: Any = published_config(NAME)
    shared, width, experts = mixture.shared_expert_intermediate_size, mixture.moe_intermediate_size, mixture.num_experts
    beside = round((experts + 1) / 3)  # router and gate have (E + 1) D weights, an MLP 3 D for each hidden feature
    yield counted(f"{experts} experts, {mixture.num_experts_per_tok} a token, and a shared one", mixture, places=places)
    active = shared + width * mixture.num_experts_per_tok + beside
    yield counted(f"dense, {active:,} hidden: equal operations", dense(mixture, hidden=active), places=places)
    whole = shared + width * experts + beside
    yield counted(f"dense, {whole:,} hidden: equal parameters", dense(mixture, hidden=whole), places=places)


def dense(mixture: Any, *, hidden: int) -> Any:
    """The configuration of a dense model of the mixture's other sizes."""
    from transformers import Qwen2Config

    kept = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "dtype")
    return Qwen2Config(
        **{name: getattr(mixture, name) for name in kept}, intermediate_size=hidden, tie_word_embeddings=False
    )


def counted(name: str, config: Any, *, places: int) -> Counted:
    """Counts a row of so many places forward, and forward and backward behind given vectors."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    bones = skeleton(config)
    with META:
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
        words = torch.zeros(1, places, config.hidden_size)
    model.set_experts_implementation("batched_mm")
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        model(inputs_embeds=words)
    updates = LoraConfig(r=RANK, target_modules=adapted_layers(bones, None), init_lora_weights=False)
    adapted: Any = get_peft_model(model.requires_grad_(False), updates)
    with FlopCounterMode(display=False) as training:
        adapted(inputs_embeds=words.requires_grad_()).logits.sum().backward()
    wish = Wish(compute=torch.float16, batch=2, length=places, rank=RANK)
    return Counted(
        name=name,
        parameters=sum(parameter.numel() for parameter in bones.parameters()),
        places=places,
        forward=forward.get_total_flops() / places,
        forward_formula=forward_flops(bones, places=places),
        training=training.get_total_flops() / places,
        training_formula=training_flops(bones, places=places, rank=RANK),
        training_bytes=total(demands(bones, wish), place="device", of="training"),
    )
