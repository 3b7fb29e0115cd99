"""What a recipe may say of training, evaluation and sampling."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from remask.config.schema.noise import Reveal
from remask.config.schema.section import Section, Share, Whole, as_tuple

# --- training, evaluation, sampling -------------------------------------------------------------------------


class TrainingSpec(Section):
    """Optimiser, schedule of the learning rate, and what happens how often."""

    steps: Whole = Field(default=1000, ge=1, description="optimiser steps")
    batch_size: Whole = Field(default=64, ge=1, description="rows a step")
    micro_batch_size: Whole | None = Field(
        default=None, ge=1, description="rows at once in memory, a divisor of batch_size; null: batch_size"
    )
    learning_rate: float = Field(default=1e-3, gt=0, le=10, description="peak learning rate of AdamW")
    warmup_ratio: Share = Field(
        default=0.05, description="share of the steps over which the learning rate rises to its peak"
    )
    decay: Literal["cosine", "linear", "constant", "wsd"] = Field(
        default="cosine", description="shape of the learning rate after warm-up; wsd: constant, then down"
    )
    final_learning_rate: float = Field(
        default=0.0, ge=0, le=1, description="learning rate at the end, as a fraction of the peak"
    )
    weight_decay: float = Field(default=0.1, ge=0, le=10, description="decoupled weight decay, on matrices only")
    betas: Annotated[tuple[Share, Share], BeforeValidator(as_tuple)] = Field(
        default=(0.9, 0.95), description="decay of AdamW's first and second moments"
    )
    clip: float = Field(default=1.0, gt=0, description="largest norm of the whole gradient")
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: Muon for matrices, AdamW for the rest"
    )
    muon_learning_rate: float = Field(default=0.02, gt=0, le=10, description="peak learning rate of Muon's matrices")
    ema_decay: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="decay a step of the averaged weights that are judged; 0: no average",
    )
    precision: Literal["float32", "bf16", "fp16"] = Field(
        default="float32", description="arithmetic of the network; losses and weights are float32 always"
    )
    log_every: Whole = Field(default=10, ge=1, description="steps between two lines of training figures")
    evaluate_every: Whole = Field(default=200, ge=1, description="steps between two validations")
    evaluate_rows: Whole = Field(default=64, ge=1, description="rows of each validation during training")
    checkpoint_every: Whole = Field(default=200, ge=1, description="steps between two checkpoints")
    keep_checkpoints: Whole = Field(default=2, ge=1, description="newest checkpoints that are kept")
    sample_every: Whole = Field(default=200, ge=1, description="steps between two samples shown in training")
    gradient_checkpointing: bool = Field(
        default=False, description="compute activations again in the backward pass instead of keeping them"
    )
    compile: Literal["none", "inductor", "aot_eager"] = Field(
        default="none", description="compile the blocks with torch.compile; inductor needs a C++ compiler"
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        default="ddp", description="several processes (torchrun): each holds all weights, or a share of them (fsdp)"
    )
    start_from: str | None = Field(
        default=None, min_length=1, description="run or model folder whose weights training begins with; null: fresh"
    )
    prompt_dropout: Share = Field(
        default=0.0, description="pairs: share of rows whose prompt is masked in training, for guidance in sampling"
    )


class EvaluationSpec(Section):
    """The likelihood on held-out text."""

    split: Literal["validation", "test"] = Field(default="validation", description="held-out text to judge on")
    rows: Whole | None = Field(default=512, ge=1, description="rows to judge on; null: all")
    draws: Whole = Field(default=8, ge=1, description="random times and noises a row, averaged")
    batch_size: Whole = Field(
        default=32,
        ge=2,
        le=32,
        description="rows judged, and texts drawn, at once; fewer where memory is short. The same noise judges rows "
        "whatever it is; drawn texts are others; concepts are judged 32 at once in any case",
    )
    checker: (
        Literal[
            "exact",
            "marked",
            "sudoku4",
            "countdown",
            "multiplication",
            "multiplication3x3",
            "multiplication4x4",
            "multiplication5x5",
            "arithmetic",
            "arithmetic3",
            "arithmetic4",
        ]
        | None
    ) = Field(default=None, description="what makes an answer right; null: the source's own checker, else equal text")


class SamplingSpec(Section):
    """How text is drawn. Keys of one sampler alone are null unless that sampler is chosen."""

    sampler: Literal[
        "ancestral",
        "analytic",
        "tau_leaping",
        "predictor_corrector",
        "confidence",
        "margin",
        "entropy",
        "entropy_bounded",
        "remdm",
        "bijective",
        "proofreading",
        "left_to_right",
        "ddim",
        "ddpm",
        "heun",
    ] = Field(default="ancestral", description="the way from noise to text; docs/token.md says which is exact")
    steps: Whole = Field(
        default=64,
        ge=1,
        le=1_000_000,
        description="steps of the reverse process (of each block); not read where the sampler counts its own",
    )
    grid: Literal["equal", "smooth"] = Field(
        default="equal", description="times of the steps: equally spaced, or denser at both ends"
    )
    block_length: Whole | None = Field(
        default=None, ge=1, description="draw blocks of so many tokens from left to right; null: the whole row at once"
    )
    count: Whole = Field(default=4, ge=1, description="texts to draw")
    length: Whole | None = Field(default=None, ge=1, description="tokens a text; null: data.length")
    temperature: float = Field(default=1.0, gt=0, le=100, description="logits are divided by it; below 1 is bolder")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="draw from the likeliest tokens of this total probability"
    )
    guidance: float = Field(
        default=0.0, ge=0, le=100, description="classifier-free guidance away from the text without its prompt; 0: none"
    )
    latent_sampler: Literal["ddpm", "ddim", "heun"] | None = Field(
        default=None, description="concept prior: how concept vectors are drawn; null: ddpm"
    )
    latent_steps: Whole | None = Field(
        default=None, ge=1, le=1_000_000, description="concept prior: steps from noise to concept vectors; null: 100"
    )
    stop: bool = Field(default=False, description="end each text at its first end-of-text token")
    budget: float | None = Field(
        default=None, ge=0, le=1000, description="entropy_bounded: nats of entropy revealed a step; null: 0.5"
    )
    reveal: Reveal | None = Field(
        default=None,
        description="bijective: which tokens are revealed first; random: an order that is a function of seed; null: "
        "random",
    )
    remasking: Literal["cap", "rescale", "confidence", "loop"] | None = Field(
        default=None, description="remdm: how much is masked again; null: cap"
    )
    eta: float | None = Field(default=None, ge=0, le=1, description="remdm: strength of masking again; null: 0.02")
    corrector_steps: Whole | None = Field(
        default=None, ge=0, le=100, description="predictor_corrector: corrections a step; null: 1"
    )
    threshold: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="proofreading: probability of [MASK] above which a token is masked again, 1: never; null: 0.2",
    )
    order: Literal["confidence", "chance"] | None = Field(
        default=None, description="proofreading: which masked tokens are filled in first; null: confidence"
    )
    finish: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="proofreading: share of the steps kept for reading the full text again; null: 0.25",
    )
