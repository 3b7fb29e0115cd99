"""What a recipe may say: every key, its range, and what it means.

A recipe is one complete experiment. Sections that come in several kinds (tokenizer, schedule, process,
objective, network) are unions told apart by their key `kind`: a new kind is a new class, added to the union
below its siblings, and one branch in `remask.config.build`. Each key is checked
on its own here; `remask.config.contradictions` says which keys do not go together.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A part of a recipe: immutable, no unknown keys, no silent conversion, only finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _whole(value: Any) -> Any:
    """Lets 1e3 stand for 1000 where a whole number is wanted, and keeps it within 64 bits."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("which does not fit 64 bits")
    return value


def _pair(value: Any) -> Any:
    """YAML has lists only; a frozen recipe holds tuples."""
    return tuple(value) if isinstance(value, list) else value


Whole = Annotated[int, BeforeValidator(_whole)]
Share = Annotated[float, Field(ge=0, lt=1)]

# --- data -------------------------------------------------------------------------------------------------


class DataSpec(Section):
    """The text, and how long a row of it is."""

    source: str = Field(
        min_length=1,
        description="python-docs, python-code, a .txt/.txt.gz/.jsonl/.parquet file, a folder, or hf:NAME",
    )
    validation: str | None = Field(
        default=None,
        min_length=1,
        description="file or folder held out for validation; null: a share of source",
    )
    test: str | None = Field(
        default=None, min_length=1, description="file or folder held out for testing; null: a share of source"
    )
    text_key: str = Field(default="text", min_length=1, description="column or key that holds the text")
    separator: str | None = Field(
        default=None,
        min_length=1,
        description="text between two documents of one .txt file; null: one document",
    )
    config: str | None = Field(default=None, min_length=1, description="configuration of a Hugging Face dataset")
    streaming: bool = Field(default=False, description="read a Hugging Face dataset without downloading it whole")
    max_documents: Whole | None = Field(default=None, ge=1, description="documents to read at most; null: all")
    length: Whole = Field(default=128, ge=2, description="tokens a row")


# --- tokenizer --------------------------------------------------------------------------------------------


class ByteTokenizerSpec(Section):
    """One token a UTF-8 byte."""

    kind: Literal["byte"] = Field(default="byte", description="one token a UTF-8 byte (258 ids)")


class CharacterTokenizerSpec(Section):
    """One token a character of the corpus."""

    kind: Literal["character"] = Field(default="character", description="one token a character of the corpus")


class BPETokenizerSpec(Section):
    """Byte-level byte-pair encoding, trained on the training split."""

    kind: Literal["bpe"] = Field(default="bpe", description="byte-level BPE trained on the training split")
    vocab_size: Whole = Field(default=1024, ge=258, description="ids, with end of text and mask among them")


class HuggingFaceTokenizerSpec(Section):
    """A ready tokenizer from the Hub or from a folder."""

    kind: Literal["huggingface"] = Field(default="huggingface", description="a ready Hugging Face tokenizer")
    name: str = Field(min_length=1, description="its name on the Hub, or a local folder")


TokenizerSpec = Annotated[
    ByteTokenizerSpec | CharacterTokenizerSpec | BPETokenizerSpec | HuggingFaceTokenizerSpec,
    Field(discriminator="kind"),
]

# --- schedules: alpha(t), the share of tokens left untouched at time t --------------------------------


class LinearScheduleSpec(Section):
    """alpha(t) = 1 - t."""

    kind: Literal["linear"] = Field(default="linear", description="alpha(t) = 1 - t")


class CosineScheduleSpec(Section):
    """alpha(t) = 1 - cos(pi/2 (1 - t))."""

    kind: Literal["cosine"] = Field(default="cosine", description="alpha(t) = 1 - cos(pi/2 (1 - t))")


class PolynomialScheduleSpec(Section):
    """alpha(t) = 1 - t^power."""

    kind: Literal["polynomial"] = Field(default="polynomial", description="alpha(t) = 1 - t^power")
    power: float = Field(default=2.0, gt=0, le=16, description="exponent of t; 1 is the linear schedule")


class LogLinearScheduleSpec(Section):
    """alpha(t) = 1 - (1 - epsilon) t."""

    kind: Literal["log_linear"] = Field(default="log_linear", description="alpha(t) = 1 - (1 - epsilon) t")
    epsilon: float = Field(default=1e-3, gt=0, lt=1, description="share of tokens still untouched at t = 1")


ScheduleSpec = Annotated[
    LinearScheduleSpec | CosineScheduleSpec | PolynomialScheduleSpec | LogLinearScheduleSpec,
    Field(discriminator="kind"),
]

# --- processes: what noise does -----------------------------------------------------------------------------


class MaskingSpec(Section):
    """Noise replaces tokens by the mask token."""

    kind: Literal["masking"] = Field(default="masking", description="noise replaces tokens by the mask token")
    schedule: ScheduleSpec = Field(default=LinearScheduleSpec(), description="share of tokens left untouched over time")


class UniformSpec(Section):
    """Noise replaces tokens by uniformly random ones."""

    kind: Literal["uniform"] = Field(default="uniform", description="noise replaces tokens by random ones")
    schedule: ScheduleSpec = Field(default=LinearScheduleSpec(), description="share of tokens left untouched over time")


