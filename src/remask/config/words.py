"""A recipe in the few words of a table: what it reads, what it minimises, and what is added to that."""

from collections.abc import Mapping
from functools import singledispatch
from pathlib import PurePath
from typing import Any

from remask.config import schema


def describe_data(recipe: schema.Recipe) -> str:
    """The training text by name: `python-docs`, `train.txt.gz`, `hf:wikitext`, with the sources mixed into it."""
    names = [source_name(recipe.data.source), *(source_name(other.source) for other in recipe.data.mixture)]
    return " + ".join(names)


def source_name(source: str) -> str:
    """A source without the folders before it, which differ from machine to machine."""
    return source if source.startswith("hf:") else PurePath(source.rstrip("/")).name or source


def describe_family(recipe: schema.Recipe) -> str:
    """`concept`, `thought`, `baseline` without noise, else `bijective` or `token`.

    `concept` are networks with a bottleneck of concepts, `thought` those of noisy vectors, and between these and text.

    `bijective` are reversible networks, and objectives that are a sampler's likelihood.
    """
    if isinstance(recipe.network, schema.ConceptSpec | schema.ConceptPriorNetworkSpec):
        return "concept"
    if isinstance(recipe.network, schema.LatentTableSpec | schema.TextAutoencoderNetworkSpec):
        return "thought"
    if recipe.process is None:
        return "baseline"
    bijective = isinstance(recipe.network, schema.ReversibleSpec) or isinstance(recipe.objective, schema.BijectiveSpec)
    return "bijective" if bijective else "token"


def describe_architecture(recipe: schema.Recipe) -> str:
    """The network and its size: `transformer D256 L4 H4, bidirectional`, or for the first a pretrained model's name."""
    match recipe.network:
        case schema.BlocksSpec() as spec:
            parts = [f"{spec.kind} D{spec.width} L{spec.layers} H{spec.heads}"]
            if isinstance(spec, schema.ReversibleSpec):
                parts += [f"{spec.reversible_blocks} of {spec.layers} blocks", spec.coupling]
            if spec.experts is not None:
                parts.append(f"{spec.experts} experts, {spec.active_experts} a token")
            conditioning = [] if spec.time_conditioning == "none" else [spec.time_conditioning.replace("_", " ")]
        case schema.ConceptSpec() as spec:
            return _describe_concepts(spec)
        case schema.ConceptPriorNetworkSpec() as spec:
            parts = [f"concept prior D{spec.width} L{spec.layers} H{spec.heads}"]
            conditioning = [f"codec {PurePath(spec.codec.rstrip('/')).name}"]
        case schema.ThoughtSpec() as spec:
            parts = [f"thought D{spec.width} L{spec.layers} H{spec.heads}"]
            if spec.experts is not None:
                parts.append(f"{spec.experts} experts, {spec.active_experts} a token")
            conditioning = _latent(spec)
        case schema.TextAutoencoderNetworkSpec() as spec:
            parts = [f"text autoencoder D{spec.width} L{spec.layers} H{spec.heads}"]
            read = [] if spec.name is None else [f"frozen {PurePath(spec.name.rstrip('/')).name or spec.name}"]
            conditioning = [f"{spec.latent_width} latent features", f"{spec.stride} tokens a vector", *read]
        case schema.AdaptedSpec() as spec:
            parts = [PurePath(spec.name.rstrip("/")).name or spec.name]
            conditioning = [f"lora {spec.lora_rank}"] if spec.adaptation == "lora" else []
            conditioning += [] if spec.quantisation == "none" else [spec.quantisation]
            conditioning += _latent(spec) if isinstance(spec, schema.LatentTableSpec) else []
    return ", ".join([*parts, recipe.network.attention.replace("_", " "), *conditioning])


def _latent(spec: schema.LatentTableSpec) -> list[str]:
    """`16 latent features`, and what is unusual."""
    parts = {
        "own": ["own embedding as latent"],
        "codec": [f"codec {PurePath((spec.codec or '').rstrip('/')).name}"],
        "random": [f"{spec.table_width} latent features", "random table"],
    }.get(spec.latent, [f"{spec.table_width} latent features"])
    parts += {"tokens": [], "vectors": ["vectors out"], "logit_columns": ["logit columns out"]}[spec.readout]
    parts += ["no time"] if spec.time == "none" else []
    return parts + (["no question"] if spec.question == "hidden" else [])


def _describe_concepts(spec: schema.ConceptSpec) -> str:
    """`concept H512, recursive encoder L6 C128, denoising decoder L2`, and what is unusual."""
    slots = "" if spec.slot_count is None else f" C{spec.slot_count}"
    slots = f" C≤{spec.concepts}" if spec.encoder in schema.STRETCHED else slots
    layers = "" if spec.encoder in ("stretches", "mean", "none") else f" L{spec.layers}"
    frozen = "frozen " if spec.freeze_encoder else ""
    parts = [f"concept H{spec.width}", f"{frozen}{spec.encoder.replace('_', '-')} encoder{layers}{slots}"]
    parts += ["competing slots"] if spec.slots == "competing" else []
    parts += [] if spec.letters is None else [f"letters {spec.letters.least}-{spec.letters.most}"]
    parts += [] if spec.rarity is None else ["rare tokens count more"]
    parts += [] if spec.co_occurrence is None else [f"company within {spec.co_occurrence.window}"]
    parts += [] if spec.latent_width is None else [f"latent width {spec.latent_width}"]
    if spec.decoder == "none":
        return ", ".join([*parts, "no decoder"])
    return ", ".join([*parts, f"{spec.decoder.replace('_', '-')} decoder L{spec.decoder_depth}"])


