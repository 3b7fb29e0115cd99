"""What a recipe may say of the watch over training, and of what is done when something is wrong."""

from typing import Literal

from pydantic import Field

from remask.config.schema.section import Section, Whole


class HealthSpec(Section):
    """What is done at each kind of alarm; every alarm is recorded and printed, whatever is done."""

    non_finite: Literal["stop", "skip", "roll_back"] = Field(
        default="stop", description="at a loss or gradient that is not finite: stop, skip the batch, or roll back"
    )
    explosion: Literal["report", "stop", "skip", "roll_back"] = Field(
        default="report", description="at a gradient far longer than usual"
    )
    dead: Literal["report", "stop"] = Field(
        default="stop", description="where nothing is trained: no gradient, a loss of zero, parameters that never move"
    )
    trivial: Literal["report", "stop"] = Field(
        default="report", description="where the loss stays at what a trivial predictor gets"
    )
    collapse: Literal["report", "stop"] = Field(default="report", description="where samples repeat themselves")
    logit_gap: Literal["report", "stop"] = Field(
        default="report", description="proofreading: where [MASK] is far from the share of probability it should have"
    )
    inversion: Literal["report", "stop"] = Field(
        default="stop",
        description="where undoing reversible blocks misses their activations, so that the gradient is another's",
    )
    explosion_factor: float = Field(
        default=30.0, gt=1, description="gradient norm, as a multiple of its running median, that is an explosion"
    )
    inversion_tolerance: float = Field(
        default=1e-2, gt=0, description="largest error of undone activations, as a share of their root mean square"
    )
    rate_factor: float = Field(
        default=0.5, gt=0, lt=1, description="roll_back: the learning rate is multiplied by it each time"
    )
    retries: Whole = Field(default=3, ge=1, description="roll_back: how often, before the run stops")

    @property
    def may_roll_back(self) -> bool:
        """Whether a checkpoint may be gone back to."""
        return "roll_back" in (self.non_finite, self.explosion)
