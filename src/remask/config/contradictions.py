"""Keys of a recipe that are each valid but do not go together."""

from collections.abc import Callable, Iterator

from remask.config.clash import Contradiction
from remask.config.clash import clash as _clash
from remask.config.codec_contradictions import CODEC_CHECKS
from remask.config.concept_contradictions import CONCEPT_CHECKS
from remask.config.latent_contradictions import LATENT_CHECKS
from remask.config.schema import (
    AdaptedSpec,
    BijectiveSpec,
    BlockDiffusionSpec,
    BlocksSpec,
    ConceptPriorNetworkSpec,
    ConceptSpec,
    LatentTableSpec,
    LikelihoodBoundSpec,
    PretrainedSpec,
    Recipe,
    ReversibleSpec,
    SizesSpec,
    TextAutoencoderNetworkSpec,
)
from remask.config.text_contradictions import PAIR_CHECKS, TEXT_CHECKS
from remask.config.thought_contradictions import LATENT_SAMPLERS, THOUGHT_CHECKS


def contradictions(recipe: Recipe) -> Iterator[Contradiction]:
    """Every pair of keys in the recipe that do not go together, in a fixed order."""
    for check in _CHECKS:
        yield from check(recipe)


def _tracking(recipe: Recipe) -> Iterator[Contradiction]:
    tracking = recipe.tracking
    if tracking.mode == "online" and "wandb" not in tracking.sinks:
        but = "only wandb reads it"
        give = "tracking.mode=offline, or tracking.sinks=[wandb]"
        yield _clash("tracking.sinks", "tracking.mode", given="online", but=but, give=give)


def _next_token(recipe: Recipe) -> Iterator[Contradiction]:
    if recipe.objective.kind != "next_token":
        return
    process, network, sampler = recipe.process, recipe.network, recipe.sampling.sampler
    if process is not None:
        but = "objective next_token uses no noise"
        give = "process=null, or objective.kind=likelihood_bound"
        yield _clash("objective.kind", "process.kind", "process", given=process.kind, but=but, give=give)
    if not isinstance(network, _FREE) and network.attention != "causal":
        but = "objective next_token must not see the token it predicts"
        give = "network.attention=causal"
        yield _clash("objective.kind", "network.attention", given=network.attention, but=but, give=give)
    if isinstance(network, BlocksSpec) and network.time_conditioning != "none":
        but = "objective next_token has no time"
        give, given = "network.time_conditioning=none", network.time_conditioning
        yield _clash("objective.kind", "network.time_conditioning", given=given, but=but, give=give)
    if sampler not in ("left_to_right", *LATENT_SAMPLERS):
        but = "objective next_token can only be sampled from the left"
        give = "sampling.sampler=left_to_right"
        yield _clash("objective.kind", "sampling.sampler", given=sampler, but=but, give=give)


def _noise(recipe: Recipe) -> Iterator[Contradiction]:
    """Every objective but next_token undoes a noise, and some only one kind of it."""
    kind, process = recipe.objective.kind, recipe.process
    if kind == "next_token":
        return
    if process is None:
        but = f"objective {kind} needs noise"
        first, *others = _NOISES.get(kind, ("masking", "uniform", "hybrid"))
        fitting = f"{first} (or {', '.join(others)})" if others else first
        give = f"process.kind={fitting}, or objective.kind=next_token"
        yield _clash("objective.kind", "process", given=None, but=but, give=give)
        return
    fitting = _NOISES.get(kind, (process.kind,))
    if process.kind not in fitting and process.kind != "gaussian":
        but = f"objective {kind} is defined for {' and '.join(fitting)} noise"
        give = f"process.kind={fitting[0]}, or objective.kind=likelihood_bound"
        yield _clash("objective.kind", "process.kind", given=process.kind, but=but, give=give)


