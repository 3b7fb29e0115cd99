"""What concept networks are trained on: text through a bottleneck of C concept vectors."""

from remask.objectives.concepts.bound import ConceptBound
from remask.objectives.concepts.contract import ConceptReader, Concepts, Ear
from remask.objectives.concepts.contrastive import (
    ConceptContrastive,
    both_sides,
    disjoint_views,
    dropped_views,
    thinned_sides,
)
from remask.objectives.concepts.deleted import ConceptTSDAE
from remask.objectives.concepts.diversity import NOTHING, TERMS, Diversity, fixed, learned
from remask.objectives.concepts.masked import ConceptMasked, masks_too, visible_alone

__all__ = [
    "NOTHING",
    "TERMS",
    "ConceptBound",
    "ConceptContrastive",
    "ConceptMasked",
    "ConceptReader",
    "ConceptTSDAE",
    "Concepts",
    "Diversity",
    "Ear",
    "both_sides",
    "disjoint_views",
    "dropped_views",
    "fixed",
    "learned",
    "masks_too",
    "thinned_sides",
    "visible_alone",
]
