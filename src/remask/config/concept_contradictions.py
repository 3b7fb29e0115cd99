"""Keys of a recipe of the concept family that are each valid but do not go together."""

from collections.abc import Callable, Iterator

from remask.config.clash import Contradiction, clash
from remask.config.schema import ConceptBoundSpec, Recipe
from remask.config.schema.text import TASKS


def _given(recipe: Recipe) -> Iterator[Contradiction]:
    """A bound on what follows needs something that it follows."""
    objective, data = recipe.objective, recipe.data
    if not isinstance(objective, ConceptBoundSpec):
        return
    if not data.prefix and data.prompt_key is None and data.source not in TASKS:
        but = "the text has nothing that is given, for concepts to be read from"
        give = "data.prefix (tokens given at the start of each row), or data.prompt_key and data.response_key"
        yield clash("objective.kind", "data.prefix", given=data.prefix, but=but, give=give)


def _reader(recipe: Recipe) -> Iterator[Contradiction]:
    """An objective that tells a network a source needs one that reads it."""
    kind = recipe.objective.kind
    if isinstance(recipe.objective, ConceptBoundSpec) and recipe.network.kind != "concept":
        but = f"objective {kind} is of networks that read a source"
        give = "network.kind=concept, or objective.kind=likelihood_bound"
        yield clash("objective.kind", "network.kind", given=recipe.network.kind, but=but, give=give)


CONCEPT_CHECKS: tuple[Callable[[Recipe], Iterator[Contradiction]], ...] = (_reader, _given)