def _denoiser(recipe: Recipe) -> Iterator[Contradiction]:
    kind, network, sampler = recipe.objective.kind, recipe.network, recipe.sampling.sampler
    if kind == "next_token":
        return
    wanted = "block_causal" if kind == "block_diffusion" else "bidirectional"
    if not isinstance(network, _FREE) and network.attention != wanted:
        but = f"objective {kind} predicts from both sides" + (" of its block" if wanted == "block_causal" else "")
        give = f"network.attention={wanted}"
        yield _clash("objective.kind", "network.attention", given=network.attention, but=but, give=give)
    if sampler == "left_to_right":
        but = "only objective next_token is sampled so"
        give = "sampling.sampler=ancestral (or confidence)"
        yield _clash("objective.kind", "sampling.sampler", given=sampler, but=but, give=give)
    if sampler == "proofreading" and kind != "proofreading":
        but = "only objective proofreading teaches a network to find wrong tokens"
        give = "sampling.sampler=ancestral (or remdm), or objective.kind=proofreading"
        yield _clash("objective.kind", "sampling.sampler", given=sampler, but=but, give=give)


def _blocks(recipe: Recipe) -> Iterator[Contradiction]:
    objective, drawn = recipe.objective, recipe.sampling.block_length
    if objective.kind != "block_diffusion":
        if drawn is not None and (recipe.process is None or recipe.process.kind != "masking"):
            kind = "null" if recipe.process is None else recipe.process.kind
            but = f"only masking noise is drawn in blocks, and process.kind is {kind}"
            yield _clash("process", "sampling.block_length", given=drawn, but=but, give="sampling.block_length=null")
        return
    if recipe.data.length % objective.block_length:
        but = f"it does not divide data.length={recipe.data.length}"
        give = "a divisor, or another data.length"
        yield _clash("data.length", "objective.block_length", given=objective.block_length, but=but, give=give)
    if drawn != objective.block_length:
        but = f"this model learns blocks of objective.block_length={objective.block_length}"
        give = f"sampling.block_length={objective.block_length}"
        yield _clash("objective.block_length", "sampling.block_length", given=drawn, but=but, give=give)
    if isinstance(recipe.network, BlocksSpec) and recipe.network.time_conditioning != "none":
        but, given = "each block of a row has a time of its own", recipe.network.time_conditioning
        give = "network.time_conditioning=none"
        yield _clash("objective.kind", "network.time_conditioning", given=given, but=but, give=give)


def _sampler_keys(recipe: Recipe) -> Iterator[Contradiction]:
    """A key that only one sampler reads is a mistake beside another."""
    drawn = recipe.sampling.sampler
    for key, owner in SAMPLER_KEYS.items():
        given = getattr(recipe.sampling, key)
        if given is not None and recipe.sampling.sampler != owner:
            but = f"only sampler {owner} reads it, and sampling.sampler is {recipe.sampling.sampler}"
            give = f"sampling.{key}=null, or sampling.sampler={owner}"
            yield _clash("sampling.sampler", f"sampling.{key}", given=given, but=but, give=give)
    if recipe.sampling.grid != "equal" and (drawn in _OWN_TIMES or recipe.sampling.remasking == "loop"):
        but = "this sampler makes its own times"
        yield _clash(
            "sampling.sampler", "sampling.grid", given=recipe.sampling.grid, but=but, give="sampling.grid=equal"
        )
    if recipe.sampling.guidance and recipe.sampling.sampler == "left_to_right":
        but = "guidance masks the prompt, which an autoregressive model cannot read"
        give = "sampling.guidance=0"
        yield _clash("sampling.sampler", "sampling.guidance", given=recipe.sampling.guidance, but=but, give=give)


