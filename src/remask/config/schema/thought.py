"""What a recipe may say of Gaussian noise on the vectors of tokens, and of the objective that undoes it."""

from typing import Literal

from pydantic import Field

from remask.config.schema.section import Section


class GaussianSpec(Section):
    """Gaussian noise on the vectors of tokens."""

    kind: Literal["gaussian"] = Field(default="gaussian", description="Gaussian noise on the vectors of tokens")
    noise: Literal["cosine", "linear", "square_root"] = Field(
        default="cosine", description="how the noise grows over time"
    )


class ThoughtObjectiveSpec(Section):
    """Denoise the vectors of a response, given its question."""

    kind: Literal["thought"] = Field(
        default="thought", description="denoise the vectors of a response, given its question"
    )
    loss: Literal["cross_entropy", "clean", "velocity", "noise"] = Field(
        default="cross_entropy",
        description="what is minimised: nats of the clean tokens, or the squared error of one of these vectors",
    )
    weighting: Literal["own", "min_snr"] = Field(
        default="own",
        description="squared errors: weight of each time, that of the vector's own error or the noise's, cut at SNR 5",
    )
    time_exponent: float = Field(
        default=0.3, gt=0, le=10, description="training times are u to this power, u uniform; below 1: more noise"
    )
    time_warping: Literal["none", "learned"] = Field(
        default="none",
        description="learned: training times are drawn where the loss is seen to change; instead of a time_exponent",
    )
    t_min: float = Field(default=1e-3, gt=0, lt=1, description="the smallest time that is learned or judged")
    self_conditioning: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="share of the steps in which the network reads its own first estimate; below 1: it must also learn "
        "to make one",
    )
    answer_weight: float = Field(
        default=0.0, ge=0, le=100, description="weight of writing the answer from left to right behind the thought"
    )
    answer_share: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="answer_weight above 0: share of the rows of a step whose answers are written",
    )
    answer_mark: str | None = Field(
        default="####",
        min_length=1,
        description="answer_weight above 0: what the answer stands behind; null: the whole response is answer",
    )
    answer_noise: float = Field(
        default=0.3,
        gt=0,
        le=1,
        description="answer_weight above 0: largest time of the noise on the thought behind which they are written",
    )


class TextAutoencoderSpec(Section):
    """A response through a few Gaussian vectors."""

    kind: Literal["text_autoencoder"] = Field(
        default="text_autoencoder", description="write a response again from Gaussian vectors that stand for it"
    )
    divergence: float = Field(
        default=0.01, ge=0, le=10, description="weight of the vectors' divergence from white noise, nats for nats"
    )
