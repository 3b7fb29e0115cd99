"""Device, network and model, from a recipe."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from remask.config import schema
from remask.config.build.concept_objectives import add_term_weights
from remask.config.build.concepts import build_concept_network
from remask.config.build.experts import gated_mlp
from remask.config.build.latents import build_prior_network, codec_recipe
from remask.config.build.noise import build_objective, build_process
from remask.config.build.thought import build_scratch_thought
from remask.config.build.thought_backbones import build_pretrained_thought
from remask.config.build.thought_codecs import build_text_autoencoder
from remask.config.pretrained import build_pretrained, rebuild_pretrained
from remask.errors import UserError
from remask.model import Model
from remask.networks.blocks import (
    Branch,
    Final,
    ModulatedBranch,
    ModulatedFinal,
    ModulatedResidual,
    Residual,
    TimeEmbedding,
    Timeless,
    bounded,
    unbounded,
)
from remask.networks.couplings import Additive, Affine
from remask.networks.inverted import inverted, stored
from remask.networks.mask_bias import MaskBias
from remask.networks.reversible import mixed, reversible
from remask.networks.running import Compiled, Recomputed, Run, direct, run_in_training
from remask.networks.stacks import Inner, Stack, standard, straight
from remask.networks.transformer import BIDIRECTIONAL, CAUSAL, Direction, Transformer, block_causal
from remask.randomness import keyed_generator
from remask.tokenizers import Tokenizer


def resolve_device(name: str) -> torch.device:
    """The device that a recipe or `--device` names; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: when the named device is not on this machine, with those that are.
    """
    present = ["cpu"]
    if torch.cuda.is_available():
        present += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        present.append("mps")
    if name == "auto":
        name = next(best for best in ("cuda", "mps", "cpu") if best in present)
    if name not in present:
        raise UserError(f"device={name} is not on this machine. Valid here: auto, {', '.join(present)}")
    return torch.device(name)


def build_network(
    recipe: schema.Recipe,
    tokenizer: Tokenizer,
    *,
    device: torch.device,
    architecture: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A recipe's network on `device`: weights drawn from the seed, the same on every device, or pretrained ones.

    Args:
        recipe: the experiment.
        tokenizer: text ⇄ ids.
        device: where the network goes.
        architecture: of the finished model within the network (a pretrained one, a codec), whose weights are still to
            be put in; None: a pretrained one is opened where the recipe says, with its weights.

    Raises:
        UserError: the network is around a codec that is not there.
    """
    block_length = recipe.objective.block_length if recipe.objective.kind == "block_diffusion" else None
    match recipe.network:
        case schema.BlocksSpec() as spec:
            direction = {"bidirectional": BIDIRECTIONAL, "causal": CAUSAL}.get(spec.attention)
            network = build_transformer(
                spec,
                tokenizer,
                direction=direction or block_causal(block_length or 1),
                seed=recipe.seed,
            ).to(device)
        case schema.ConceptSpec() as spec:
            length, seed = recipe.data.length, recipe.seed
            network = build_concept_network(spec, tokenizer, length=length, seed=seed).to(device)
            add_term_weights(network, recipe)
        case schema.ConceptPriorNetworkSpec() as spec:
            codec = codec_recipe(recipe, architecture)
            network = build_prior_network(spec, tokenizer, codec=codec, seed=recipe.seed).to(device)
        case schema.PretrainedSpec() as spec:
            common = {"block_length": block_length, "steps": recipe.training.steps, "device": device}
            if architecture is None:
                network = build_pretrained(spec, tokenizer, length=recipe.data.length, seed=recipe.seed, **common)
            else:
                network = rebuild_pretrained(spec, tokenizer, architecture=architecture, **common)
        case schema.ThoughtSpec() as spec:
            network = build_scratch_thought(recipe, spec, tokenizer, architecture=architecture).to(device)
        case schema.ThoughtPretrainedSpec() as spec:
            network = build_pretrained_thought(recipe, spec, tokenizer, device=device, architecture=architecture)
        case schema.TextAutoencoderNetworkSpec() as spec:
            network = build_text_autoencoder(recipe, spec, tokenizer, architecture=architecture).to(device)
    if recipe.objective.kind == "proofreading":
        network = MaskBias(network, tokenizer.mask_id).to(device)
    run = build_run(recipe.training)
    if run is not direct:
        run_in_training(network.repeated_layers(), run)
    return network


