"""What a recipe may say of the objectives of concept networks."""

from typing import Literal

from pydantic import Field

from remask.config.schema.bounds import WeightedBoundSpec


class ConceptBoundSpec(WeightedBoundSpec):
    """The diffusion bound on a text's end, given its beginning through concepts."""

    kind: Literal["concept_bound"] = Field(
        default="concept_bound", description="the diffusion bound on what follows the given tokens, read as concepts"
    )
    nested_share: float = Field(
        default=0.0, ge=0, le=1, description="share of training rows that keep a random number of first concepts only"
    )