class HybridSpec(Section):
    """Noise masks most tokens and replaces the others by random ones."""

    kind: Literal["hybrid"] = Field(default="hybrid", description="noise masks tokens and replaces some by random ones")
    uniform_share: float = Field(default=0.1, gt=0, lt=1, description="share of the noise that is a random token")
    schedule: ScheduleSpec = Field(default=LinearScheduleSpec(), description="share of tokens left untouched over time")


ProcessSpec = Annotated[MaskingSpec | UniformSpec | HybridSpec, Field(discriminator="kind")]

# --- objectives: what is minimised --------------------------------------------------------------------------


class LikelihoodBoundSpec(Section):
    """The diffusion bound on the negative log-likelihood."""

    kind: Literal["likelihood_bound"] = Field(
        default="likelihood_bound", description="the diffusion bound on -log p(x), at random times"
    )
    t_min: float = Field(
        default=1e-3,
        gt=0,
        lt=1,
        description="where the bound's diffusion term ends and its reconstruction term begins",
    )
    weighting: Literal["bound", "root"] = Field(
        default="bound",
        description="weight of each time in training: the bound's, or that times the root of t",
    )
    curriculum_ratio: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the steps over which the largest time rises to 1; 0: none",
    )
    curriculum_start: float = Field(
        default=0.25, gt=0, le=1, description="largest time at the first step of a curriculum; above t_min"
    )


class NextTokenSpec(Section):
    """Autoregressive: the exact -log p(x), token by token from the left."""

    kind: Literal["next_token"] = Field(default="next_token", description="exact -log p(x), left to right, no noise")


ObjectiveSpec = Annotated[LikelihoodBoundSpec | NextTokenSpec, Field(discriminator="kind")]

# --- networks: what predicts --------------------------------------------------------------------------------


class TransformerSpec(Section):
    """Rotary positions, RMSNorm, gated MLP."""

    kind: Literal["transformer"] = Field(default="transformer", description="rotary positions, RMSNorm, gated MLP")
    width: Whole = Field(default=256, ge=2, description="features a token; a multiple of heads")
    layers: Whole = Field(default=4, ge=1, description="blocks")
    heads: Whole = Field(default=4, ge=1, description="attention heads; width / heads must be even")
    mlp_width: Whole | None = Field(
        default=None, ge=1, description="hidden features of the gated MLP; null: 8/3 width, rounded to 32"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of activations dropped in training")
    attention: Literal["bidirectional", "causal"] = Field(
        default="bidirectional",
        description="what a token sees: its whole document, or only what is left of it",
    )
    time_conditioning: Literal["none", "adaln_zero"] = Field(
        default="none", description="how the network learns the time t"
    )
    head: Literal["tied", "untied"] = Field(
        default="untied", description="output weights: the embedding's, or their own"
    )


# A second kind makes this `Annotated[TransformerSpec | OtherSpec, Field(discriminator="kind")]`.
NetworkSpec = TransformerSpec

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
    betas: Annotated[tuple[Share, Share], BeforeValidator(_pair)] = Field(
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


class EvaluationSpec(Section):
    """The likelihood on held-out text."""

    split: Literal["validation", "test"] = Field(default="validation", description="held-out text to judge on")
    rows: Whole | None = Field(default=512, ge=1, description="rows to judge on; null: all")
    draws: Whole = Field(default=8, ge=1, description="random times and noises a row, averaged")


class SamplingSpec(Section):
    """How text is drawn."""

    sampler: Literal["ancestral", "confidence", "left_to_right"] = Field(
        default="ancestral", description="ancestral: the reverse process; confidence: surest tokens first"
    )
    steps: Whole = Field(
        default=64, ge=1, le=1_000_000, description="steps of the reverse process; left_to_right takes one a token"
    )
    count: Whole = Field(default=4, ge=1, description="texts to draw")
    length: Whole | None = Field(default=None, ge=1, description="tokens a text; null: data.length")
    temperature: float = Field(default=1.0, gt=0, le=100, description="logits are divided by it; below 1 is bolder")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="draw from the likeliest tokens of this total probability"
    )


# --- the whole ----------------------------------------------------------------------------------------------


class Recipe(Section):
    """One complete experiment, from text to judged model."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="name of the recipe; runs are named after it",
        json_schema_extra={"valid": "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"},
    )
    description: str = Field(default="", description="the experiment in one line")
    seed: Whole = Field(default=1, ge=0, description="decides weights, order of the data, noise and samples")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|mps|cuda(:(0|[1-9][0-9]{0,3}))?)$",
        description="where to compute; auto: CUDA, else MPS, else the CPU",
        json_schema_extra={"valid": "auto, cpu, cuda, cuda:N or mps"},
    )
    data: DataSpec = Field(description="the text")
    tokenizer: TokenizerSpec = Field(default=ByteTokenizerSpec(), description="how text becomes ids")
    process: ProcessSpec | None = Field(default=MaskingSpec(), description="the noise; null: none (next_token)")
    objective: ObjectiveSpec = Field(default=LikelihoodBoundSpec(), description="what is minimised")
    network: NetworkSpec = Field(default=TransformerSpec(), description="what predicts")
    training: TrainingSpec = Field(default=TrainingSpec(), description="how it is trained")
    evaluation: EvaluationSpec = Field(default=EvaluationSpec(), description="how it is judged")
    sampling: SamplingSpec = Field(default=SamplingSpec(), description="how text is drawn")
