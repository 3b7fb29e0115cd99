r"""What a mixture of experts costs in floating-point operations, by a closed form.

With L layers, D the width, A the width of all attention heads together and K that of all key-value heads, m the hidden
features of an expert of which a token uses k out of E, s those of the shared expert (0 without, with a gate of D
otherwise), S the places that attend to each other and V the vocabulary, a token costs forward

    2 [L (2 D A + 2 D K + 3 D m k + 3 D s + D E + D) + D V] + 4 L S A

and with A = K = D, as in Qwen1.5-MoE, 2 [L (4 D² + 3 D m k + 3 D s + D E + D) + D V] + 4 L S D. A layer without experts
costs 3 D F in place of theirs, F its hidden features. Attention counts for all pairs of places, as in `remask.flops`.

Training costs the forward pass three times where all is trained. With a frozen model it costs it twice, a gradient
with respect to every activation and none with respect to a frozen weight, and 4 L S A more, since attention multiplies
activations alone: each of its products has two gradients. Low-rank updates of rank r add 3 · 2 r (D_in + D_out) for
each layer that has one.
"""

from collections.abc import Sequence
from typing import Any

from remask.backbones.targets import adapted_layers, linear_layers
from remask.networks.pretrained_experts import UnfusedExperts, expert_width


def forward_flops(model: Any, *, places: int, asked: float = 1.0) -> float:
    """Operations of a forward pass for each token.

    Args:
        model: as `skeleton` gives it, with or without weights.
        places: S.
        asked: the share of tokens for which the vocabulary projection runs.
    """
    config, owners = model.config, [m for m in model.modules() if isinstance(m, UnfusedExperts)]
    width, layers, sparse = config.hidden_size, config.num_hidden_layers, len(owners)
    queries, keys = _head_width(config) * config.num_attention_heads, _head_width(config) * config.num_key_value_heads
    weights = layers * (2 * width * queries + 2 * width * keys)
    if owners:
        expert, shared = expert_width(owners[0]), getattr(config, "shared_expert_intermediate_size", 0) or 0
        routed = 3 * width * expert * config.num_experts_per_tok + width * len(owners[0])
        weights += sparse * (routed + (3 * width * shared + width if shared else 0))
    weights += (layers - sparse) * 3 * width * config.intermediate_size
    return 2 * (weights + asked * width * config.vocab_size) + attention_flops(config, places=places)


def attention_flops(config: Any, *, places: int) -> float:
    """Operations of attention's own two products in a forward pass for each token: 4 L S A."""
    return 4 * config.num_hidden_layers * places * _head_width(config) * config.num_attention_heads


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def training_flops(
    model: Any, *, places: int, rank: int, targets: Sequence[str] | None = None, asked: float = 1.0
) -> float:
    """Operations of training a frozen model's low-rank updates for each token, nothing computed again counted.

    Args:
        model: as in `forward_flops`.
        places: as in `forward_flops`.
        rank: of the updates.
        targets: the layers that have them, as `adapted_layers` takes them.
        asked: as in `forward_flops`.
    """
    share = expert_share(model)
    sizes, updates = linear_layers(model), 0.0
    for name in adapted_layers(model, targets):
        updates += rank * sum(sizes[name]) * (share if ".experts." in name else 1.0)
    forward, attention = forward_flops(model, places=places, asked=asked), attention_flops(model.config, places=places)
    return 2 * forward + attention + 6 * updates


def expert_share(model: Any) -> float:
    """The share of a layer's experts that a token uses; 1 without experts."""
    experts = next((m for m in model.modules() if isinstance(m, UnfusedExperts)), None)
    return 1.0 if experts is None else model.config.num_experts_per_tok / len(experts)
