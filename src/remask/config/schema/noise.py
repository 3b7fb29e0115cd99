"""What a recipe may say of schedule, process and objective."""

from typing import Annotated, Literal

from pydantic import Field

from remask.config.schema.bounds import BoundSpec, WeightedBoundSpec
from remask.config.schema.concept_objectives import (
    ConceptBoundSpec,
    ConceptContrastiveSpec,
    ConceptMaskedSpec,
    ConceptTSDAESpec,
)
from remask.config.schema.latents import ConceptAutoencoderSpec, ConceptPriorSpec
from remask.config.schema.section import Section, Whole
from remask.config.schema.thought import GaussianSpec, TextAutoencoderSpec, ThoughtObjectiveSpec

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


ProcessSpec = Annotated[MaskingSpec | UniformSpec | HybridSpec | GaussianSpec, Field(discriminator="kind")]

# --- objectives: what is minimised --------------------------------------------------------------------------


class LikelihoodBoundSpec(WeightedBoundSpec):
    """The diffusion bound on the negative log-likelihood."""

    kind: Literal["likelihood_bound"] = Field(
        default="likelihood_bound", description="the diffusion bound on -log p(x), at random times"
    )


Reveal = Literal["left_to_right", "random", "spread", "confidence", "margin", "entropy"]
"""Orders in which a sampler reveals tokens: three fixed ones, and three that take the place the model is surest of."""


class BijectiveSpec(WeightedBoundSpec):
    """The diffusion bound, and the exact likelihood of a named sampler at a weight."""

    kind: Literal["bijective"] = Field(
        default="bijective", description="the diffusion bound, plus a share of a named sampler's exact -log p(x)"
    )
    likelihood_weight: float = Field(
        default=0.1, ge=0, le=100, description="weight of the sampler's -log p(x), once risen; 0: the bound alone"
    )
    likelihood_warmup_ratio: float = Field(
        default=0.1, ge=0, le=1, description="share of the steps over which likelihood_weight rises to its value"
    )
    likelihood_steps: Whole = Field(
        default=32, ge=1, le=1_000_000, description="rounds in which that sampler reveals a row"
    )
    likelihood_reveal: Reveal = Field(default="spread", description="which tokens that sampler reveals first")
    likelihood_estimate: Literal["one_step", "all_steps"] = Field(
        default="one_step", description="-log p(x) from one random round a row, or all of them (a pass each)"
    )


class BlockDiffusionSpec(WeightedBoundSpec):
    """The diffusion bound block by block, each given the clean blocks before it (BD3LM)."""

    kind: Literal["block_diffusion"] = Field(
        default="block_diffusion", description="the bound of each block given the clean blocks before it"
    )
    block_length: Whole = Field(default=16, ge=1, description="tokens a block; a divisor of data.length")


class ScoreEntropySpec(BoundSpec):
    """Score entropy of masking or uniform noise (SEDD)."""

    kind: Literal["score_entropy"] = Field(
        default="score_entropy", description="denoising score entropy (SEDD) of masking or uniform noise"
    )


class MaskedLanguageModelSpec(BoundSpec):
    """Masked language modelling at a fixed rate."""

    kind: Literal["masked_language_model"] = Field(
        default="masked_language_model", description="cross-entropy of a fixed share of masked tokens"
    )
    rate: float = Field(default=0.15, gt=0, lt=1, description="share of tokens that are masked")


class ProofreadingSpec(BoundSpec):
    """Unmask what is masked, and answer [MASK] where a token is wrong."""

    kind: Literal["proofreading"] = Field(
        default="proofreading", description="predict masked tokens, and the mask where a token was replaced"
    )
    weight_unmask_task: float = Field(default=1.0, gt=0, le=100, description="weight of masked positions")
    weight_remask_task: float = Field(default=1.0, gt=0, le=100, description="weight of replaced and kept positions")
    reward_correct_unmask: float = Field(
        default=0.1, gt=0, le=1, description="weight left to a masked token that is predicted with certainty; never 0"
    )
    penalty_mask_correct: float = Field(
        default=1.0, ge=0, le=100, description="weight of calling a right token wrong, once ramped up"
    )
    replaced_share: float = Field(
        default=0.2, ge=0, lt=1, description="share of the visible tokens that are replaced, once ramped up"
    )
    replacements: Literal["own", "uniform"] = Field(
        default="own", description="where wrong tokens come from: what the network itself would write, or any word"
    )
    masking_warmup_ratio: float = Field(
        default=0.2, ge=0, le=1, description="share of the steps over which penalty_mask_correct rises to its value"
    )
    proofreading_warmup_ratio: float = Field(
        default=0.2, ge=0, le=1, description="share of the steps over which replaced_share rises to its value"
    )
    target_mask_prob: float = Field(
        default=0.05, gt=0, lt=0.5, description="mean probability of [MASK] on masked positions that the bias keeps"
    )


class NextTokenSpec(Section):
    """Autoregressive: the exact -log p(x), token by token from the left."""

    kind: Literal["next_token"] = Field(default="next_token", description="exact -log p(x), left to right, no noise")


ObjectiveSpec = Annotated[
    LikelihoodBoundSpec
    | BijectiveSpec
    | BlockDiffusionSpec
    | ScoreEntropySpec
    | MaskedLanguageModelSpec
    | ProofreadingSpec
    | ConceptBoundSpec
    | ConceptMaskedSpec
    | ConceptTSDAESpec
    | ConceptContrastiveSpec
    | ConceptAutoencoderSpec
    | ConceptPriorSpec
    | ThoughtObjectiveSpec
    | TextAutoencoderSpec
    | NextTokenSpec,
    Field(discriminator="kind"),
]
