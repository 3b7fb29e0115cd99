"""How much memory a pretrained model takes, before a byte of it is loaded: from its configuration alone.

Weights are exact: the same rules say how a model is opened and what it is counted as. Activations are an upper
estimate of what autograd keeps, and the rest of a GPU's memory (the CUDA context, fragments) an assumption.

What a decoder layer keeps for its backward pass, in float32 numbers a token, with D the width, s the hidden features of
a shared expert or of a dense MLP, k experts a token of m hidden features each out of E, and updates of rank r:

    10 D + 4 s + k (4 m + 2 D) + 2 E + (8 + 3 k) r                                                        (1)

(the stream before and after both norms, queries, keys, values, what attention gives and its projection reads; gate, its
activation, up and their product; what experts read and answer; what the router says; what updates pass on). With
gradient checkpointing one layer keeps (1) at a time and the others 1 D. Logits are counted four times: multiplied, in
float32, as log-probabilities, as gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch

from remask.backbones.layouts import Holding, Place, holdings, layers_in_four_bits, layout_of
from remask.backbones.quantised import stored_dtype
from remask.backbones.targets import adapted_layers, linear_layers
from remask.networks.pretrained_experts import UnfusedExperts, expert_width

BESIDE = 768 * 2**20
"""Bytes that a CUDA process is taken to need beside its tensors: context, kernels, fragments. Not measured here."""
A_TRAINED_NUMBER = 4 + 4 + 8 + 4
"""Bytes: itself, its gradient, AdamW's two moments and its moving average, all float32."""
FLOAT = 4


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be done with a model.

    Attributes:
        compute: what the device multiplies in.
        quantisation: `nf4` or `none`, of all linear layers but the head and gates.
        embeddings: where they lie.
        batch: rows a step.
        length: places of a row.
        rank: of low-rank updates; 0: every weight is trained.
        targets: the layers that get them, as `adapted_layers` takes them.
        checkpointing: whether layers are computed again in the backward pass.
    """

    compute: torch.dtype
    quantisation: Literal["nf4", "none"] = "nf4"
    embeddings: Place = "cpu"
    batch: int = 2
    length: int = 256
    rank: int = 16
    targets: Sequence[str] | None = None
    checkpointing: bool = True


@dataclass(frozen=True, kw_only=True)
class Demand:
    """A part of what is needed.

    Attributes:
        name: which.
        place: where.
        bytes: how much.
        exact: whether it is counted, not estimated.
        of: `weights`, needed at any time; `training` or `sampling`, needed in one of them.
        note: what it consists of.
    """

    name: str
    place: Place
    bytes: int
    exact: bool
    of: Literal["weights", "training", "sampling"]
    note: str = ""


def demands(model: Any, wish: Wish) -> list[Demand]:
    """All that a model needs, for training and for sampling.

    Args:
        model: its `skeleton`.
        wish: what is to be done with it.

    Raises:
        UserError: when a target names no layer.
    """
    held = list(_held(model, wish))
    return [*_weights(held), *_trained(model, held, wish), *_activations(model, wish)]


def total(parts: Sequence[Demand], *, place: Place, of: Literal["training", "sampling"]) -> int:
    """Bytes at one place while training, or while sampling."""
    return sum(part.bytes for part in parts if part.place == place and part.of in ("weights", of))


def savings(model: Any, wish: Wish) -> list[tuple[str, int]]:
    """What else could be asked for, and the bytes on the device that each change saves in training, most first."""
    changes: list[tuple[str, Wish]] = [
        ("network.adaptation=lora", replace(wish, rank=wish.rank or 16)),
        ("network.quantisation=nf4, with lora", replace(wish, quantisation="nf4", rank=wish.rank or 16)),
        ("network.embeddings=cpu, with lora", replace(wish, embeddings="cpu", rank=wish.rank or 16)),
        ("training.gradient_checkpointing=true", replace(wish, checkpointing=True)),
        ("half the rows a step (training.micro_batch_size)", replace(wish, batch=max(1, wish.batch // 2))),
        ("half the length (data.length)", replace(wish, length=max(1, wish.length // 2))),
    ]
    now = total(demands(model, wish), place="device", of="training")
    saved = [(name, now - total(demands(model, other), place="device", of="training")) for name, other in changes]
    return sorted([(name, count) for name, count in saved if count > 0], key=lambda pair: -pair[1])


def _held(model: Any, wish: Wish) -> list[Holding]:
    # the library holds what it does not quantise in float32; a known mixture is opened by `open_in_four_bits`
    ours = wish.quantisation == "nf4" and layout_of(model.config) is not None
    compute, tables = (wish.compute, stored_dtype(model.config)) if ours else (torch.float32, torch.float32)
    held = list(holdings(model, compute=compute, tables=tables, embeddings=wish.embeddings))
    if getattr(model.config, "tie_word_embeddings", False) and not ours and wish.embeddings == "device":
        held = [holding for holding in held if holding.component != "head"]  # one table, counted as embeddings
    if wish.quantisation == "none":
        held = [replace(holding, dtype=holding.dtype or torch.float32) for holding in held]
    return held


def _weights(held: Sequence[Holding]) -> list[Demand]:
    found: dict[str, list[Holding]] = {}
    for holding in held:
        found.setdefault(holding.component, []).append(holding)
    parts = []
    for name, group in found.items():
        kinds = {str(h.dtype).removeprefix("torch.") if h.dtype else "nf4" for h in group}
        note = f"{sum(h.numbers for h in group):,} numbers, {' and '.join(sorted(kinds))}"
        size = sum(h.bytes for h in group)
        parts.append(Demand(name=name, place=group[0].place, bytes=size, exact=True, of="weights", note=note))
    return sorted(parts, key=lambda part: -part.bytes)


def _trained(model: Any, held: Sequence[Holding], wish: Wish) -> list[Demand]:
    if wish.rank:
        sizes = linear_layers(model)
        chosen = adapted_layers(model, wish.targets)
        numbers = wish.rank * sum(sum(sizes[name]) for name in chosen)
        own = Demand(
            name="adapters",
            place="device",
            bytes=FLOAT * numbers,
            exact=True,
            of="weights",
            note=f"{numbers:,} numbers, float32, rank {wish.rank} at {len(chosen)} layers",
        )
        what = [own]
    else:
        numbers, what = sum(holding.numbers for holding in held), []
    rest = Demand(
        name="gradients, AdamW, average",
        place="device",
        bytes=(A_TRAINED_NUMBER - FLOAT) * numbers,
        exact=True,
        of="training",
        note=f"{A_TRAINED_NUMBER - FLOAT} bytes for each of {numbers:,} trained numbers",
    )
    return [*what, rest]


def _activations(model: Any, wish: Wish) -> list[Demand]:
    tokens, config = wish.batch * wish.length, model.config
    layer, stream = FLOAT * tokens * layer_numbers(model, rank=wish.rank), FLOAT * tokens * config.hidden_size
    layers = config.num_hidden_layers
    kept = layers * stream + layer if wish.checkpointing else layers * layer
    how = "one layer at a time, and the stream before each" if wish.checkpointing else "of all layers"
    logits = tokens * config.vocab_size * FLOAT
    largest = max((m.weight.numel() for m in layers_in_four_bits(model).values()), default=0)
    whole = 2 * largest * wish.compute.itemsize if wish.quantisation == "nf4" else 0
    guess = partial(Demand, place="device", exact=False)
    return [
        guess(name="activations", bytes=kept, of="training", note=how),
        guess(name="logits", bytes=4 * logits, of="training", note=f"{tokens:,} places, four times"),
        guess(name="activations, sampling", bytes=layer, of="sampling", note="one layer"),
        guess(name="logits, sampling", bytes=3 * logits, of="sampling", note="three times"),
        guess(name="a layer out of 4 bits", bytes=whole, of="weights", note="the largest, twice"),
        guess(name="beside tensors", bytes=BESIDE, of="weights", note="CUDA context, fragments: assumed"),
    ]


def layer_numbers(model: Any, *, rank: int) -> int:
    """Equation (1), of a layer with experts where there are any."""
    config, width = model.config, model.config.hidden_size
    experts = next((m for m in model.modules() if isinstance(m, UnfusedExperts)), None)
    if experts is None:
        return 10 * width + 4 * config.intermediate_size + 8 * rank
    shared = getattr(config, "shared_expert_intermediate_size", 0) or 0
    hidden, chosen = expert_width(experts), config.num_experts_per_tok
    own = 10 * width + 4 * shared + 2 * len(experts)
    return own + chosen * (4 * hidden + 2 * width) + (8 + 3 * chosen) * rank
