"""What a recipe may say of the objectives of concept networks."""

from typing import Any, Literal

from pydantic import Field

from remask.config.schema.bounds import WeightedBoundSpec
from remask.config.schema.section import Section


class DiversitySpec(Section):
    """Terms that keep concepts from collapsing; each sees what varies between inputs alone."""

    orthogonality: float = Field(default=0.0, ge=0, le=1, description="weight of: slots of a text point elsewhere")
    uniformity: float = Field(default=0.0, ge=0, le=1, description="weight of: texts lie evenly on each slot's sphere")
    variance_covariance: float = Field(
        default=0.0, ge=0, le=1, description="weight of: every feature varies, none with another"
    )
    spread: float = Field(default=0.0, ge=0, le=1, description="weight of: no text lies close to another in a slot")
    weights: Literal["fixed", "learned"] = Field(
        default="fixed",
        description="whether the weights stay, or are learned from where they begin, within 0.001 and 1",
    )
    cap: float = Field(
        default=0.5, gt=0, le=1, description="the most that all terms together add, as a share of the task's loss"
    )

    @property
    def chosen(self) -> dict[str, float]:
        """The terms that weigh anything."""
        names = ("orthogonality", "uniformity", "variance_covariance", "spread")
        return {name: weight for name in names if (weight := getattr(self, name))}


class _Diverse(Section):
    """What the objectives of concept networks have in common."""

    kind: Any  # narrowed by each kind; named here so that it comes first
    diversity: DiversitySpec = Field(
        default=DiversitySpec(), description="terms that keep concepts apart, each at a weight; none by default"
    )


class ConceptBoundSpec(WeightedBoundSpec):
    """The diffusion bound on a text's end, given its beginning through concepts."""

    kind: Literal["concept_bound"] = Field(
        default="concept_bound", description="the diffusion bound on what follows the given tokens, read as concepts"
    )
    nested_share: float = Field(
        default=0.0, ge=0, le=1, description="share of training rows that keep a random number of first concepts only"
    )
    diversity: DiversitySpec = Field(
        default=DiversitySpec(), description="terms that keep concepts apart, each at a weight; none by default"
    )


class ConceptMaskedSpec(_Diverse):
    """Masked language modelling through concepts."""

    kind: Literal["concept_masked"] = Field(
        default="concept_masked", description="cross-entropy of masked tokens, read off concepts of the others"
    )
    rate: float = Field(default=0.5, gt=0, lt=1, description="share of tokens that are masked")
    hidden: Literal["absent", "masked"] = Field(
        default="absent", description="what the encoder meets at a masked token: nothing, or a mask in its place"
    )


class ConceptTSDAESpec(_Diverse):
    """Denoising from deletion."""

    kind: Literal["concept_tsdae"] = Field(
        default="concept_tsdae", description="cross-entropy of all tokens, read off concepts of those not deleted"
    )
    share: float = Field(default=0.6, gt=0, lt=1, description="share of tokens that are deleted")


class ConceptContrastiveSpec(_Diverse):
    """Two views of a text against those of other texts."""

    kind: Literal["concept_contrastive"] = Field(
        default="concept_contrastive", description="finding a text's other view in the batch, and writing the text"
    )
    views: Literal["halves", "dropped", "sides"] = Field(
        default="halves",
        description="two disjoint halves of the tokens, two draws of deletion, or both sides of a pair",
    )
    share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of tokens that are deleted; null: views=dropped 0.6, views=sides none",
    )
    temperature: float = Field(default=0.05, gt=0, le=10, description="what cosines are divided by")
    reconstruction_weight: float = Field(
        default=0.1,
        ge=0,
        le=100,
        description="weight of writing the text from either view's concepts; 0: not at all (network.decoder=none)",
    )
