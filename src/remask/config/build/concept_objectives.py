"""The objectives of concept networks, from a recipe."""

from remask.config import schema
from remask.objectives.concepts import ConceptBound
from remask.objectives.likelihood import LikelihoodBound


def build_concept_bound(
    recipe: schema.Recipe, spec: schema.ConceptBoundSpec, *, bound: LikelihoodBound
) -> ConceptBound:
    """The bound of what follows a source, over the concepts of the recipe's network.

    Args:
        recipe: says how many concepts there are.
        spec: its objective.
        bound: of the targets.
    """
    concepts = getattr(recipe.network, "slot_count", None)
    return ConceptBound(bound=bound, concepts=concepts, nested_share=spec.nested_share)
