"""The objectives of concept networks, from a recipe."""

from torch import nn

from remask import processes
from remask.config import schema
from remask.networks.term_weights import TERM_WEIGHTS, TermWeights
from remask.objectives.base import Objective
from remask.objectives.concepts import (
    TERMS,
    ConceptBound,
    ConceptContrastive,
    ConceptMasked,
    ConceptTSDAE,
    Diversity,
    both_sides,
    disjoint_views,
    dropped_views,
    fixed,
    learned,
    masks_too,
    thinned_sides,
    visible_alone,
)
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
    concepts = recipe.network.slot_count if isinstance(recipe.network, schema.ConceptSpec) else None
    diversity = build_diversity(spec.diversity)
    return ConceptBound(bound=bound, concepts=concepts, nested_share=spec.nested_share, diversity=diversity)


def build_concept_objective(
    spec: schema.ConceptMaskedSpec | schema.ConceptTSDAESpec | schema.ConceptContrastiveSpec,
    process: processes.CategoricalProcess,
) -> Objective:
    """An objective that has no likelihood."""
    assert isinstance(process, processes.Masking), "the schema refuses other noise"
    diversity = build_diversity(spec.diversity)
    match spec:
        case schema.ConceptMaskedSpec():
            source = {"absent": visible_alone, "masked": masks_too}[spec.hidden]
            return ConceptMasked(process=process, rate=spec.rate, diversity=diversity, source=source)
        case schema.ConceptTSDAESpec():
            return ConceptTSDAE(process=process, share=spec.share, diversity=diversity)
        case schema.ConceptContrastiveSpec():
            dropped = dropped_views(0.6 if spec.share is None else spec.share)
            sides = both_sides if spec.share is None else thinned_sides(spec.share)
            views = {"halves": disjoint_views, "dropped": dropped, "sides": sides}
            return ConceptContrastive(
                process=process,
                views=views[spec.views],
                temperature=spec.temperature,
                reconstruction_weight=spec.reconstruction_weight,
                diversity=diversity,
            )


def build_diversity(spec: schema.DiversitySpec) -> Diversity:
    """The terms that a recipe gives a weight."""
    chosen = spec.chosen
    weigh = {"fixed": fixed(chosen), "learned": learned}[spec.weights]
    return Diversity(terms={name: TERMS[name] for name in chosen}, weigh=weigh, cap=spec.cap)


def add_term_weights(network: nn.Module, recipe: schema.Recipe) -> None:
    """Gives a network the weights of loss terms that it is to learn, where its recipe asks for that."""
    spec = getattr(recipe.objective, "diversity", None)
    if spec is not None and spec.weights == "learned" and spec.chosen:
        weights = TermWeights(spec.chosen).to(next(network.parameters()).device)
        network.add_module(TERM_WEIGHTS, weights)
