"""Keys of a recipe of an autoencoder of texts, or of a prior over its concepts, that do not go together."""

from collections.abc import Callable, Iterator

from remask.config.clash import Contradiction, clash
from remask.config.schema import (
    ConceptAutoencoderSpec,
    ConceptPriorNetworkSpec,
    ConceptPriorSpec,
    ConceptSpec,
    Recipe,
)


def _pair(recipe: Recipe) -> Iterator[Contradiction]:
    """A prior over concepts is one objective and one network."""
    objective, network = recipe.objective, recipe.network
    if isinstance(objective, ConceptPriorSpec) and isinstance(network, ConceptSpec):
        but = "objective concept_prior is of the concepts of a finished run"
        give = "network.kind=concept_prior and network.codec=RUN, or objective.kind=concept_autoencoder"
        yield clash("objective.kind", "network.kind", given=network.kind, but=but, give=give)
    if isinstance(network, ConceptPriorNetworkSpec) and not isinstance(objective, ConceptPriorSpec):
        but = "a concept_prior network denoises concepts, not tokens"
        yield clash(
            "network.kind", "objective.kind", given=objective.kind, but=but, give="objective.kind=concept_prior"
        )


def _whole_texts(recipe: Recipe) -> Iterator[Contradiction]:
    """An encoder of a whole row wants rows of one text each, or of one response, all of which is told by concepts."""
    if not isinstance(recipe.objective, ConceptAutoencoderSpec | ConceptPriorSpec):
        return
    data, kind = recipe.data, recipe.objective.kind
    if data.paired and isinstance(recipe.objective, ConceptAutoencoderSpec):
        if data.pad != "end":
            but = f"objective {kind} encodes responses up to one length, their ends of text included"
            yield clash("objective.kind", "data.pad", given=data.pad, but=but, give="data.pad=end")
    elif data.paired:
        but = f"objective {kind} encodes rows of plain text"
        key = "data.source" if data.prompt_key is None else "data.prompt_key"
        given = data.source if data.prompt_key is None else data.prompt_key
        yield clash("objective.kind", key, given=given, but=but, give="a source of plain text, e.g. python-docs")
    elif data.prefix != 0:
        but = f"objective {kind} encodes rows of one document each, in which nothing is given"
        yield clash("objective.kind", "data.prefix", given=data.prefix, but=but, give="data.prefix=0")
    if recipe.process is not None and recipe.process.kind != "masking":
        but = f"objective {kind} decodes masked tokens"
        yield clash("objective.kind", "process.kind", given=recipe.process.kind, but=but, give="process.kind=masking")


def _narrow(recipe: Recipe) -> Iterator[Contradiction]:
    """Noise on concepts needs vectors of unit variance, and a fixed number of them."""
    network = recipe.network
    if not isinstance(recipe.objective, ConceptAutoencoderSpec) or not isinstance(network, ConceptSpec):
        return
    if not network.slot_count:
        but = "objective concept_autoencoder puts noise on a fixed number of concepts"
        give = "network.encoder=perceiver"
        yield clash("objective.kind", "network.encoder", given=network.encoder, but=but, give=give)
    if network.latent_width is None:
        but = "objective concept_autoencoder puts noise on concepts of unit variance, which narrow ones have"
        give = "network.latent_width=16"
        yield clash("objective.kind", "network.latent_width", given=None, but=but, give=give)


def _prior(recipe: Recipe) -> Iterator[Contradiction]:
    """What a frozen codec within the network allows."""
    sampling = recipe.sampling
    if not isinstance(recipe.objective, ConceptPriorSpec):
        for key in ("latent_sampler", "latent_steps"):
            value = getattr(sampling, key)
            if value is not None:
                but = f"objective {recipe.objective.kind} draws no concepts"
                yield clash("objective.kind", f"sampling.{key}", given=value, but=but, give=f"sampling.{key}=null")
        return
    if recipe.training.parallel == "fsdp":
        but = "the frozen codec of a concept_prior network is whole on every process"
        yield clash("network.kind", "training.parallel", given="fsdp", but=but, give="training.parallel=ddp")


LATENT_CHECKS: tuple[Callable[[Recipe], Iterator[Contradiction]], ...] = (_pair, _whole_texts, _narrow, _prior)
