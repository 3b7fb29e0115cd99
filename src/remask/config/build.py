"""Where names become objects: the only place that reads a recipe's kinds and constructs what they name."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.optim import Optimizer

from remask import optimisation, processes, samplers, schedules
from remask.config import schema
from remask.data.corpora import Corpus, open_corpus
from remask.data.store import TokenStore, build_stores
from remask.data.vocabulary import corpus_bpe
from remask.errors import UserError
from remask.generation import Sampler
from remask.model import Model
from remask.networks.transformer import (
    BIDIRECTIONAL,
    CAUSAL,
    ModulatedResidual,
    Residual,
    TimeEmbedding,
    Timeless,
    Transformer,
)
from remask.objectives import (
    LikelihoodBound,
    NextToken,
    generic_integrand,
    masking_integrand,
    rising_range,
    root_weight,
    spread_integrand,
    whole_range,
)
from remask.objectives.base import Objective
from remask.optimisation import Curve
from remask.randomness import keyed_generator
from remask.tokenizers import (
    ByteTokenizer,
    Tokenizer,
    character_tokenizer,
    huggingface_tokenizer,
)

Progress = Callable[[int], None]
"""Called while tokenizing with the UTF-8 bytes of text done so far."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A recipe's text, ready to be read in rows.

    Attributes:
        corpus: the documents.
        tokenizer: text ⇄ ids.
        stores: the token caches by split.
    """

    corpus: Corpus
    tokenizer: Tokenizer
    stores: dict[str, TokenStore]


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


# ── text ───────────────────────────────────────────────────────────────────────────────────────────────────────


def build_text(recipe: schema.Recipe, *, cache: Path, progress: Progress | None = None) -> Text:
    """Opens the corpus, makes or finds the tokenizer, and builds or maps the token caches."""
    corpus = build_corpus(recipe.data, cache=cache)
    tokenizer = build_tokenizer(recipe.tokenizer, corpus, cache=cache)
    stores = build_stores(corpus, tokenizer, cache=cache, progress=progress)
    return Text(corpus=corpus, tokenizer=tokenizer, stores=stores)


def build_text_for(recipe: schema.Recipe, tokenizer: Tokenizer, *, cache: Path) -> Text:
    """As `build_text`, with a tokenizer that is there already."""
    corpus = build_corpus(recipe.data, cache=cache)
    return Text(corpus=corpus, tokenizer=tokenizer, stores=build_stores(corpus, tokenizer, cache=cache))


def build_corpus(data: schema.DataSpec, *, cache: Path) -> Corpus:
    """The documents that a recipe names."""
    return open_corpus(
        data.source,
        validation=data.validation,
        test=data.test,
        text_key=data.text_key,
        separator=data.separator,
        config=data.config,
        streaming=data.streaming,
        max_documents=data.max_documents,
        cache=cache,
    )


def build_tokenizer(spec: schema.TokenizerSpec, corpus: Corpus, *, cache: Path) -> Tokenizer:
    """The tokenizer of a recipe; a trained one is kept in the cache under the corpus's fingerprint."""
    match spec:
        case schema.ByteTokenizerSpec():
            return ByteTokenizer()
        case schema.CharacterTokenizerSpec():
            return character_tokenizer(text for _, text in corpus.walk())
        case schema.BPETokenizerSpec():
            return corpus_bpe(corpus, vocab_size=spec.vocab_size, cache=cache)
        case schema.HuggingFaceTokenizerSpec():
            return huggingface_tokenizer(spec.name)


# ── model ──────────────────────────────────────────────────────────────────────────────────────────────────────


def build_schedule(spec: schema.ScheduleSpec) -> schedules.Schedule:
    """The curve α(t) that a spec names."""
    match spec:
        case schema.LinearScheduleSpec():
            return schedules.Linear()
        case schema.CosineScheduleSpec():
            return schedules.Cosine()
        case schema.PolynomialScheduleSpec():
            return schedules.Polynomial(spec.power)
        case schema.LogLinearScheduleSpec():
            return schedules.LogLinear(spec.epsilon)


def build_process(spec: schema.ProcessSpec, tokenizer: Tokenizer) -> processes.CategoricalProcess:
    """The noise that a spec names, over the tokenizer's ids."""
    schedule = build_schedule(spec.schedule)
    size, mask = tokenizer.vocab_size, tokenizer.mask_id
    match spec:
        case schema.MaskingSpec():
            return processes.Masking(schedule=schedule, vocab_size=size, mask_id=mask)
        case schema.UniformSpec():
            return processes.Uniform(schedule=schedule, vocab_size=size, mask_id=mask)
        case schema.HybridSpec():
            return processes.Hybrid(schedule=schedule, vocab_size=size, mask_id=mask, uniform_share=spec.uniform_share)