def _pretrained(recipe: Recipe) -> Iterator[Contradiction]:
    network = recipe.network
    if not isinstance(network, AdaptedSpec):
        return
    if recipe.tokenizer.kind != "huggingface":
        but = "a pretrained network reads the ids of its own tokenizer"
        give = f"tokenizer.kind=huggingface and tokenizer.name={network.name}"
        yield _clash("network.kind", "tokenizer.kind", given=recipe.tokenizer.kind, but=but, give=give)
    if network.quantisation == "nf4" and network.adaptation != "lora":
        but = "weights held in 4 bits are frozen"
        give = "network.adaptation=lora, or network.quantisation=none"
        yield _clash("network.adaptation", "network.quantisation", given=network.quantisation, but=but, give=give)
    if network.embeddings == "cpu" and network.adaptation != "lora":
        but = "a table that stays on the CPU is frozen"
        give = "network.adaptation=lora, or network.embeddings=device"
        yield _clash("network.adaptation", "network.embeddings", given=network.embeddings, but=but, give=give)
    if network.saved == "adapters" and network.adaptation != "lora":
        but = "every weight is trained"
        give = "network.adaptation=lora, or network.saved=merged"
        yield _clash("network.adaptation", "network.saved", given=network.saved, but=but, give=give)
    if not isinstance(network, PretrainedSpec):
        return
    if network.attention == "block_causal" and recipe.process is not None and recipe.process.kind != "masking":
        but = "a pretrained network shows later blocks as masks"
        give = "process.kind=masking"
        yield _clash("network.kind", "process.kind", given=recipe.process.kind, but=but, give=give)
    if network.adaptation == "lora" and recipe.objective.kind == "proofreading":
        but = "the output weights of [MASK] are learned, and lora freezes them"
        give = "network.adaptation=full"
        yield _clash("objective.kind", "network.adaptation", given=network.adaptation, but=but, give=give)
    if network.anneal_ratio and network.attention == "causal":
        but = "causal attention stays closed"
        give = "network.anneal_ratio=0, or network.attention=bidirectional"
        yield _clash("network.attention", "network.anneal_ratio", given=network.anneal_ratio, but=but, give=give)


def _curriculum(recipe: Recipe) -> Iterator[Contradiction]:
    objective = recipe.objective
    if not isinstance(objective, LikelihoodBoundSpec | BijectiveSpec | BlockDiffusionSpec):
        return
    if not objective.curriculum_ratio:
        return
    if objective.curriculum_start <= objective.t_min:
        but = f"a curriculum starts above objective.t_min={objective.t_min}"
        give = "a larger objective.curriculum_start, or objective.curriculum_ratio=0"
        keys = ("objective.t_min", "objective.curriculum_start")
        yield _clash(*keys, given=objective.curriculum_start, but=but, give=give)


def _masked_samplers(recipe: Recipe) -> Iterator[Contradiction]:
    process, sampler = recipe.process, recipe.sampling.sampler
    if sampler in MASKS_ONLY and process is not None and process.kind not in ("masking", "gaussian"):
        but = f"it needs masked tokens and process.kind is {process.kind}"
        give = "sampling.sampler=ancestral, or process.kind=masking"
        yield _clash("process.kind", "sampling.sampler", given=sampler, but=but, give=give)