def describe_tokenizer(recipe: schema.Recipe, *, vocab_size: int) -> str:
    """The kind of tokenizer and its vocabulary: `bpe 4096`."""
    return f"{recipe.tokenizer.kind} {vocab_size}"


def describe_objective(recipe: schema.Recipe) -> str:
    """What is minimised, and under which noise: `likelihood bound, masking`."""
    kind = recipe.objective.kind.replace("_", " ")
    return kind if recipe.process is None else f"{kind}, {recipe.process.kind}"


def own_figure_of(recipe: schema.Recipe) -> str | None:
    """What a model is judged by that gives text no likelihood; None where it does."""
    return _OWN_FIGURES.get(recipe.objective.kind)


def draws_text(recipe: schema.Recipe) -> bool:
    """Whether text can be drawn from a recipe's model: it has a likelihood, or starts from noise."""
    return own_figure_of(recipe) is None or isinstance(recipe.objective, schema.ThoughtObjectiveSpec)


_OWN_FIGURES = {
    "concept_masked": "hidden_nats_per_token",
    "concept_tsdae": "reconstruction_nats_per_token",
    "concept_contrastive": "matching_nats",
    "concept_autoencoder": "reconstruction_nats_per_token",
    "thought": "thought_nats_per_token",
    "text_autoencoder": "reconstruction_nats_per_token",
}


def describe_noise(recipe: schema.Recipe) -> str | None:
    """The noise with all of its settings: `hybrid, uniform share 0.1, schedule cosine`; None where there is none."""
    return None if recipe.process is None else _settings(recipe.process.model_dump(mode="json"))


def _settings(section: Mapping[str, Any]) -> str:
    others = {name.replace("_", " "): value for name, value in section.items() if name != "kind"}
    told = [f"{name} {_settings(value) if isinstance(value, dict) else value}" for name, value in others.items()]
    return ", ".join([str(section["kind"]).replace("_", " "), *told])


def extra_losses(recipe: schema.Recipe) -> list[str]:
    """What training minimises besides, or otherwise than, the plain task: other tasks, reweightings, a curriculum."""
    return _extra(recipe.objective)


@singledispatch
def _extra(objective: object) -> list[str]:
    del objective
    return []


@_extra.register
def _(objective: schema.LikelihoodBoundSpec | schema.BlockDiffusionSpec) -> list[str]:
    return _reweighted(objective)


@_extra.register
def _(objective: schema.ConceptBoundSpec) -> list[str]:
    nested = [f"nested concepts {objective.nested_share:g}"] if objective.nested_share else []
    return _reweighted(objective) + nested + _kept_apart(objective.diversity)


@_extra.register
def _(
    objective: schema.ConceptMaskedSpec | schema.ConceptTSDAESpec | schema.ConceptContrastiveSpec,
) -> list[str]:
    return _kept_apart(objective.diversity)


def _kept_apart(spec: schema.DiversitySpec) -> list[str]:
    begun = "from " if spec.weights == "learned" else ""
    return [f"{name.replace('_', '-')} × {begun}{weight:g}" for name, weight in spec.chosen.items()]


@_extra.register
def _(objective: schema.ConceptAutoencoderSpec) -> list[str]:
    blind = [f"blind rows {objective.blind_share:g}"] if objective.blind_share else []
    return _reweighted(objective) + blind


@_extra.register
def _(objective: schema.ConceptPriorSpec) -> list[str]:
    weighted = [] if objective.weighting == "own" else [f"{objective.weighting.replace('_', '-')} weighting"]
    bent = [] if objective.time_exponent == 1.0 else [f"times u^{objective.time_exponent:g}"]
    return [f"{objective.prediction} of concepts", *weighted, *bent]


@_extra.register
def _(objective: schema.TextAutoencoderSpec) -> list[str]:
    return [f"divergence × {objective.divergence:g}"]


@_extra.register
def _(objective: schema.ThoughtObjectiveSpec) -> list[str]:
    loss = [] if objective.loss == "cross_entropy" else [f"squared error of {objective.loss}"]
    weighted = [] if objective.weighting == "own" else [f"{objective.weighting.replace('_', '-')} weighting"]
    bent = [] if objective.time_exponent == 1.0 else [f"times u^{objective.time_exponent:g}"]
    bent += ["learned times"] if objective.time_warping == "learned" else []
    recalled = [f"self-conditioning {objective.self_conditioning:g}"] if objective.self_conditioning else []
    answers = [f"written answers × {objective.answer_weight:g}"] if objective.answer_weight else []
    return [*loss, *weighted, *bent, *recalled, *answers]


def _reweighted(bound: schema.WeightedBoundSpec) -> list[str]:
    found = [] if bound.weighting == "bound" else [f"{bound.weighting} weighting"]
    return found + ([f"curriculum {bound.curriculum_ratio:g}"] if bound.curriculum_ratio else [])


@_extra.register
def _(objective: schema.BijectiveSpec) -> list[str]:
    found = _reweighted(objective)
    if not objective.likelihood_weight:
        return found
    reveal = objective.likelihood_reveal.replace("_", " ")
    return [*found, f"sampler nats × {objective.likelihood_weight:g} ({reveal}, {objective.likelihood_steps} rounds)"]


@_extra.register
def _(objective: schema.ProofreadingSpec) -> list[str]:
    return [f"unmask task × {objective.weight_unmask_task:g}", f"remask task × {objective.weight_remask_task:g}"]
