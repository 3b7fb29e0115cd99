"""What concept networks are trained on: text through a bottleneck of C concept vectors."""

from remask.objectives.concepts.bound import ConceptBound
from remask.objectives.concepts.contract import ConceptReader, Concepts

__all__ = ["ConceptBound", "ConceptReader", "Concepts"]