def _heads(recipe: Recipe) -> Iterator[Contradiction]:
    if not isinstance(recipe.network, SizesSpec | ConceptSpec | ConceptPriorNetworkSpec | TextAutoencoderNetworkSpec):
        return
    width, heads = recipe.network.width, recipe.network.heads
    if width % heads:
        but = f"it is no multiple of network.heads={heads}"
    elif width // heads % 2:
        but = f"each of network.heads={heads} heads gets an odd {width // heads} (rotary positions need pairs)"
    else:
        return
    fitting = max(1, width // (2 * heads)) * 2 * heads
    give = f"network.width={fitting}, or another network.heads"
    yield _clash("network.heads", "network.width", given=width, but=but, give=give)


def _experts(recipe: Recipe) -> Iterator[Contradiction]:
    network = recipe.network
    if not isinstance(network, SizesSpec):
        return
    if network.experts is None:
        for key in ("experts_per_token", "expert_width", "balance_rate"):
            if (given := getattr(network, key)) is not None:
                but, give = "the network has no experts", f"network.{key}=null, or network.experts=8"
                yield _clash("network.experts", f"network.{key}", given=given, but=but, give=give)
        return
    chosen, hidden = network.active_experts, network.hidden_width
    if chosen > network.experts:
        but = f"there are network.experts={network.experts}"
        give = f"network.experts_per_token={network.experts} or less"
        yield _clash("network.experts", "network.experts_per_token", given=chosen, but=but, give=give)
    elif network.expert_width is not None and network.mlp_width is not None:
        but = "network.expert_width takes its place"
        give = "network.mlp_width=null, or network.expert_width=null"
        yield _clash("network.expert_width", "network.mlp_width", given=network.mlp_width, but=but, give=give)
    elif network.expert_width is None and hidden % chosen:
        but = f"it does not divide network.mlp_width={hidden}"
        give = f"network.mlp_width={-(-hidden // chosen) * chosen}, or network.expert_width={-(-hidden // chosen)}"
        yield _clash("network.mlp_width", "network.experts_per_token", given=chosen, but=but, give=give)


def _reversible(recipe: Recipe) -> Iterator[Contradiction]:
    network, training = recipe.network, recipe.training
    if not isinstance(network, ReversibleSpec):
        return
    given, count = network.block_types, network.reversible_blocks
    if given is not None and len(given) != network.layers:
        but = f"there are network.layers={network.layers}"
        give = f"a type for each of them, or {f'network.layers={len(given)}' if given else 'null'}"
        types = "1 type" if len(given) == 1 else f"{len(given)} types"
        yield _clash("network.layers", "network.block_types", given=types, but=but, give=give)
    elif not count:
        but = "no block is reversible"
        give = "network.kind=transformer without block_types, coupling and activations"
        yield _clash("network.block_types", "network.kind", given="reversible", but=but, give=give)
    if network.coupling == "affine" and count > MOST_AFFINE:
        but = f"the scales of more than {MOST_AFFINE} reversible blocks multiply beyond what rounding forgives, and "
        but += f"there are {count}"
        give = f"network.coupling=additive, or {MOST_AFFINE} reversible blocks"
        yield _clash("network.block_types", "network.coupling", given="affine", but=but, give=give)
    if network.activations == "inverted":
        if training.gradient_checkpointing:
            but = "inverted activations are computed again already"
            give = "training.gradient_checkpointing=false, or network.activations=stored"
            keys = ("network.activations", "training.gradient_checkpointing")
            yield _clash(*keys, given="true", but=but, give=give)
        if training.parallel == "fsdp":
            but = "blocks are undone with weights that are whole"
            give = (
                "network.activations=stored (gradient_checkpointing=true saves memory there), or training.parallel=ddp"
            )
            yield _clash("training.parallel", "network.activations", given="inverted", but=but, give=give)


def _micro_batch(recipe: Recipe) -> Iterator[Contradiction]:
    micro, whole = recipe.training.micro_batch_size, recipe.training.batch_size
    if micro is None or whole % micro == 0:
        return
    # A bounded search, so that an absurd batch size is answered at once.
    divisors = (d for n in range(1, min(micro, 1000) + 1) if whole % n == 0 for d in (n, whole // n))
    fitting = max(d for d in divisors if d <= micro)
    but = f"it does not divide training.batch_size={whole}"
    give = f"training.micro_batch_size={fitting}"
    yield _clash("training.batch_size", "training.micro_batch_size", given=micro, but=but, give=give)


_NOISES = {
    "thought": ("gaussian",),
    "score_entropy": ("masking", "uniform"),
    "masked_language_model": ("masking",),
    "bijective": ("masking",),
    "proofreading": ("masking",),
    "text_autoencoder": ("masking",),  # which it does not read, but other noise would say that it is of it
}
_FREE = (ConceptSpec, LatentTableSpec)
"""Networks whose attention an objective has no say in."""
MOST_AFFINE = 16
"""Reversible blocks with affine couplings."""
MASKS_ONLY = ("confidence", "margin", "entropy", "entropy_bounded", "remdm", "bijective")
_OWN_TIMES = ("entropy_bounded", "bijective")
SAMPLER_KEYS = {  # key of `sampling` → the one sampler that reads it
    "budget": "entropy_bounded",
    "reveal": "bijective",
    "remasking": "remdm",
    "eta": "remdm",
    "corrector_steps": "predictor_corrector",
    "threshold": "proofreading",
    "order": "proofreading",
    "finish": "proofreading",
}

_CHECKS: tuple[Callable[[Recipe], Iterator[Contradiction]], ...] = (
    *TEXT_CHECKS,
    _tracking,
    _next_token,
    _noise,
    _denoiser,
    _blocks,
    _curriculum,
    _masked_samplers,
    _sampler_keys,
    *PAIR_CHECKS,
    _pretrained,
    _heads,
    _experts,
    _reversible,
    _micro_batch,
    *CONCEPT_CHECKS,
    *LATENT_CHECKS,
    *THOUGHT_CHECKS,
    *CODEC_CHECKS,
)