def build_run(spec: schema.TrainingSpec) -> Run:
    """How layers are computed in training."""
    run = direct if spec.compile == "none" else Compiled(spec.compile)
    return Recomputed(run) if spec.gradient_checkpointing else run


def check_compiler(recipe: schema.Recipe, device: torch.device) -> None:
    """Compiles and runs something small where a recipe asks for compiled layers.

    Raises:
        UserError: when that does not work on this machine.
    """
    backend = recipe.training.compile
    if backend == "none":
        return
    try:
        torch.compile(torch.sin, backend=backend)(torch.zeros(2, device=device))
    except Exception as error:  # compilers fail in many ways, each with an exception of its own
        reason = str(error).strip().splitlines() or [""]
        raise UserError(
            f"training.compile={backend} does not work on this machine ({type(error).__name__}: {reason[0]}). Install "
            "a C++ compiler such as g++, or set training.compile=none"
        ) from None


def build_transformer(spec: schema.BlocksSpec, tokenizer: Tokenizer, *, direction: Direction, seed: int) -> Transformer:
    """A transformer with weights drawn from the seed, on the CPU."""
    match spec.time_conditioning:
        case "none":
            time, final, residual, branch = Timeless(), Final, Residual, Branch
        case "adaln_zero" | "adaln_bounded":
            bound = {"adaln_zero": unbounded, "adaln_bounded": bounded}[spec.time_conditioning]
            time, modulated = TimeEmbedding(spec.width), {"condition_width": spec.width, "bound": bound}
            final = partial(ModulatedFinal, **modulated)
            residual, branch = partial(ModulatedResidual, **modulated), partial(ModulatedBranch, **modulated)
    mlp, hidden = gated_mlp(spec)
    network = Transformer(
        vocab_size=tokenizer.vocab_size,
        mask_id=tokenizer.mask_id,
        width=spec.width,
        layers=spec.layers,
        heads=spec.heads,
        mlp_width=hidden,
        direction=direction,
        time=time,
        stack=build_stack(
            spec, residual=partial(residual, dropout=spec.dropout), branch=partial(branch, dropout=spec.dropout)
        ),
        final=final,
        mlp=mlp,
    )
    if spec.head == "tied":
        network.tie_head()
    network.initialise(keyed_generator(seed, "weights"))
    return network


def build_stack(
    spec: schema.BlocksSpec, *, residual: Callable[..., nn.Module], branch: Callable[..., nn.Module]
) -> Callable[[int, Sequence[Inner]], Stack]:
    """(width, attention and MLP of each block) → the blocks.

    Args:
        spec: says which kinds they are of.
        residual: what a standard block's attention and MLP are wrapped in.
        branch: what a reversible block's are.
    """
    if not isinstance(spec, schema.ReversibleSpec):
        return partial(straight, residual=residual)
    coupling = {"additive": Additive, "affine": Affine}[spec.coupling]
    makes = {
        "standard": partial(standard, residual=residual),
        "reversible": partial(reversible, branch=branch, coupling=coupling),
    }
    carry = {"inverted": inverted, "stored": stored}[spec.activations]
    return partial(mixed, makes=[makes[kind] for kind in spec.types], carry=carry)


def build_model(
    recipe: schema.Recipe,
    tokenizer: Tokenizer,
    *,
    device: torch.device,
    architecture: Mapping[str, Any] | None = None,
) -> Model:
    """The untrained model of a recipe; arguments as those of `build_network`."""
    process = None if recipe.process is None else build_process(recipe.process, tokenizer)
    around = isinstance(recipe.network, schema.ConceptPriorNetworkSpec)
    codec = codec_recipe(recipe, architecture) if around else None
    return Model(
        network=build_network(recipe, tokenizer, device=device, architecture=architecture),
        process=process,
        objective=build_objective(recipe, process, tokenizer, codec=codec),
        tokenizer=tokenizer,
        length=recipe.data.length,
    )