def build_objective(
    spec: schema.ObjectiveSpec,
    process: processes.CategoricalProcess | None,
    tokenizer: Tokenizer,
    *,
    steps: int,
) -> Objective:
    """What a spec asks to be minimised, with the fastest integrand that equals the generic one."""
    match spec:
        case schema.NextTokenSpec():
            return NextToken(mask_id=tokenizer.mask_id)
        case schema.LikelihoodBoundSpec():
            assert process is not None, "the schema refuses a bound without a process"
            closed_forms = {
                processes.Masking: masking_integrand,
                processes.Uniform: spread_integrand,
                processes.Hybrid: spread_integrand,
            }
            integrand = closed_forms.get(type(process), generic_integrand)
            rising = rising_range(start=spec.curriculum_start, steps=round(spec.curriculum_ratio * steps))
            return LikelihoodBound(
                process=process,
                integrand=integrand,
                t_min=spec.t_min,
                reweight={"bound": torch.ones_like, "root": root_weight}[spec.weighting],
                curriculum=rising if spec.curriculum_ratio else whole_range,
            )


def build_network(spec: schema.NetworkSpec, tokenizer: Tokenizer, *, seed: int, device: torch.device) -> Transformer:
    """A network with weights drawn from the seed, the same on every device."""
    conditioned = spec.time_conditioning == "adaln_zero"
    residual = partial(ModulatedResidual, condition_width=spec.width) if conditioned else Residual
    network = Transformer(
        vocab_size=tokenizer.vocab_size,
        mask_id=tokenizer.mask_id,
        width=spec.width,
        layers=spec.layers,
        heads=spec.heads,
        mlp_width=spec.mlp_width or max(32, 32 * round(8 * spec.width / 3 / 32)),
        direction={"bidirectional": BIDIRECTIONAL, "causal": CAUSAL}[spec.attention],
        time=TimeEmbedding(spec.width) if conditioned else Timeless(),
        residual=partial(residual, dropout=spec.dropout),
    )
    if spec.head == "tied":
        network.tie_head()
    network.initialise(keyed_generator(seed, "weights"))
    return network.to(device)


def build_model(recipe: schema.Recipe, tokenizer: Tokenizer, *, device: torch.device) -> Model:
    """The untrained model of a recipe."""
    process = None if recipe.process is None else build_process(recipe.process, tokenizer)
    return Model(
        network=build_network(recipe.network, tokenizer, seed=recipe.seed, device=device),
        process=process,
        objective=build_objective(recipe.objective, process, tokenizer, steps=recipe.training.steps),
        tokenizer=tokenizer,
        length=recipe.data.length,
    )


# ── sampling ────────────────────────────────────────────────────────────────────────────────────────────────────


def build_sampler(spec: schema.SamplingSpec, model: Model) -> Sampler:
    """The way to draw from a model that a spec names.

    Raises:
        UserError: when the model cannot be drawn from in this way, with the ways that it can.
    """
    transform = samplers.reshape_distribution(temperature=spec.temperature, top_p=spec.top_p)
    valid = valid_samplers(model)
    if spec.sampler not in valid:
        raise UserError(f"sampler={spec.sampler} does not fit this model. Valid for it: {', '.join(valid)}")
    match spec.sampler:
        case "left_to_right":
            return lambda prompt, generator, on_step: samplers.left_to_right(
                model, prompt=prompt, generator=generator, transform=transform, on_step=on_step
            )
        case "ancestral" | "confidence":
            walk = {"ancestral": samplers.ancestral, "confidence": samplers.confidence}[spec.sampler]
            times = schedules.time_grid(spec.steps)
            return lambda prompt, generator, on_step: walk(
                model, times, prompt=prompt, generator=generator, transform=transform, on_step=on_step
            )


def valid_samplers(model: Model) -> list[str]:
    """The samplers that fit a model's noise."""
    if model.process is None:
        return ["left_to_right"]
    return ["ancestral", "confidence"] if isinstance(model.process, processes.Masking) else ["ancestral"]


def sampling_steps(spec: schema.SamplingSpec, length: int) -> int:
    """Network calls of one sample: the grid's steps, or one a token."""
    return length if spec.sampler == "left_to_right" else spec.steps


# ── optimisation ───────────────────────────────────────────────────────────────────────────────────────────────


def build_optimizers(spec: schema.TrainingSpec, network: Transformer) -> Sequence[Optimizer]:
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
    """The network's size in a run id: width and layers, e.g. `D256L4`."""
    return f"D{recipe.network.width}L{recipe.network.layers}"
