"""What several objectives of a recipe have in common."""

from typing import Any, Literal

from pydantic import Field

from remask.config.schema.section import Section


class BoundSpec(Section):
    """Keys of every objective whose likelihood is a diffusion bound."""

    kind: Any  # narrowed by each kind; named here so that it comes first
    t_min: float = Field(
        default=1e-3,
        gt=0,
        lt=1,
        description="where the bound's diffusion term ends and its reconstruction term begins",
    )


class WeightedBoundSpec(BoundSpec):
    """Keys of the objectives that train on the bound itself, or on a reweighted part of it."""

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
