"""Optimisers and learning-rate curves, from a recipe."""

import math
import re
from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from remask import optimisation
from remask.config import schema
from remask.optimisation import Curve, Trainable


def build_optimizers(spec: schema.TrainingSpec, network: nn.Module) -> Sequence[Optimizer]:
    """The optimisers of a recipe over all of a network's parameters."""
    common = {
        "learning_rate": spec.learning_rate,
        "weight_decay": spec.weight_decay,
        "betas": spec.betas,
    }
    match spec.optimizer:
        case "adamw":
            return optimisation.adamw(network, **common)
        case "muon":
            assert isinstance(network, Trainable)
            hidden = list(network.hidden_matrices())
            return optimisation.muon(network, hidden, muon_learning_rate=spec.muon_learning_rate, **common)


def build_curve(spec: schema.TrainingSpec) -> Curve:
    """The learning-rate curve of a recipe."""
    warmup = math.ceil(spec.warmup_ratio * spec.steps)
    after = spec.steps - warmup
    match spec.decay:
        case "constant":
            decay = optimisation.constant
        case "cosine":
            decay = optimisation.cosine_decay(after, final=spec.final_learning_rate)
        case "linear":
            decay = optimisation.linear_decay(after, final=spec.final_learning_rate)
        case "wsd":
            decay = optimisation.warmup_stable_decay(after, final=spec.final_learning_rate)
    return optimisation.warmed(decay, warmup_steps=warmup)


def describe_shape(recipe: schema.Recipe) -> str:
    """The network's size in a run id, or a pretrained model's name.

    `D256L4R3E8`: width, layers, and where there are any how many blocks are reversible and the experts a block.
    `D128L4W16`: of a thought, width, layers, features of a vector; `D128L4codec` with a codec.
    `D96L2W16K2`: of an autoencoder of responses, the same, and tokens a vector.
    `H512L6C128D2`: width, layers of the encoder, concepts, layers of the decoder.
    """
    match recipe.network:
        case schema.BlocksSpec() as spec:
            reversible = f"R{spec.reversible_blocks}" if isinstance(spec, schema.ReversibleSpec) else ""
            return f"D{spec.width}L{spec.layers}{reversible}" + (f"E{spec.experts}" if spec.experts else "")
        case schema.ConceptSpec() as spec:
            slots = spec.slot_count
            return f"H{spec.width}L{spec.layers}" + ("" if slots is None else f"C{slots}") + f"D{spec.decoder_depth}"
        case schema.ConceptPriorNetworkSpec() as spec:
            return f"D{spec.width}L{spec.layers}"
        case schema.ThoughtSpec() as spec:
            latent = "codec" if spec.latent == "codec" else f"W{spec.table_width}"
            return f"D{spec.width}L{spec.layers}{latent}" + (f"E{spec.experts}" if spec.experts else "")
        case schema.TextAutoencoderNetworkSpec() as spec:
            return f"D{spec.width}L{spec.layers}W{spec.latent_width}K{spec.stride}"
        case schema.AdaptedSpec() as spec:
            return re.sub(r"[^A-Za-z0-9.-]+", "-", spec.name.rstrip("/").rpartition("/")[2]) or "pretrained"
